"""What a transcription request asks for, in the fields that OpenAI's API reference names.

Fields that are not known are ignored; a value that is not possible is an error that names the
field.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from baldwhisper_mlx.audio.vad import VadOptions
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.server.errors import bad_value
from baldwhisper_mlx.server.field_table import STREAMED_FORMATS
from baldwhisper_mlx.server.fields import Fields
from baldwhisper_mlx.transcription.options import TranscribeOptions

_TAG = re.compile(r"([A-Za-z]{2,3})([-_][A-Za-z0-9]{2,8})+", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a request asks for."""

    model: str | None
    """As the client names it."""
    response_format: str
    granularities: tuple[str, ...]
    """Of the times in verbose_json."""
    stream: bool
    logprobs: bool
    """Whether the answer has the log-probabilities of the tokens."""
    options: TranscribeOptions

    def check(self, loaded: LoadedModel) -> None:
        """Makes sure that the model can do what is asked.

        Raises:
            ApiError: it does not know a language, or cannot translate.
        """
        tokenizer, options = loaded.tokenizer, self.options
        try:
            if options.language is not None:
                tokenizer.to_language(options.language)
        except ValueError as error:
            raise bad_value("language", f"language: {error}") from None
        try:
            tokenizer.candidates(options.languages)
        except ValueError as error:
            raise bad_value("languages", f"languages: {error}") from None
        try:
            tokenizer.check_task(options.task)
        except ValueError as error:
            raise bad_value("model", f"model: {error}") from None


def parse_fields(items: Sequence[tuple[str, str]], task: str) -> Parameters:
    """Reads the text fields of a request.

    Args:
        items: names and values, in their order.
        task: "transcribe", or "translate", for which there are fewer fields.

    Raises:
        ApiError: a value is not possible, or two exclude each other; 400 with `param`.
    """
    fields = Fields(items, task)
    response_format = fields.one("response_format") or "json"
    stream = fields.boolean("stream")
    if stream and response_format not in STREAMED_FORMATS:
        raise bad_value(
            "response_format",
            f"response_format {response_format} cannot be streamed: use "
            f"{', '.join(STREAMED_FORMATS)}, or leave out stream",
        )
    granularities = _granularities(fields, response_format)
    language, languages = _languages(fields)
    temperature = fields.number("temperature")
    options = TranscribeOptions(
        task=task,
        language=language,
        languages=languages,
        initial_prompt=fields.one("prompt"),
        hotwords=", ".join(fields.many("keywords")) or None,
        # OpenAI's 0 stands for the schedule of temperatures, too.
        temperature=temperature or TranscribeOptions().temperature,
        word_timestamps="word" in granularities,
        vad=_chunking(fields),
    )
    return Parameters(
        model=fields.one("model"),
        response_format=response_format,
        granularities=granularities,
        stream=stream,
        logprobs=_includes_logprobs(fields, response_format),
        options=options,
    )


def _granularities(fields: Fields, response_format: str) -> tuple[str, ...]:
    name = "timestamp_granularities"
    asked = fields.many(name)
    if asked and response_format != "verbose_json":
        raise bad_value(name, f"{name} needs response_format verbose_json")
    return asked or ("segment",)


def _languages(fields: Fields) -> tuple[str | None, tuple[str, ...] | None]:
    language, languages = fields.one("language"), fields.many("languages")
    if language is not None and languages:
        raise bad_value("languages", "language and languages exclude each other: leave one out")
    named = None if language is None else _without_region(language)
    return named, tuple(dict.fromkeys(map(_without_region, languages))) or None


def _without_region(language: str) -> str:
    """The language of a BCP 47 tag such as pt-BR or zh_Hant, which Home Assistant sends."""
    return language[: found.end(1)] if (found := _TAG.fullmatch(language)) else language


def _includes_logprobs(fields: Fields, response_format: str) -> bool:
    asked = bool(fields.many("include"))
    if asked and response_format != "json":
        raise bad_value("include", "include: logprobs need response_format json")
    return asked


def _chunking(fields: Fields) -> bool | VadOptions:
    """Whether pauses are left out, and what counts as one."""
    name = "chunking_strategy"
    kinds = fields.one(name), fields.one(f"{name}[type]")
    threshold = fields.number(f"{name}[threshold]")
    pad = fields.number(f"{name}[prefix_padding_ms]")
    pause = fields.number(f"{name}[silence_duration_ms]")
    if {*kinds, threshold, pad, pause} == {None}:
        return False
    return server_vad(VadOptions(), threshold, pad, pause)


def server_vad(
    default: VadOptions, threshold: float | None, pad: float | None, pause: float | None
) -> VadOptions:
    """OpenAI's `server_vad` as the detector's options; what is None is as in the default.

    Args:
        default: options, whose distance of the two thresholds is kept.
        threshold: probability from which on speech begins.
        pad: milliseconds that are kept before and after speech.
        pause: milliseconds of silence that end speech.
    """
    threshold = default.threshold if threshold is None else threshold
    return VadOptions(
        threshold=threshold,
        neg_threshold=max(0.0, threshold - (default.threshold - default.neg_threshold)),
        speech_pad=default.speech_pad if pad is None else pad / 1000,
        min_silence_duration=default.min_silence_duration if pause is None else pause / 1000,
    )
