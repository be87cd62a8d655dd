"""The options of a transcription: one validated object for everything `transcribe` accepts.

`transcribe` takes them as keyword arguments; below it every function takes this object. A new
option is a field of `TranscribeOptions`, a line in its docstring, and a key of
`TranscribeKeywords`.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral, Real
from typing import ParamSpec, TypedDict, TypeVar

from baldwhisper_mlx.audio.vad import VadOptions
from baldwhisper_mlx.decoding.options import DecodingOptions
from baldwhisper_mlx.text.tokenizer import check_languages, check_task
from baldwhisper_mlx.transcription.fallback import TEMPERATURES, Thresholds, attempts
from baldwhisper_mlx.transcription.ranges import Ranges, parse_ranges

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
        carry_initial_prompt: condition every window on the initial prompt, and on as much of the
            previous text as there is room for behind it.
        hotwords: names and terms on which every window is conditioned, whatever the other options
            say; they precede the initial prompt and the previous text.
        prefix: text that the transcript begins with; the model continues it.
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
        clip_timestamps: ranges in seconds, in their order, of which alone the speech is
            transcribed: "0-10,60-", [0, 10, 60] or [(0, 10), (60, None)]; None for all.
        hallucination_silence_threshold: seconds of silence around words of unlikely length or
            probability, from which on these are taken for made up and left out; needs
            `word_timestamps`. None for no such test.
        suppress_tokens: ids, as a list or as "-1,50", that are never written; -1 stands for the
            default list of symbols that nobody speaks. "" or [] for none.
        repetition_penalty: above 1, tokens that a window has already are less probable.
        no_repeat_ngram_size: no sequence of so many tokens occurs twice in a window; 0 for no
            such rule.
        compression_ratio_threshold: UTF-8 bytes of an output over its zlib-compressed bytes; above
            this ratio the output is repetitive. None also switches off the search for phrases
            three times in a row.
        logprob_threshold: mean log-probability of the tokens, in nats; an output below it is
            improbable. None for no such test.
        no_speech_threshold: probability of no speech, 0 to 1; an improbable output above it is
            silence. None for no such test.
        vad: transcribe only the parts in which Silero's voice activity detector finds speech; a
            `VadOptions` says what counts as speech.
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
    carry_initial_prompt: bool = False
    hotwords: str | None = None
    prefix: str | None = None
    temperature: float | Sequence[float] = TEMPERATURES
    beam_size: int | None = None
    patience: float | None = None
    length_penalty: float | None = None
    best_of: int | None = None
    condition_on_previous_text: bool = True
    without_timestamps: bool = False
    word_timestamps: bool = False
    clip_timestamps: Ranges | None = None
    hallucination_silence_threshold: float | None = None
    suppress_tokens: str | Sequence[int] = (-1,)
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    compression_ratio_threshold: float | None = 2.4
    logprob_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    vad: bool | VadOptions = False
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
        if not isinstance(self.multilingual, bool):
            raise ValueError(f"multilingual must be True or False, not {self.multilingual!r}")
        if not isinstance(self.vad, (bool, VadOptions)):
            raise ValueError(f"vad must be True, False or VadOptions, not {self.vad!r}")
        for name in ("initial_prompt", "hotwords", "prefix"):
            if not isinstance(getattr(self, name), (str, type(None))):
                raise ValueError(f"{name} must be text or None, not {getattr(self, name)!r}")
        self._check_languages()
        _check_silence(self.hallucination_silence_threshold, self.word_timestamps)
        _check_penalties(self.repetition_penalty, self.no_repeat_ngram_size)
        self.ranges, self.attempts  # noqa: B018  # they name what is out of range

    def _check_languages(self) -> None:
        if self.language is not None and (self.multilingual or self.languages is not None):
            other = "multilingual" if self.multilingual else "languages"
            raise ValueError(
                f"language and {other} exclude each other: with `language` nothing is detected"
            )
        if self.languages is not None:
            check_languages(self.languages)

    @cached_property
    def attempts(self) -> list[DecodingOptions]:
        """How a window is decoded, attempt by attempt until one is good enough."""
        several = attempts(
            self.temperature,
            timestamps=not self.without_timestamps,
            beam_size=self.beam_size,
            patience=self.patience,
            length_penalty=self.length_penalty,
            best_of=self.best_of,
        )
        return [
            dataclasses.replace(
                attempt,
                suppress_tokens=_ids(self.suppress_tokens),
                repetition_penalty=float(self.repetition_penalty),
                no_repeat_ngram_size=int(self.no_repeat_ngram_size),
            )
            for attempt in several
        ]

    @property
    def vad_options(self) -> VadOptions:
        """What counts as speech, if `vad` is wanted."""
        return self.vad if isinstance(self.vad, VadOptions) else VadOptions()

    @cached_property
    def ranges(self) -> tuple[tuple[float, float], ...] | None:
        """What is transcribed: starts and ends in seconds, the last perhaps infinite; or all."""
        return None if self.clip_timestamps is None else parse_ranges(self.clip_timestamps)

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


class OptionWarning(UserWarning):
    """An option could be followed only in part."""


def _ids(suppress_tokens: str | Sequence[int]) -> tuple[int, ...]:
    """Token ids from a list, or from numbers with commas between them."""
    items: Sequence[object] = (
        [item for item in suppress_tokens.split(",") if item.strip()]
        if isinstance(suppress_tokens, str)
        else suppress_tokens
    )
    try:
        return tuple(int(str(item)) for item in items)
    except (TypeError, ValueError):
        raise ValueError(
            "suppress_tokens must be token ids, as a list or with commas between them, not "
            f"{suppress_tokens!r}"
        ) from None


def _check_silence(threshold: float | None, word_timestamps: bool) -> None:
    if threshold is None:
        return
    if not isinstance(threshold, Real) or not 0 <= threshold < math.inf:
        raise ValueError(
            f"hallucination_silence_threshold must be 0 s or more, or None, not {threshold!r}"
        )
    if not word_timestamps:
        raise ValueError("hallucination_silence_threshold needs word_timestamps")


def _check_penalties(penalty: float, ngram_size: int) -> None:
    if not isinstance(penalty, Real):
        raise ValueError(f"repetition_penalty must be a number, not {penalty!r}")
    if not isinstance(ngram_size, Integral):
        raise ValueError(f"no_repeat_ngram_size must be a whole number, not {ngram_size!r}")


class TranscribeKeywords(TypedDict, total=False):
    """The fields of `TranscribeOptions` as keyword arguments, for type checkers."""

    language: str | None
    languages: Sequence[str] | None
    multilingual: bool
    task: str
    initial_prompt: str | None
    carry_initial_prompt: bool
    hotwords: str | None
    prefix: str | None
    temperature: float | Sequence[float]
    beam_size: int | None
    patience: float | None
    length_penalty: float | None
    best_of: int | None
    condition_on_previous_text: bool
    without_timestamps: bool
    word_timestamps: bool
    clip_timestamps: Ranges | None
    hallucination_silence_threshold: float | None
    suppress_tokens: str | Sequence[int]
    repetition_penalty: float
    no_repeat_ngram_size: int
    compression_ratio_threshold: float | None
    logprob_threshold: float | None
    no_speech_threshold: float | None
    vad: bool | VadOptions
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
