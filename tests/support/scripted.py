"""A decoder that writes what a test wants, window by window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.decoding.alignment import Alignment
from baldwhisper_mlx.decoding.decoder import Decoder
from baldwhisper_mlx.decoding.result import DecodingResult

Output = Callable[[list[int]], DecodingResult]
"""The result of a decoding, given its prompt."""


def timed(
    loaded: LoadedModel,
    *segments: tuple[float, str | bytes, float],
    no_speech: float = 0.0,
    logprob: float = -0.1,
    word: float | None = None,
) -> DecodingResult:
    """Segments of a start, text and end, each between two timestamps.

    Args:
        loaded: whose vocabulary is one token a byte.
        segments: start in seconds, text, end.
        no_speech: probability.
        logprob: mean log-probability of the tokens.
        word: seconds at which every token is spoken, for word times.
    """
    begin = loaded.tokenizer.timestamp_begin
    tokens: list[int] = []
    for start, text, end in segments:
        raw = text.encode() if isinstance(text, str) else text
        tokens += [begin + round(start / 0.02), *raw, begin + round(end / 0.02)]
    alignment = None
    if word is not None:
        n = len(tokens)
        alignment = Alignment((word,) * n, (word + 0.5,) * n, (0.5,) * n)
    return DecodingResult(tokens, logprob, no_speech, 0.0, alignment)


def script(
    monkeypatch: pytest.MonkeyPatch, outputs: Sequence[DecodingResult | Output]
) -> list[Any]:
    """Makes every decoder give these outputs in their order; the prompts so far."""
    prompts: list[Any] = []

    def decode(_: Decoder, prompt: Any, *__: Any, **___: Any) -> list[DecodingResult]:
        several = prompt if isinstance(prompt[0], list) else [prompt]
        results = []
        for one in several:
            output = outputs[len(prompts)]
            prompts.append(one)
            results.append(output(one) if callable(output) else output)
        return results

    monkeypatch.setattr(Decoder, "decode", decode)
    return prompts
