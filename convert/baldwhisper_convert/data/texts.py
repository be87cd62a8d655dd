"""Token counts of plain text: which tokens a language uses, from more text than the labels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from baldwhisper_mlx.text.tokenizer import Tokenizer


def read_lines(path: Path) -> Iterator[str]:
    """Reads the lines of a text file, or the "text" fields of a JSONL file; skips empty ones.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not UTF-8, or a line of JSONL without a text.
    """
    is_jsonl = path.suffix == ".jsonl"
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    text = json.loads(line)["text"] if is_jsonl and line.strip() else line
                    stripped = text.strip()
                except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
                    raise ValueError(f'{path}: line {number} has no "text"') from None
                if stripped:
                    yield stripped
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error})") from None


def count_text(path: Path, tokenizer: Tokenizer, n_vocab: int) -> Tensor:
    """Counts each token (V,) in a text; every line is tokenized like a transcript.

    Raises:
        FileNotFoundError, ValueError: as `read_lines`.
    """
    return count_tokens((tokenizer.encode(f" {line}") for line in read_lines(path)), n_vocab)


def text_fingerprint(path: Path) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256.

    Raises:
        FileNotFoundError: no such file.
    """
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def count_tokens(sequences: Iterable[Sequence[int]], n_vocab: int) -> Tensor:
    """Occurrences of each token id (V,) float64.

    Example:
        >>> count_tokens([[0, 2], [2]], 3).tolist()
        [1.0, 0.0, 2.0]
    """
    counts = torch.zeros(n_vocab, dtype=torch.float64)
    for sequence in sequences:
        counts += torch.bincount(torch.tensor(sequence, dtype=torch.long), minlength=n_vocab)
    return counts
