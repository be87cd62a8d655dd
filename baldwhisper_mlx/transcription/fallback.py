"""When a decoded window is not good enough, and what is tried next."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from baldwhisper_mlx.decoding.decoder import DecodingResult
from baldwhisper_mlx.decoding.logit_rules import DecodingOptions

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Thresholds:
    compression_ratio: float | None
    logprob: float | None
    no_speech: float | None

    def is_silence(self, result: DecodingResult) -> bool:
        if self.no_speech is None or result.no_speech_prob <= self.no_speech:
            return False
        return self.logprob is None or result.avg_logprob <= self.logprob

    def is_failure(self, result: DecodingResult, ratio: float, *, loop: bool) -> bool:
        repetitive = self.compression_ratio is not None and (loop or ratio > self.compression_ratio)
        unlikely = self.logprob is not None and result.avg_logprob < self.logprob
        silent = self.no_speech is not None and result.no_speech_prob > self.no_speech
        return (repetitive or unlikely) and not (silent and unlikely)


def compression_ratio(text: str) -> float:
    """UTF-8 bytes of the text over bytes of it compressed by zlib; 1 or so for ordinary text."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def attempts(temperature: float | Sequence[float], *, timestamps: bool) -> list[DecodingOptions]:
    temperatures = [temperature] if isinstance(temperature, (int, float)) else temperature
    if not len(temperatures):
        raise ValueError("temperature: at least one is needed")
    # The first attempt is OpenAI's to the token; the others are there because it failed.
    return [
        DecodingOptions(temperature=float(t), timestamps=timestamps, guard_loops=number > 0)
        for number, t in enumerate(temperatures)
    ]
