"""Whether the tokens of a vocabulary file are complete.

Every id below the timestamps must have a token, or decoding would fail in the middle of a
recording, at the first text that uses it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from baldwhisper_mlx.terminal import quoted


def check_vocabulary(
    ranks: Mapping[bytes, int], special: Mapping[str, int], end: int, source: str
) -> None:
    """Checks that the ids of all tokens are 0 to `end` - 1, and that every byte has a token.

    Args:
        ranks: bytes of each mergeable token to its id.
        special: name of each special token to its id; <|endoftext|> is the first.
        end: id of the first timestamp.
        source: file that the ranks come from, for messages.

    Raises:
        ValueError: no tokens, negative, missing or repeated ids, ids in the place of special
            tokens or timestamps, or bytes without a token; the message names `source`.
    """
    if not ranks:
        raise ValueError(f"{source}: the file has no tokens")
    ids = [*ranks.values(), *special.values()]
    if min(ids) < 0:
        raise ValueError(f"{source}: the id {min(ids)} is negative")
    eot = special["<|endoftext|>"]
    if max(ranks.values()) >= eot:
        raise ValueError(
            f"{source}: the id {max(ranks.values())} is not below that of <|endoftext|>, {eot}"
        )
    token, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{source}: the id {token} is used {count} times")
    if max(ids) >= end:
        raise ValueError(f"{source}: the id {max(ids)} is one of the timestamps, from {end} on")
    missing = next(_gaps(sorted(ids), end), None)
    if missing is not None:
        first, last = missing
        what = f"id {first} is" if first == last else f"ids {first} to {last} are"
        raise ValueError(f"{source}: {what} missing; the file is cut off, or of another model")
    lacking = [bytes([byte]) for byte in range(256) if bytes([byte]) not in ranks]
    if lacking:
        raise ValueError(
            f"{source}: {len(lacking)} of the 256 bytes have no token, the first is "
            f"{quoted(lacking[0])}"
        )


def _gaps(ids: list[int], end: int) -> Iterator[tuple[int, int]]:
    """First and last of each run of ids below `end` that are not among the sorted `ids`."""
    before = -1
    for token in [*ids, end]:
        if token > before + 1:
            yield before + 1, token - 1
        before = token
