"""The options of a transcription: one validated object for everything `transcribe` accepts.

`transcribe` takes them as keyword arguments; below it every function takes this object. A new
option is a field of `TranscribeOptions`, a line in its docstring, and a key of
`TranscribeKeywords`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import ParamSpec, TypedDict, TypeVar

from baldwhisper_mlx.decoding.options import DecodingOptions
from baldwhisper_mlx.text.tokenizer import check_languages, check_task
from baldwhisper_mlx.transcription.fallback import TEMPERATURES, Thresholds, attempts

P = ParamSpec("P")
R = TypeVar("R")

Progress = Callable[[float, float], None]
"""Called with the seconds of audio that are transcribed, and the seconds in all."""


@dataclass(frozen=True, kw_only=True)
class TranscribeOptions:
    """How a recording is transcribed.

    Args:
        language: code or English name of the spoken language; None to detect it where somebody
            first speaks.
        languages: codes or English names among which the language is detected; None for all that
            the model knows.
        multilingual: detect the language again in every window, and end the window where it
            changes; segments then carry their `language`.
        task: "transcribe", or "translate" into English.
        initial_prompt: text on which the first window, or every stretch of a batch, is
            conditioned, as if it preceded the audio: names, spelling.
        temperature: of the sampling, 0 for the most likely token; of several, the next one is
            used if an output is repetitive or improbable.
        beam_size: hypotheses that beam search keeps at temperature 0; None for greedy decoding.
        patience: beam search ends with round(beam_size * patience) finished hypotheses; None is 1.
        length_penalty: alpha, 0 to 1: of several hypotheses that is chosen whose log-probability
            over ((5 + length) / 6) ** alpha is highest, with None that over the length.
        best_of: samples that are drawn at every temperature above 0; the most probable one is
            used. None is 1.
        condition_on_previous_text: whether each window is conditioned on the text before it; with
            `batch_size` above 1 none is.
        without_timestamps: one segment per window, decoded without timestamp tokens.
        word_timestamps: the start and end of every word (`Segment.words`).
        compression_ratio_threshold: UTF-8 bytes of an output over its zlib-compressed bytes; above
            this ratio the output is repetitive. None also switches off the search for phrases
            three times in a row.
        logprob_threshold: mean log-probability of the tokens, in nats; an output below it is
            improbable. None for no such test.
        no_speech_threshold: probability of no speech, 0 to 1; an improbable output above it is
            silence. None for no such test.
        vad: transcribe only the parts in which Silero's voice activity detector finds speech.
        batch_size: stretches of the recording that are decoded together, cut where it is quiet; 1
            for the whole, sequentially.
        on_progress: called after every window with the seconds of audio done and in all.

    Raises:
        ValueError: a value is out of range; the message names the option.

    Example:
        >>> TranscribeOptions(language="fr", batch_size=8).batch_size
        8
    """

    language: str | None = None
    languages: Sequence[str] | None = None
    multilingual: bool = False
    task: str = "transcribe"
    initial_prompt: str | None = None
    temperature: float | Sequence[float] = TEMPERATURES
    beam_size: int | None = None
    patience: float | None = None
    length_penalty: float | None = None
    best_of: int | None = None
    condition_on_previous_text: bool = True
    without_timestamps: bool = False
    word_timestamps: bool = False
    compression_ratio_threshold: float | None = 2.4
    logprob_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    vad: bool = False
    batch_size: int = 1
    on_progress: Progress | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        check_task(self.task)
        if not isinstance(self.batch_size, Integral) or self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {self.batch_size!r}")
        for name in ("compression_ratio_threshold", "logprob_threshold", "no_speech_threshold"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, Real) or math.isnan(value)):
                raise ValueError(f"{name} must be a number or None, not {value!r}")
        for name in ("multilingual", "vad"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be True or False, not {value!r}")
        self._check_languages()
        self.attempts  # noqa: B018  # names an option of decoding that is out of range

    def _check_languages(self) -> None:
        if self.language is not None and (self.multilingual or self.languages is not None):
            other = "multilingual" if self.multilingual else "languages"
            raise ValueError(
                f"language and {other} exclude each other: with `language` nothing is detected"
            )
        if self.languages is not None:
            check_languages(self.languages)

    @property
    def attempts(self) -> list[DecodingOptions]:
        """How a window is decoded, attempt by attempt until one is good enough."""
        return attempts(
            self.temperature,
            timestamps=not self.without_timestamps,
            beam_size=self.beam_size,
            patience=self.patience,
            length_penalty=self.length_penalty,
            best_of=self.best_of,
        )

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


class TranscribeKeywords(TypedDict, total=False):
    """The fields of `TranscribeOptions` as keyword arguments, for type checkers."""

    language: str | None
    languages: Sequence[str] | None
    multilingual: bool
    task: str
    initial_prompt: str | None
    temperature: float | Sequence[float]
    beam_size: int | None
    patience: float | None
    length_penalty: float | None
    best_of: int | None
    condition_on_previous_text: bool
    without_timestamps: bool
    word_timestamps: bool
    compression_ratio_threshold: float | None
    logprob_threshold: float | None
    no_speech_threshold: float | None
    vad: bool
    batch_size: int
    on_progress: Progress | None


def takes_options(function: Callable[P, R]) -> Callable[P, R]:
    """Shows the options in the signature and the docstring of a function with `**options`.

    `help()` and notebooks then list every option with its default and its description, and the
    description stands in one place.
    """
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    parameters += inspect.signature(TranscribeOptions).parameters.values()
    vars(function)["__signature__"] = signature.replace(parameters=parameters)
    described = inspect.getdoc(TranscribeOptions) or ""
    listed = described[described.index("Args:\n") + 6 : described.index("Raises:")].rstrip()
    own = inspect.getdoc(function) or ""
    function.__doc__ = own.replace("    **options: see `TranscribeOptions`.", listed)
    return function
