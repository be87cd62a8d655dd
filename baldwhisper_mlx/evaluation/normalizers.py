"""Text normalizers, by the name that `--normalizer` takes.

A word error rate counts words, not capitals, commas or 7 instead of seven. What is removed before
words are compared changes every figure, so a report always names its normalizer.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

Normalizer = Callable[[str], str]

NORMALIZERS = ("none", "basic", "whisper-english", "bambara")
INSTALL = 'pip install "baldwhisper-mlx[evaluate]"'

_BRACKETED = (re.compile(r"[<\[][^>\]]*[>\]]"), re.compile(r"\([^)]+?\)"))

# Contractions that whisper-normalizer writes out and OpenAI's own normalizer does not.
_NOT_OPENAI = (r"\bkinda\b", r"\bsorta\b", r"\bdunno\b", r"\bcause\b")
_OPENAI_RULES = "e861b16a36f3403f"
"""Start of the SHA-256 of the words, contractions and spellings of openai-whisper 20250625."""


def load_normalizer(name: str) -> Normalizer:
    """A function from text to normalized text, in which single spaces stand between words.

    Args:
        name: one of `NORMALIZERS`. "none" leaves all but white space as it is; "basic" and
            "whisper-english" are those of OpenAI's Whisper (Radford et al., arXiv 2212.04356,
            appendix C), which also take out what stands in brackets; "bambara" is
            BambaraASRNormalizer of the package bambara-normalizer, after all apostrophes have
            become the one on the keyboard. It keeps the words in brackets, and numbers as they are
            written.

    Raises:
        ValueError: no such normalizer, or a package whose rules are not OpenAI's.
        ModuleNotFoundError: the package is not installed; the message says how to get it.

    Example:
        >>> load_normalizer("basic")("Well, hello  there [laughs]!")
        'well hello there'
    """
    makers: dict[str, Callable[[], Normalizer]] = {
        "none": lambda: lambda text: text,
        "basic": lambda: basic,
        "whisper-english": _whisper_english,
        "bambara": _bambara,
    }
    if name not in makers:
        raise ValueError(f"no normalizer {name!r}; there are {', '.join(NORMALIZERS)}")
    inner = makers[name]()
    return lambda text: " ".join(inner(text).split())


def basic(text: str) -> str:
    """Lower case; brackets with what they hold, marks, symbols and punctuation become spaces.

    OpenAI's BasicTextNormalizer without its options: right for scripts that need no combining
    marks. (Devanagari and its like do, and lose vowels here.)
    """
    text = text.lower()
    for pattern in _BRACKETED:
        text = pattern.sub("", text)
    text = unicodedata.normalize("NFKC", text)
    return "".join(" " if unicodedata.category(c)[0] in "MSP" else c for c in text).lower()


def _whisper_english() -> Normalizer:
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ModuleNotFoundError:
        raise _missing("whisper-english", "whisper-normalizer") from None
    normalizer: Any = EnglishTextNormalizer()
    for pattern in _NOT_OPENAI:
        normalizer.replacers.pop(pattern, None)
    if _rules(normalizer) != _OPENAI_RULES:
        raise ValueError(
            "the installed whisper-normalizer has other rules than OpenAI's normalizer; "
            'pip install "whisper-normalizer==0.1.14"'
        )
    return lambda text: str(normalizer(text))


def _rules(normalizer: Any) -> str:
    spellings = sorted(normalizer.standardize_spellings.mapping.items())
    rules = [normalizer.ignore_patterns, list(normalizer.replacers.items()), spellings]
    return hashlib.sha256(json.dumps(rules).encode()).hexdigest()[:16]


def _bambara() -> Normalizer:
    try:
        from bambara_normalizer import BambaraASRNormalizer
    except ModuleNotFoundError:
        raise _missing("bambara", "bambara-normalizer") from None
    normalizer = BambaraASRNormalizer()
    apostrophes = str.maketrans("\u2019\u02bc", "''")  # the package takes them for other letters
    return lambda text: str(normalizer(text.translate(apostrophes)))


def _missing(normalizer: str, package: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"the normalizer {normalizer} needs the package {package}: {INSTALL}, or pip install "
        f"{package}"
    )
