"""Finds and reads the vocabulary of a checkpoint, in any of the formats of tokenizers.

Hugging Face folders have tokenizer.json, or vocab.json with merges.txt; CTranslate2 folders
tokenizer.json or a list of tokens. OpenAI's .pt files and mlx-community folders have no tokenizer;
their vocabulary is one of OpenAI's two, which the runtime's package has.
"""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

from baldwhisper_convert.checkpoint.vocabulary import (
    END_OF_TEXT,
    Vocabulary,
    from_ranks,
    from_tokens,
)
from baldwhisper_convert.readers import hub
from baldwhisper_convert.readers.sidecars import SourceWarning
from baldwhisper_mlx.bounds import MOST_VOCABULARY_BYTES, check_file, read_bounded
from baldwhisper_mlx.config import N_TIMESTAMPS
from baldwhisper_mlx.files import read_json
from baldwhisper_mlx.terminal import quoted
from baldwhisper_mlx.text.openai_vocabulary import rank_file
from baldwhisper_mlx.text.tokenizer import read_ranks

TOKENIZER_PATTERNS = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tokenizer_config.json",
    "vocabulary.json",
    "vocabulary.txt",
    "*.tiktoken",
)

_MOST_PADDING = 128
"""Rows of padding that are recognized: embeddings are padded to multiples of 8 to 128."""


def find_vocabulary(folder: Path | None, n_vocab: int, tokenizer: str | None = None) -> Vocabulary:
    """The vocabulary of a checkpoint.

    Args:
        folder: the checkpoint's folder; None if it is a single file.
        n_vocab: rows of its token embedding, which the vocabulary must have.
        tokenizer: path or hub id to take it from instead of `folder`.

    Raises:
        ValueError: unreadable, or of another size than `n_vocab`.
        FileNotFoundError: `tokenizer` has none.
    """
    if tokenizer is not None:
        path = _fetch(tokenizer)
        vocabulary = read_tokenizer(path, n_vocab)
        if vocabulary is None:
            raise FileNotFoundError(f"{path}: has no tokenizer in a supported format")
        return _checked(vocabulary, n_vocab, path)
    if folder is not None:
        vocabulary = read_tokenizer(folder, n_vocab)
        if vocabulary is not None:
            return _checked(vocabulary, n_vocab, folder)
    return _openai_vocabulary(n_vocab)


def read_tokenizer(path: Path, n_vocab: int) -> Vocabulary | None:
    """Reads a vocabulary from a folder or a single tokenizer file; None if a folder has none.

    Args:
        path: folder, tokenizer.json, vocab.json (merges.txt beside it) or a rank file.
        n_vocab: rows of the token embedding; decides the languages that go with bare ranks.

    Raises:
        ValueError: a file that cannot be read as what its name says; names the file.
    """
    file = path if path.is_file() else _tokenizer_file(path)
    return None if file is None else _read_file(file, n_vocab)


def _tokenizer_file(folder: Path) -> Path | None:
    """The file of a folder to read the vocabulary from, in the order of preference."""
    names = ("tokenizer.json", "vocab.json", "vocabulary.json", "vocabulary.txt")
    ranks = sorted(folder.glob("*.tiktoken"))
    if len(ranks) > 1:
        raise ValueError(f"{folder}: several rank files; name one of them with --tokenizer")
    files = [*(folder / name for name in names), *ranks]
    # One that exists but is no file is an error when it is read; another must not take its place.
    return next((file for file in files if file.exists()), None)


def _read_file(path: Path, n_vocab: int) -> Vocabulary:
    try:
        if path.name == "vocab.json":
            return _vocab_and_merges(path)
        if path.suffix == ".tiktoken":
            check_file(path, MOST_VOCABULARY_BYTES)
            return from_ranks(read_ranks(path), n_vocab)
        if path.suffix == ".txt":
            return _token_list(_text(path).removesuffix("\n").split("\n"))
        raw = read_json(path)
        return _token_list(raw) if isinstance(raw, list) else _tokenizer_json(raw)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        reason = error if isinstance(error, ValueError) else f"malformed ({quoted(error, 200)})"
        raise ValueError(f"{path}: {str(reason).removeprefix(f'{path}: ')}") from None


def _tokenizer_json(raw: dict[str, Any]) -> Vocabulary:
    """The file of the `tokenizers` library, which must be GPT-2's byte-level BPE."""
    model, before = raw["model"], raw.get("pre_tokenizer") or {}
    plain = (
        model.get("type", "BPE") == "BPE"
        and before.get("type") == "ByteLevel"
        and before.get("use_regex", True)
        and not before.get("add_prefix_space")
        and raw.get("normalizer") is None
        and not model.get("continuing_subword_prefix")
        and not model.get("end_of_word_suffix")
    )
    if not plain:
        raise ValueError("not GPT-2's byte-level BPE, the only kind a Whisper model uses")
    added = {token["content"]: token["id"] for token in raw.get("added_tokens", [])}
    return from_tokens(model["vocab"], added, [_pair(merge) for merge in model["merges"]])


def _vocab_and_merges(path: Path) -> Vocabulary:
    """The files of transformers' slow tokenizer: vocab.json, merges.txt and added tokens."""
    merges_file = path.with_name("merges.txt")
    if not merges_file.is_file():
        raise ValueError("merges.txt is missing in the same folder")
    lines = _text(merges_file).split("\n")
    merges = [_pair(line) for line in lines if line and not line.startswith("#version")]
    added: dict[str, int] = {}
    config = path.with_name("tokenizer_config.json")
    if config.is_file():
        decoder = read_json(config).get("added_tokens_decoder", {})
        added |= {token["content"]: int(i) for i, token in decoder.items()}
    extra = path.with_name("added_tokens.json")
    if extra.is_file():
        added |= read_json(extra)
    return from_tokens(read_json(path), added, merges)


def _token_list(tokens: list[str]) -> Vocabulary:
    """CTranslate2's list of tokens in the order of ids; special ones begin with <|endoftext|>."""
    if END_OF_TEXT not in tokens:
        raise ValueError(f"not a Whisper vocabulary: no {END_OF_TEXT}")
    begin = tokens.index(END_OF_TEXT)
    mergeable = {token: i for i, token in enumerate(tokens[:begin])}
    added = {token: i for i, token in enumerate(tokens[begin:], begin)}
    return from_tokens(mergeable, added, None)


def _text(path: Path) -> str:
    return read_bounded(path, MOST_VOCABULARY_BYTES).decode("utf-8")


def _pair(merge: Any) -> tuple[str, str]:
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if len(parts) != 2:
        raise ValueError(f"bad merge {quoted(merge)}")
    return parts[0], parts[1]


def _checked(vocabulary: Vocabulary, n_vocab: int, path: Path) -> Vocabulary:
    """The vocabulary, if its size is that of the embedding, or the rest of that is padding.

    Raises:
        ValueError: another size.
    """
    ids = vocabulary.source_ids or range(vocabulary.n_vocab)
    size = max(ids) + 1
    surplus, begin = n_vocab - size, vocabulary.n_vocab - N_TIMESTAMPS
    if surplus == 0:
        return vocabulary
    # Only multiples of 8, because large-v3's embedding has one row more than the older ones.
    if 0 < surplus < _MOST_PADDING and n_vocab % 8 == 0:
        warnings.warn(
            f"{path}: the token embedding has {n_vocab} rows for {size} tokens; the last "
            f"{surplus} are padding and are left out",
            SourceWarning,
            stacklevel=2,
        )
        return dataclasses.replace(vocabulary, source_ids=tuple(ids))
    if begin <= n_vocab < size and vocabulary.source_ids is None:
        raise ValueError(
            f"{path}: the token embedding has {n_vocab} rows, so {-surplus} of the {N_TIMESTAMPS} "
            "timestamps are missing; a tokenizer without timestamps was used to resize it, which "
            "cannot be undone"
        )
    raise ValueError(
        f"{path}: this vocabulary has {size} tokens, timestamps included, "
        f"but the model's embedding has {n_vocab} rows; name the model's tokenizer with "
        "--tokenizer"
    )


def _openai_vocabulary(n_vocab: int) -> Vocabulary:
    """OpenAI's vocabulary for this size, from the runtime's package."""
    try:
        return _read_file(rank_file(n_vocab), n_vocab)
    except ValueError as error:
        raise ValueError(
            f"the checkpoint has no tokenizer, and OpenAI's do not fit ({error}); name its own "
            "with --tokenizer PATH_OR_HUB_ID"
        ) from None


def _fetch(source: str) -> Path:
    return hub.fetch(source, patterns=TOKENIZER_PATTERNS, is_complete=_has_tokenizer)


def _has_tokenizer(folder: Path) -> bool:
    file = _tokenizer_file(folder)
    return file is not None and (
        file.name != "vocab.json" or file.with_name("merges.txt").is_file()
    )
