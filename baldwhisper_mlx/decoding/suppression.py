"""Which ids are never chosen: `suppress_tokens`, as openai-whisper and faster-whisper take it."""

from __future__ import annotations

from collections.abc import Sequence


def suppressed_ids(
    suppress_tokens: Sequence[int],
    *,
    default: Sequence[int],
    control: Sequence[int],
    eot: int,
    timestamp_begin: int,
    n_vocab: int,
) -> set[int]:
    """Ids that are never chosen.

    Args:
        suppress_tokens: ids, of which -1 stands for `default`.
        default: the model's own list.
        control: ids that are always among them.
        eot: id of <|endoftext|>; those below it are text.
        timestamp_begin: id of <|0.00|>.
        n_vocab: number of ids.

    Raises:
        ValueError: an id that the model does not have or that outputs need, or all ids of text.
    """
    ids = set(control)
    for token in suppress_tokens:
        if token == -1:
            ids |= set(default)
        elif not 0 <= token < n_vocab:
            raise ValueError(
                f"suppress_tokens: {token} is no token of this model; ids are 0 to {n_vocab - 1}, "
                "and -1 stands for the default list"
            )
        elif token == eot or token >= timestamp_begin:
            raise ValueError(
                f"suppress_tokens: {token} is a timestamp or the end of text, which outputs need"
            )
        else:
            ids.add(token)
    if sum(token < eot for token in ids) == eot:
        raise ValueError("suppress_tokens: no token of text is left")
    return ids
