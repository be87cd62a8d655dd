"""Temperature fallback: which outputs are rejected, and how the window is decoded again.

An output that repeats itself or is improbable is decoded again at the next higher temperature
(Radford et al., arXiv 2212.04356, section 4.5). The tests and their thresholds are those of
OpenAI's `whisper/transcribe.py`; the search for loops (`decoding.repetition`) is ours.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import cast

from baldwhisper_mlx.decoding.options import DecodingOptions
from baldwhisper_mlx.decoding.repetition import is_loop
from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.text.tokenizer import Tokenizer

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""OpenAI's schedule: the most likely tokens first, then sampling at rising temperatures."""


def attempts(
    temperature: float | Sequence[float],
    *,
    timestamps: bool,
    beam_size: int | None = None,
    patience: float | None = None,
    length_penalty: float | None = None,
    best_of: int | None = None,
) -> list[DecodingOptions]:
    """How a window is decoded, attempt by attempt.

    Args:
        temperature: one, or several in the order in which they are used.
        timestamps: whether outputs carry timestamp tokens.
        beam_size: of beam search, at temperature 0.
        patience: of beam search.
        length_penalty: of the ranking of hypotheses.
        best_of: samples at each temperature above 0.

    Returns:
        One for each temperature; all but the first forbid tokens that continue a loop.

    Raises:
        ValueError: no temperature, or a value that is out of range.
    """
    several = [temperature] if isinstance(temperature, Real) else temperature
    temperatures = cast(Sequence[float], several)
    if not len(temperatures):
        raise ValueError("temperature: at least one is needed")
    search = DecodingOptions(
        timestamps=timestamps,
        beam_size=beam_size,
        patience=patience,
        length_penalty=length_penalty,
    )
    sampling = DecodingOptions(
        temperature=1.0, timestamps=timestamps, best_of=best_of, length_penalty=length_penalty
    )
    # The first attempt gives OpenAI's tokens exactly; the others are made because it failed.
    return [
        dataclasses.replace(
            sampling if t > 0 else search, temperature=float(t), guard_loops=number > 0
        )
        for number, t in enumerate(temperatures)
    ]


@dataclass(frozen=True)
class Thresholds:
    """What an output has to pass; None switches a test off."""

    compression_ratio: float | None
    """Most that `compression_ratio` may be; None also accepts loops."""
    logprob: float | None
    """Least mean log-probability of the tokens, in nats."""
    no_speech: float | None
    """Probability of no speech, 0 to 1, above which a window may be silence."""

    def is_silence(self, result: DecodingResult) -> bool:
        """Whether a window is skipped: probably no speech, and text that is improbable."""
        if self.no_speech is None or result.no_speech_prob <= self.no_speech:
            return False
        return self.logprob is None or result.avg_logprob <= self.logprob

    def may_be_silence(self, result: DecodingResult) -> bool:
        """Whether there is reason to ask the speech detector; speech is rarely above a tenth."""
        return self.no_speech is not None and result.no_speech_prob > self.no_speech / 3

    def is_poor(self, result: DecodingResult, ratio: float, *, loop: bool) -> bool:
        """Whether an output is repetitive or improbable; arguments as for `is_failure`."""
        repetitive = self.compression_ratio is not None and (loop or ratio > self.compression_ratio)
        return repetitive or (self.logprob is not None and result.avg_logprob < self.logprob)

    def is_failure(self, result: DecodingResult, ratio: float, *, loop: bool) -> bool:
        """Whether a window is decoded again.

        Args:
            result: of an attempt.
            ratio: `compression_ratio` of its text.
            loop: whether its tokens are caught in a phrase; see `decoding.repetition.is_loop`.
        """
        unlikely = self.logprob is not None and result.avg_logprob < self.logprob
        silent = self.no_speech is not None and result.no_speech_prob > self.no_speech
        # Silence is skipped, so a better text for it would be of no use.
        return self.is_poor(result, ratio, loop=loop) and not (silent and unlikely)


def compression_ratio(text: str) -> float:
    """UTF-8 bytes of a text over its zlib-compressed bytes; about 1 for a short ordinary one.

    Example:
        >>> compression_ratio("and so on, " * 20) > 2.4
        True
    """
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def repetition(
    tokens: Sequence[int], tokenizer: Tokenizer, before: Sequence[int] = ()
) -> tuple[float, bool]:
    """How much an output repeats itself.

    Args:
        tokens: of the output.
        tokenizer: of the model.
        before: tokens of the text that the output was conditioned on.

    Returns:
        Its compression ratio, and whether it is caught in a phrase.
    """
    # A stray special token is no text, but as part of a loop it has to count.
    ratio = compression_ratio(tokenizer.decode(tokens, special=True).strip())
    return ratio, is_loop(tokens, tokenizer.timestamp_begin, before=before)
