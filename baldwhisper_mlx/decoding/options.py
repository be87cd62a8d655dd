"""The options of decoding one window, and the token ids that it has to know."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral

MOST = 100
"""Most hypotheses of a clip; each needs the memory of a whole output."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The token ids that decoding has to know; it treats all others below `eot` as text."""

    n_vocab: int
    eot: int
    sot: int
    no_speech: int
    no_timestamps: int
    timestamp_begin: int
    suppress: tuple[int, ...]
    """Ids that are never chosen."""
    suppress_first: tuple[int, ...]
    """Ids that are not chosen as the first token, because the output would be blank."""
    control: tuple[int, ...] = ()
    """Those of `suppress` that stay there whatever `DecodingOptions.suppress_tokens` says."""


@dataclass(frozen=True, kw_only=True)
class DecodingOptions:
    """How one window is decoded.

    Raises:
        ValueError: a value is out of range, or two options exclude each other.
    """

    temperature: float = 0.0
    """0 takes the most likely token; above, tokens are sampled."""
    beam_size: int | None = None
    """Hypotheses that beam search keeps; None for greedy decoding. Only at temperature 0."""
    patience: float | None = None
    """Beam search ends with round(beam_size * patience) finished hypotheses; None is 1."""
    length_penalty: float | None = None
    """alpha, 0 to 1: hypotheses are ranked by log-probability over ((5 + length) / 6) ** alpha,
    with None over their length."""
    best_of: int | None = None
    """Samples that are drawn, of which the best is returned. Only above temperature 0."""
    timestamps: bool = True
    """Apply the timestamp rules; the prompt must then not end with <|notimestamps|>."""
    max_initial_timestamp: int | None = 50
    """Latest first timestamp, in steps of 20 ms; None for no limit."""
    max_tokens: int | None = None
    """Most tokens of the output; by default half the text context, which is a limit anyway."""
    forced_length: int | None = None
    """For benchmarks: exactly so many tokens; the output never ends early."""
    seed: int = 0
    """Of the random numbers for sampling."""
    guard_loops: bool = False
    """Forbid tokens that would continue a loop; see loop_guard.py."""
    suppress_tokens: tuple[int, ...] = (-1,)
    """Ids that are never chosen; -1 stands for the vocabulary's own list."""
    repetition_penalty: float = 1.0
    """Above 1, tokens of the output so far are less probable; see penalties.py."""
    no_repeat_ngram_size: int = 0
    """Length of the token sequences that may not occur twice; 0 for none. See penalties.py."""
    prefix: tuple[int, ...] = ()
    """Ids with which the output begins."""

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be 0 or more, not {self.temperature}")
        for length in (self.max_tokens, self.forced_length):
            if length is not None and length < 1:
                raise ValueError(f"the number of tokens must be at least 1, not {length}")
        # Within these bounds no finite logit becomes infinite.
        if not 0.01 <= self.repetition_penalty <= 100:
            raise ValueError(
                f"repetition_penalty must be between 0.01 and 100, not {self.repetition_penalty}"
            )
        if self.no_repeat_ngram_size < 0:
            raise ValueError(
                f"no_repeat_ngram_size must be 0 or more, not {self.no_repeat_ngram_size}"
            )
        self._check_hypotheses()

    def _check_hypotheses(self) -> None:
        for name in ("beam_size", "best_of"):
            size = getattr(self, name)
            if size is not None and not (isinstance(size, Integral) and 1 <= int(size) <= MOST):
                raise ValueError(f"{name} must be a whole number from 1 to {MOST}, not {size!r}")
        if self.beam_size is not None and self.temperature > 0:
            raise ValueError("beam_size is for temperature 0; use best_of above 0")
        if self.best_of is not None and self.temperature == 0:
            raise ValueError("best_of is for temperatures above 0; use beam_size at 0")
        if self.patience is not None:
            if self.beam_size is None:
                raise ValueError("patience needs beam_size")
            if not 0.5 < self.beam_size * self.patience < math.inf:
                raise ValueError(
                    "patience times beam_size must be a finite number above 0.5, not "
                    f"{self.patience} times {self.beam_size}"
                )
        if self.length_penalty is not None and not 0 <= self.length_penalty <= 1:
            raise ValueError(f"length_penalty must be from 0 to 1, not {self.length_penalty}")

    @property
    def hypotheses(self) -> int:
        """Hypotheses of each clip that are decoded together."""
        return self.beam_size or self.best_of or 1
