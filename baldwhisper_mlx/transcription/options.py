"""The options of a transcription: one validated object for everything `transcribe` accepts.

`transcribe` takes them as keyword arguments; below it every function takes this object. Its fields
are the keyword arguments of `transcribe`, with the same defaults.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real

from baldwhisper_mlx.decoding.options import DecodingOptions
from baldwhisper_mlx.text.tokenizer import check_task
from baldwhisper_mlx.transcription.fallback import TEMPERATURES, Thresholds, attempts

Progress = Callable[[float, float], None]
"""Called with the seconds of audio that are transcribed, and the seconds in all."""


@dataclass(frozen=True, kw_only=True)
class TranscribeOptions:
    """How a recording is transcribed.

    Raises:
        ValueError: a value is out of range; the message names the option.

    Example:
        >>> TranscribeOptions(language="fr", batch_size=8).batch_size
        8
    """

    language: str | None = None
    """Code or English name of the spoken language. Default None: detected where somebody first
    speaks."""
    task: str = "transcribe"
    """"transcribe", or "translate" into English. Default "transcribe"."""
    initial_prompt: str | None = None
    """Text on which the first window, or every stretch of a batch, is conditioned: names,
    spelling. Default none."""
    temperature: float | Sequence[float] = TEMPERATURES
    """Sampling temperature, 0 for the most likely token; of several, the next one is used if an
    output is repetitive or improbable. Default 0 to 1 in steps of 0.2."""
    condition_on_previous_text: bool = True
    """Whether each window is conditioned on the text before it; with `batch_size` above 1 none is.
    Default True."""
    without_timestamps: bool = False
    """One segment per window, decoded without timestamp tokens. Default False."""
    word_timestamps: bool = False
    """Whether every word gets its start and end. Default False."""
    compression_ratio_threshold: float | None = 2.4
    """UTF-8 bytes of an output over its zlib-compressed bytes; above this ratio the output is
    repetitive. None also switches off the search for repeated phrases. Default 2.4."""
    logprob_threshold: float | None = -1.0
    """Mean log-probability of the tokens, in nats; an output below it is improbable. Default -1."""
    no_speech_threshold: float | None = 0.6
    """Probability of no speech, 0 to 1; an improbable output above it is silence. Default 0.6."""
    vad: bool = False
    """Whether only the parts are transcribed in which Silero's voice activity detector finds
    speech. Default False."""
    batch_size: int = 1
    """Stretches of the recording that are decoded together. Default 1: the whole, sequentially."""
    on_progress: Progress | None = field(default=None, compare=False)
    """Called after every window with the seconds done and in all. Default none."""

    def __post_init__(self) -> None:
        check_task(self.task)
        if not isinstance(self.batch_size, Integral) or self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {self.batch_size!r}")
        for name in ("compression_ratio_threshold", "logprob_threshold", "no_speech_threshold"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, Real) or math.isnan(value)):
                raise ValueError(f"{name} must be a number or None, not {value!r}")
        if not isinstance(self.vad, bool):
            raise ValueError(f"vad must be True or False, not {self.vad!r}")
        self.attempts  # noqa: B018  # names a temperature that is out of range

    @property
    def attempts(self) -> list[DecodingOptions]:
        """How a window is decoded, attempt by attempt until one is good enough."""
        return attempts(self.temperature, timestamps=not self.without_timestamps)

    @property
    def thresholds(self) -> Thresholds:
        """What an attempt has to pass."""
        return Thresholds(
            self.compression_ratio_threshold, self.logprob_threshold, self.no_speech_threshold
        )

    def report(self, done: float, total: float) -> None:
        """Calls `on_progress`, if there is one, with the seconds done and in all."""
        if self.on_progress is not None:
            self.on_progress(done, total)
