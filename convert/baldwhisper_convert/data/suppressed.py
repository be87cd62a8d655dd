"""Labels that a model can never write, because it suppresses their tokens."""

from __future__ import annotations

import warnings
from collections import Counter

from baldwhisper_convert.model.prompts import Prompts

_SHOWN = 10
"""Tokens that the warning names, the most frequent first."""


class SuppressedLabelWarning(UserWarning):
    """Texts have tokens that the trained model will never write."""


class SuppressedLabels:
    """Counts the tokens of texts that the model suppresses.

    Args:
        prompts: of the model.
    """

    def __init__(self, prompts: Prompts) -> None:
        self._tokenizer = prompts.tokenizer
        self._suppressed = set(self._tokenizer.suppressed_tokens)
        self.counts: Counter[int] = Counter()
        """Texts that have a token, by its id."""
        self.texts = 0
        """Texts with any such token."""

    def add(self, text: str) -> None:
        """Counts the suppressed tokens of a label, which begins with a space."""
        found = self._suppressed.intersection(self._tokenizer.encode(f" {text}"))
        self.counts.update(found)
        self.texts += bool(found)

    def warn(self) -> None:
        """Warns of the tokens that were counted, if there are any."""
        if not self.texts:
            return
        most = self.counts.most_common(_SHOWN)
        named = ", ".join(f"{self._tokenizer.decode([token])!r} ({count})" for token, count in most)
        more = f" and {len(self.counts) - _SHOWN} others" if len(self.counts) > _SHOWN else ""
        warnings.warn(
            f"{self.texts} texts have tokens that the model never writes, because it suppresses "
            f"them: {named}{more}. Take them out of the texts, or allow them: the list is "
            "suppress_tokens in config.json of a model folder, and in generation_config.json of a "
            "Hugging Face one; [] allows all",
            SuppressedLabelWarning,
            stacklevel=2,
        )
