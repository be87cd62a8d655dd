"""What a transcription request asks for, in the fields that OpenAI's API reference names.

Fields that are not known are ignored; a value that is not possible is an error that names the
field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from baldwhisper_mlx.audio.vad import Speech
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.server.errors import bad_value
from baldwhisper_mlx.server.fields import Fields
from baldwhisper_mlx.terminal import quoted
from baldwhisper_mlx.transcription.options import TranscribeOptions

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
GRANULARITIES = ("word", "segment")
_LONGEST_TIME = 60_000
"""Milliseconds of a pause, or of padding, that can be asked for."""
_VAD_FIELDS = ("type", "threshold", "prefix_padding_ms", "silence_duration_ms")


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What a request asks for."""

    model: str | None
    """As the client names it."""
    response_format: str
    granularities: tuple[str, ...]
    """Of the times in verbose_json."""
    stream: bool
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
    fields = Fields(items)
    transcribes = task == "transcribe"
    response_format = fields.choice("response_format", FORMATS, "json")
    stream = transcribes and fields.choice("stream", ("true", "false"), "false") == "true"
    if stream and response_format not in ("json", "text"):
        raise bad_value(
            "response_format",
            f"response_format {response_format} cannot be streamed: use json or text, or leave "
            "out stream",
        )
    granularities = _granularities(fields, response_format) if transcribes else ("segment",)
    language, languages = _languages(fields) if transcribes else (None, None)
    if transcribes:
        _check_include(fields)
    keywords = fields.many("keywords", commas=False) if transcribes else ()
    temperature = fields.number("temperature", 0, 1)
    defaults = TranscribeOptions()
    options = TranscribeOptions(
        task=task,
        language=language,
        languages=languages,
        initial_prompt=fields.one("prompt"),
        hotwords=", ".join(keywords) or None,
        # OpenAI's 0 stands for the schedule of temperatures, too.
        temperature=temperature or defaults.temperature,
        word_timestamps="word" in granularities,
        vad=_chunking(fields) if transcribes else False,
    )
    return Parameters(
        model=fields.one("model"),
        response_format=response_format,
        granularities=granularities,
        stream=stream,
        options=options,
    )


def _granularities(fields: Fields, response_format: str) -> tuple[str, ...]:
    name = "timestamp_granularities"
    asked = fields.many(name)
    for value in asked:
        if value not in GRANULARITIES:
            raise bad_value(name, f"{name} must be word or segment, not {quoted(value)}")
    if asked and response_format != "verbose_json":
        raise bad_value(name, f"{name} needs response_format verbose_json")
    return asked or ("segment",)


def _languages(fields: Fields) -> tuple[str | None, tuple[str, ...] | None]:
    language, languages = fields.one("language"), fields.many("languages") or None
    if language is not None and languages is not None:
        raise bad_value("languages", "language and languages exclude each other: leave one out")
    return language, languages


def _check_include(fields: Fields) -> None:
    asked = fields.many("include")
    if "logprobs" in asked:
        raise bad_value("include", "include: this server does not give logprobs; leave it out")
    if asked:
        raise bad_value("include", f"include must be logprobs, not {quoted(asked[0])}")


def _chunking(fields: Fields) -> bool | Speech:
    """Whether pauses are left out, and what counts as one."""
    name = "chunking_strategy"
    keys = {key: f"{name}[{key}]" for key in _VAD_FIELDS}
    whole = fields.choice(name, ("auto", "server_vad"), "")
    kind = fields.choice(keys["type"], ("server_vad",), "")
    if not (whole or kind or any(fields.one(key) for key in keys.values())):
        return False
    default = Speech()
    threshold = fields.number(keys["threshold"], 0, 1)
    pad = fields.number(keys["prefix_padding_ms"], 0, _LONGEST_TIME)
    pause = fields.number(keys["silence_duration_ms"], 0, _LONGEST_TIME)
    threshold = default.threshold if threshold is None else threshold
    return Speech(
        threshold=threshold,
        release=max(0.0, threshold - (default.threshold - default.release)),
        pad=default.pad if pad is None else pad / 1000,
        pause=default.pause if pause is None else pause / 1000,
    )
