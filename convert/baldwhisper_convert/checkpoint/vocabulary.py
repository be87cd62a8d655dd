"""The vocabulary of an exported model: byte-pair ranks, special tokens, timestamps.

A tokenizer is reduced to what tiktoken needs, and only if that loses nothing: ids must be
consecutive, and merging by id must give what the source's merge list gives (`check_merges`). So
a fine-tuned vocabulary is exported unchanged, and the runtime needs no other tokenizer library.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from baldwhisper_convert.checkpoint.key_maps import listed
from baldwhisper_mlx.bounds import BOUNDS
from baldwhisper_mlx.config import CONTROL_TOKENS, N_TIMESTAMPS
from baldwhisper_mlx.terminal import quoted
from baldwhisper_mlx.text.openai_vocabulary import special_token_ids

END_OF_TEXT, NO_TIMESTAMPS = CONTROL_TOKENS[0], CONTROL_TOKENS[-1]

_RENAMED = {"<|nocaptions|>": "<|nospeech|>", "<|iw|>": "<|he|>"}
"""Names that older tokenizers use for the same tokens."""

_LANGUAGE = re.compile(r"<\|[a-z]{2,3}\|>")
_TIMESTAMP = re.compile(r"<\|\d{1,3}\.\d\d\|>")
_PADDING = re.compile(r"[\[<|]*pad[\]>|]*", re.IGNORECASE)
"""Tokens that only fill up batches, such as [PAD]; a model never writes one."""

_MOST_ID = BOUNDS["n_vocab"]
_MOST_BYTES = 1024
"""Of one token; the longest of OpenAI's have 128."""


@dataclass(frozen=True)
class Vocabulary:
    """Tokens of a Whisper model; their ids are 0 to n_vocab - 1 without gaps.

    Raises:
        ValueError: ids that are missing, used twice or out of order; unknown special tokens.
    """

    ranks: dict[bytes, int]
    """Bytes of each mergeable token to its id, which is also its merge rank."""
    special_tokens: dict[str, int]
    """Name to id of the control and language tokens, which follow the mergeable ones."""
    timestamp_begin: int
    """Id of <|0.00|>; 1501 timestamps are last."""
    source_ids: tuple[int, ...] | None = field(default=None, compare=False)
    """Each id's row in the source's token embedding, if ids had to be changed."""

    def __post_init__(self) -> None:
        missing = [name for name in CONTROL_TOKENS if name not in self.special_tokens]
        if missing:
            raise ValueError(f"not a Whisper vocabulary: no {listed(missing)}")
        unknown = [
            name
            for name in self.special_tokens
            if name not in CONTROL_TOKENS and not _LANGUAGE.fullmatch(name)
        ]
        if unknown:
            raise ValueError(
                "special tokens that are neither control tokens nor languages (<|xx|> or <|xxx|>): "
                f"{listed(unknown)}; a model with them cannot be exported"
            )
        if self.timestamp_begin != self.special_tokens[NO_TIMESTAMPS] + 1:
            raise ValueError(f"{NO_TIMESTAMPS} is not right before the timestamps")
        ids = [*self.ranks.values(), *self.special_tokens.values()]
        if self.timestamp_begin > _MOST_ID:
            raise ValueError(f"{NO_TIMESTAMPS} has the id {self.timestamp_begin - 1}, too high")
        if sorted(ids) != list(range(self.timestamp_begin)):
            seen = set(ids)
            gaps = [str(i) for i in range(self.timestamp_begin) if i not in seen]
            beyond = [str(i) for i in seen if i >= self.timestamp_begin]
            doubled = len(ids) - len(seen)
            raise ValueError(
                f"token ids are not 0 to {self.timestamp_begin - 1}: "
                f"missing {listed(gaps) or 'none'}; beyond {listed(beyond) or 'none'}; "
                f"{doubled} used twice"
            )
        if any(bytes([byte]) not in self.ranks for byte in range(256)):
            raise ValueError("some of the 256 single bytes have no token; not byte-level BPE")

    @property
    def n_vocab(self) -> int:
        """Number of ids, timestamps included."""
        return self.timestamp_begin + N_TIMESTAMPS

    def rank_file(self) -> bytes:
        """The mergeable tokens as a tiktoken rank file: `base64(bytes) rank` lines.

        The empty token of the multilingual vocabulary is written `=`, as in OpenAI's file.
        """
        ordered = sorted(self.ranks.items(), key=lambda item: item[1])
        return b"".join(
            (base64.b64encode(token) or b"=") + b" %d\n" % rank for token, rank in ordered
        )


def unicode_to_byte() -> dict[str, int]:
    """GPT-2's map of bytes to printable characters, inverted.

    Printable Latin-1 stands for itself, the other 68 bytes for U+0100 and on, in order
    (`bytes_to_unicode` in OpenAI's GPT-2 encoder).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + i): byte for i, byte in enumerate(others)
    }


def token_bytes(token: str, table: dict[str, int]) -> bytes:
    """Bytes of a byte-level token such as `Ġthe`.

    Raises:
        ValueError: a character that stands for no byte.
    """
    try:
        return bytes(table[character] for character in token)
    except KeyError as error:
        raise ValueError(f"token {quoted(token)} is not byte-level ({error} is no byte)") from None


def from_tokens(
    tokens: dict[str, int], added: dict[str, int], merges: list[tuple[str, str]] | None
) -> Vocabulary:
    """Builds a vocabulary from the parts of a Hugging Face byte-level BPE tokenizer.

    Args:
        tokens: byte-level token to id; special tokens may be among them.
        added: special token to id; timestamps may be missing, then they follow the others.
            Languages added after the timestamps are moved before them (`source_ids` tells their
            rows), and padding tokens there are dropped.
        merges: the source's merges, best first; None if it has none, then only the consistency
            of the ids is checked.

    Raises:
        ValueError: not a Whisper vocabulary, or one that tiktoken would encode differently.
    """
    _check_ids(tokens)
    _check_ids(added)
    special = set(added) | set(CONTROL_TOKENS) | set(_RENAMED)
    table = unicode_to_byte()
    ranks = {token_bytes(name, table): i for name, i in tokens.items() if name not in special}
    if len(ranks) != sum(name not in special for name in tokens):
        raise ValueError("two tokens stand for the same bytes")
    named: dict[str, int] = {}
    for name, token in [*added.items(), *((n, i) for n, i in tokens.items() if n in special)]:
        name = _RENAMED.get(name, name)
        if named.setdefault(name, token) != token:
            raise ValueError(f"special token {name} has the ids {named[name]} and {token}")
    begin = named.get(NO_TIMESTAMPS, -2) + 1
    for name in [name for name in named if _TIMESTAMP.fullmatch(name)]:
        position = round(float(name[2:-2]) * 50)
        if named.pop(name) != begin + position or position >= N_TIMESTAMPS:
            raise ValueError(f"timestamp {name} is not at id {begin + position}")
    named, begin, source_ids = _move_added(named, begin)
    vocabulary = Vocabulary(ranks, named, begin, source_ids)
    pairs = None
    if merges is not None:
        pairs = [(token_bytes(a, table), token_bytes(b, table)) for a, b in merges]
    check_merges(ranks, pairs)
    return vocabulary


def _check_ids(ids: dict[str, int]) -> None:
    """Makes sure that tokens have whole numbers as ids, and no absurd lengths.

    Raises:
        ValueError: one has not; the message names it.
    """
    for name, token in ids.items():
        if type(token) is not int or not 0 <= token <= _MOST_ID:
            raise ValueError(
                f"token {quoted(name)} has the id {str(token)[:40]}; expected 0 to {_MOST_ID}"
            )
        if len(name) > _MOST_BYTES:
            raise ValueError(f"token {token} is {len(name)} characters long, so it is no word")


def _move_added(
    named: dict[str, int], begin: int
) -> tuple[dict[str, int], int, tuple[int, ...] | None]:
    """Moves languages that were added after the timestamps to the other languages.

    The runtime's timestamps are last, so an added token, which a fine-tuned model has at the end
    of its embedding, gets another id, and its row moves with it.

    Args:
        named: special token to id, without timestamps.
        begin: id of the first timestamp.

    Returns:
        The new ids of special tokens, of the first timestamp, and each id's old one; None if
        nothing moves.

    Raises:
        ValueError: a token that was added is no language, or has the id of a timestamp.
    """
    end = begin + N_TIMESTAMPS
    late = {name: token for name, token in named.items() if token >= end}
    inside = [name for name, token in named.items() if begin <= token < end]
    if inside:
        raise ValueError(
            f"{listed(inside)} has the id of a timestamp; the tokenizer lacks the timestamps, and "
            "tokens were added in their place, so the model cannot be exported"
        )
    if not late or begin == 0:
        return named, begin, None
    languages = [name for name in sorted(late, key=lambda n: late[n]) if _LANGUAGE.fullmatch(name)]
    others = [name for name in late.keys() - set(languages) if not _PADDING.fullmatch(name)]
    if others:
        raise ValueError(
            f"tokens added after the timestamps cannot be exported: {listed(others)}; only added "
            "languages (<|xx|> or <|xxx|>) can. Train the model without them"
        )
    moved = {name: token for name, token in named.items() if name not in late}
    moved |= {name: begin - 1 + i for i, name in enumerate([*languages, NO_TIMESTAMPS])}
    old = [late[name] for name in languages]
    source = (*range(begin - 1), *old, begin - 1, *range(begin, end))
    return moved, begin + len(languages), source


def from_ranks(ranks: dict[bytes, int], n_vocab: int) -> Vocabulary:
    """Adds OpenAI's special tokens to bare ranks, as many languages as `n_vocab` has room for.

    Raises:
        ValueError: `n_vocab` has room for no language or for too many; or as `check_merges`.
    """
    special = special_token_ids(len(ranks), n_vocab)
    check_merges(ranks, None)
    return Vocabulary(ranks, special, len(ranks) + len(special))


def check_merges(ranks: dict[bytes, int], merges: Iterable[tuple[bytes, bytes]] | None) -> None:
    """Checks that merging by lowest id, as tiktoken does, equals merging by `merges`.

    They are equal if every token, encoded with the tokens of lower id only, becomes exactly the
    two parts of its listed merge, and the merges are in the order of ids. Proof: when tiktoken
    picks a pair, no pair of lower id is left in the text. So the bytes of that pair were merged
    with tokens of lower id only, which makes the pair the listed one; and as its id is the
    lowest, the source's algorithm would pick it too.

    Args:
        ranks: token to id.
        merges: the source's merges, best first; None to check only that each token has one.

    Raises:
        ValueError: tokens that differ; tiktoken would encode some text differently.
    """
    implied = merges_of(ranks)
    if merges is None:
        return
    listed_merges = list(merges)
    if listed_merges != implied:
        differing = [f"{a!r} + {b!r}" for a, b in set(implied) ^ set(listed_merges)]
        raise ValueError(
            "merges are not in the order of token ids, so tiktoken would encode text "
            f"differently; {listed(differing) or 'only their order differs'}"
        )


def merges_of(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The merge list, best first, that ranks imply: one pair for each token of several bytes.

    Raises:
        ValueError: tokens that no merge of two lower ones makes.
    """
    # The empty token (id 50256 of OpenAI's multilingual vocabulary) occurs in no text.
    wanted = sorted((i, token) for token, i in ranks.items() if len(token) > 1)
    parts = [(token, _split(token, rank, ranks)) for rank, token in wanted]
    broken = [repr(token) for token, pair in parts if len(pair) != 2]
    if broken:
        raise ValueError(f"tokens that no merge of lower ids makes: {listed(broken)}")
    return [(pair[0], pair[1]) for _, pair in parts]


def _split(token: bytes, limit: int, ranks: dict[bytes, int]) -> list[bytes]:
    """Byte-pair encodes `token` with the ranks below `limit`."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 1:
        pairs = ((ranks.get(parts[i] + parts[i + 1], limit), i) for i in range(len(parts) - 1))
        rank, i = min(pairs)
        if rank >= limit:
            break
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts
