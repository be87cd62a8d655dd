"""Tiny tokenizers: one byte-level BPE vocabulary in every form a checkpoint may carry it."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

from baldwhisper_convert.checkpoint.vocabulary import Vocabulary, unicode_to_byte
from baldwhisper_mlx.config import CONTROL_TOKENS, N_TIMESTAMPS
from baldwhisper_mlx.text.languages import LANGUAGES

_TEXT = """the quick brown fox jumps over the lazy dog and the other dogs think about it
all human beings are born free and equal in dignity and rights, they are endowed with reason
alle Menschen sind frei und gleich an Würde und Rechten geboren, sie sind mit Vernunft begabt
todos los seres humanos nacen libres e iguales en dignidad y derechos, dotados de razón
все люди рождаются свободными и равными в своём достоинстве и правах
すべての人間は、生まれながらにして自由であり 人人生而自由,在尊严和权利上一律平等
"""


@cache
def tiny_merges(count: int = 150) -> tuple[tuple[bytes, bytes], ...]:
    """Merges of a byte-level BPE trained on a few lines in six languages."""
    words = [[bytes([b]) for b in (" " + word).encode()] for word in _TEXT.split()]
    merges = []
    for _ in range(count):
        pairs = Counter(pair for word in words for pair in pairwise(word))
        best = max(pairs, key=lambda pair: (pairs[pair], -len(pair[0] + pair[1]), pair))
        merges.append(best)
        words = [_merged(word, best) for word in words]
    return tuple(merges)


def _merged(word: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    out: list[bytes] = []
    for part in word:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return out


@cache
def tiny_vocabulary(languages: int = 99) -> Vocabulary:
    """256 bytes in GPT-2's order, 150 merged tokens, OpenAI's special tokens and timestamps."""
    ranks = {bytes([byte]): i for i, byte in enumerate(unicode_to_byte().values())}
    for a, b in tiny_merges():
        ranks[a + b] = len(ranks)
    codes = [f"<|{code}|>" for code in list(LANGUAGES)[:languages]]
    names = [*CONTROL_TOKENS[:2], *codes, *CONTROL_TOKENS[2:]]
    special = {name: len(ranks) + i for i, name in enumerate(names)}
    return Vocabulary(ranks, special, len(ranks) + len(names))


_NAME_OF_BYTE = {byte: name for name, byte in unicode_to_byte().items()}


def byte_level(token: bytes) -> str:
    """A token as GPT-2's files spell it."""
    return "".join(_NAME_OF_BYTE[byte] for byte in token)


def spelled_tokens(vocabulary: Vocabulary) -> dict[str, int]:
    """Byte-level token to id, without special tokens."""
    return {byte_level(token): rank for token, rank in vocabulary.ranks.items()}


def spelled_merges() -> list[list[str]]:
    """The tiny vocabulary's merges as tokenizer.json has them."""
    return [[byte_level(a), byte_level(b)] for a, b in tiny_merges()]


def timestamp_tokens(vocabulary: Vocabulary) -> dict[str, int]:
    """Name to id of the 1501 timestamps."""
    begin = vocabulary.timestamp_begin
    return {f"<|{i * 0.02:.2f}|>": begin + i for i in range(N_TIMESTAMPS)}


def tiny_tokenizer_json(path: Path, *, timestamps: bool = True) -> Path:
    """Writes the `tokenizers` library's file; a folder gets `tokenizer.json` in it."""
    path = path / "tokenizer.json" if path.is_dir() else path
    vocabulary = tiny_vocabulary()
    added = vocabulary.special_tokens | (timestamp_tokens(vocabulary) if timestamps else {})
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    raw = {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": name, "special": True, **flags} for name, i in added.items()
        ],
        "normalizer": None,
        "pre_tokenizer": level | {"use_regex": True},
        "post_processor": None,
        "decoder": level | {"use_regex": True},
        "model": {"type": "BPE", "vocab": spelled_tokens(vocabulary), "merges": spelled_merges()},
    }
    path.write_text(json.dumps(raw), encoding="utf-8")
    return path


def tiny_slow_tokenizer(folder: Path) -> Path:
    """Writes vocab.json, merges.txt and added_tokens.json, as old checkpoints have them."""
    vocabulary = tiny_vocabulary()
    special = dict(vocabulary.special_tokens)
    # OpenAI's first conversions put end-of-text into vocab.json and said nocaptions.
    tokens = spelled_tokens(vocabulary) | {CONTROL_TOKENS[0]: special.pop(CONTROL_TOKENS[0])}
    special["<|nocaptions|>"] = special.pop("<|nospeech|>")
    (folder / "vocab.json").write_text(json.dumps(tokens), encoding="utf-8")
    (folder / "added_tokens.json").write_text(json.dumps(special), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in spelled_merges())]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def tiny_token_list() -> list[str]:
    """All tokens in the order of ids, as CTranslate2's vocabulary files have them."""
    vocabulary = tiny_vocabulary()
    ids = spelled_tokens(vocabulary) | vocabulary.special_tokens | timestamp_tokens(vocabulary)
    return sorted(ids, key=lambda name: ids[name])
