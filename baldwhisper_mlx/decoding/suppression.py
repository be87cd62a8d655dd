"""Which ids are never chosen: `suppress_tokens`, as openai-whisper and faster-whisper take it."""

from __future__ import annotations

from collections.abc import Sequence

from baldwhisper_mlx.decoding.options import Vocabulary


def suppressed_ids(suppress_tokens: Sequence[int], vocabulary: Vocabulary) -> set[int]:
    """Ids that are never chosen; `vocabulary.control` is always among them.

    Args:
        suppress_tokens: ids, of which -1 stands for `vocabulary.suppress`.
        vocabulary: of the model.

    Raises:
        ValueError: an id that the model does not have or that outputs need, or all ids of text.
    """
    v = vocabulary
    ids = set(v.control)
    for token in suppress_tokens:
        if token == -1:
            ids |= set(v.suppress)
        elif not 0 <= token < v.n_vocab:
            raise ValueError(
                f"suppress_tokens: {token} is no token of this model; ids are 0 to "
                f"{v.n_vocab - 1}, and -1 stands for the default list"
            )
        elif token == v.eot or token >= v.timestamp_begin:
            raise ValueError(
                f"suppress_tokens: {token} is a timestamp or the end of text, which outputs need"
            )
        else:
            ids.add(token)
    if sum(token < v.eot for token in ids) == v.eot:
        raise ValueError("suppress_tokens: no token of text is left")
    return ids
