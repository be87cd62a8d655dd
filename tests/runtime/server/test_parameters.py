"""Fields of requests: every spelling of a value, and errors that name the field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baldwhisper_mlx.audio.vad import VadOptions
from baldwhisper_mlx.server.errors import ApiError
from baldwhisper_mlx.server.field_table import FIELDS, FORMATS, fields_of
from baldwhisper_mlx.server.parameters import Parameters, parse_fields
from baldwhisper_mlx.transcription.options import TranscribeOptions

NAMES = (*FIELDS, *(f"{name}[]" for name, field in FIELDS.items() if field.kind == "list"))
VALUES = ("", "0", "1", "0.5", "-1", "nan", "inf", "true", "false", "auto", "server_vad", "word",
          "segment", "word,segment", "logprobs", "en", *FORMATS)  # fmt: skip


def parse(*items: tuple[str, str], task: str = "transcribe") -> Any:
    return parse_fields(items, task)


def error_of(*items: tuple[str, str]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse(*items)
    return caught.value


def parsed_or_error(items: list[tuple[str, str]], task: str) -> Parameters | ApiError:
    try:
        return parse_fields(items, task)
    except ApiError as error:
        return error


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES) | st.text(max_size=9))),
    st.sampled_from(["transcribe", "translate"]),
)
def test_anything_is_understood_or_names_the_field(items: list[tuple[str, str]], task: str) -> None:
    found = parsed_or_error(items, task)
    if isinstance(found, ApiError):
        assert found.status == 400
        assert found.param is not None
        names = [name.split("[")[0] for name, _ in items]
        assert found.param.split("[")[0] in names
        assert found.param in found.message
    else:
        assert found.response_format in FORMATS
        assert found.options.task == task
        hash(found.options)  # requests are compared by them


@given(st.text(max_size=9).filter(lambda name: name not in NAMES and "[" not in name), st.text())
def test_unknown_fields_are_ignored(name: str, value: str) -> None:
    if name.split("[")[0] not in {known.split("[")[0] for known in NAMES}:
        assert parse((name, value)) == parse()


def test_defaults() -> None:
    found = parse()
    assert found.options == TranscribeOptions()
    assert (found.model, found.response_format, found.stream) == (None, "json", False)
    assert found.granularities == ("segment",)


LISTS = [
    [("timestamp_granularities[]", "word"), ("timestamp_granularities[]", "segment")],
    [("timestamp_granularities", "word"), ("timestamp_granularities", "segment")],
    [("timestamp_granularities[]", "word,segment")],
    [("timestamp_granularities[0]", "word"), ("timestamp_granularities[1]", "segment")],
    [("timestamp_granularities", " word , segment,")],
    [("timestamp_granularities[]", "word"), ("timestamp_granularities", "segment")],
]


@pytest.mark.parametrize("items", LISTS)
def test_lists_in_every_spelling(items: list[tuple[str, str]]) -> None:
    found = parse(("response_format", "verbose_json"), *items)
    assert found.granularities == ("word", "segment")
    assert found.options.word_timestamps


def test_texts_and_temperature() -> None:
    items = [("prompt", "A talk."), ("keywords[]", "Kokoro"), ("keywords[]", "a, b"),
             ("temperature", "0.3"), ("languages[]", "en"), ("languages[]", "fr")]  # fmt: skip
    options = parse(*items).options
    assert (options.initial_prompt, options.hotwords) == ("A talk.", "Kokoro, a, b")
    assert (options.temperature, options.languages) == (0.3, ("en", "fr"))
    assert parse(("temperature", "0")).options.temperature == TranscribeOptions().temperature


def test_speech() -> None:
    assert parse().options.vad is False
    assert parse(("chunking_strategy", "auto")).options.vad == VadOptions()
    assert parse(("chunking_strategy[type]", "server_vad")).options.vad == VadOptions()
    given = parse(
        ("chunking_strategy[type]", "server_vad"),
        ("chunking_strategy[threshold]", "0.8"),
        ("chunking_strategy[prefix_padding_ms]", "100"),
        ("chunking_strategy[silence_duration_ms]", "900"),
    ).options.vad
    assert given.threshold == 0.8
    assert given.neg_threshold == pytest.approx(0.65)
    assert (given.speech_pad, given.min_silence_duration) == (0.1, 0.9)


@pytest.mark.parametrize(("name", "value"), [
    ("response_format", "xml"), ("response_format", "diarized_json"), ("temperature", "hot"),
    ("temperature", "nan"), ("temperature", "-0.1"), ("temperature", "1.1"), ("stream", "maybe"),
    ("temperature", "1e999"), ("temperature", "\u0660.\u0665"), ("temperature", "0_1"),
    ("temperature", "0x1"), ("temperature", "infinity"), ("temperature", "0,5"), ("stream", "2"),
    ("response_format", "JSON"), ("include", "logprobs,everything"),
    ("timestamp_granularities", "letter"), ("timestamp_granularities", "word"),
    ("include", "everything"), ("chunking_strategy", "manual"),
    ("chunking_strategy[type]", "manual"), ("chunking_strategy[threshold]", "2"),
    ("chunking_strategy[silence_duration_ms]", "-1"),
])  # fmt: skip
def test_impossible_values(name: str, value: str) -> None:
    error = error_of((name, value))
    assert error.status == 400
    assert error.param == name
    assert name in error.message


def test_values_that_exclude_each_other() -> None:
    assert error_of(("language", "en"), ("languages[]", "fr")).param == "languages"
    assert error_of(("language", "en"), ("language", "fr")).param == "language"
    for name in ("srt", "vtt"):
        assert error_of(("stream", "true"), ("response_format", name)).param == "response_format"
    for name in ("text", "srt", "vtt", "verbose_json"):
        assert error_of(("include", "logprobs"), ("response_format", name)).param == "include"
    assert error_of(("chunking_strategy", "auto"), ("chunking_strategy[type]", "x")).param == (
        "chunking_strategy[type]"
    )


def test_a_translation_has_fewer_fields() -> None:
    ignored = [("language", "xx"), ("stream", "true"), ("include[]", "logprobs")]
    found = parse(*ignored, ("prompt", "Hi"), task="translate")
    assert found.options == TranscribeOptions(task="translate", initial_prompt="Hi")
    assert not found.stream


@pytest.mark.parametrize(("text", "value"), [
    ("true", True), ("True", True), ("1", True), ("false", False), ("False", False), ("", False),
])  # fmt: skip
def test_truth_in_every_spelling(text: str, value: bool) -> None:
    assert parse(("stream", text)).stream is value


@pytest.mark.parametrize(("text", "value"), [
    ("0.5", 0.5), (".5", 0.5), ("5e-1", 0.5), ("+1", 1.0), ("1.", 1.0), (" 0.25 ", 0.25),
])  # fmt: skip
def test_numbers_in_every_spelling(text: str, value: float) -> None:
    assert parse(("temperature", text)).options.temperature == value


@pytest.mark.parametrize(("text", "code"), [
    ("en-US", "en"), ("pt_BR", "pt"), ("zh-Hant-TW", "zh"), ("en", "en"), ("English", "English"),
    ("haitian creole", "haitian creole"), ("yue", "yue"), ("x-en", "x-en"), ("en-", "en-"),
])  # fmt: skip
def test_the_language_of_a_tag_counts(text: str, code: str) -> None:
    assert parse(("language", text)).options.language == code
    assert parse(("languages", text), ("languages", "fr-CA")).options.languages == (code, "fr")


def test_log_probabilities() -> None:
    assert parse(("include[]", "logprobs")).logprobs
    assert not parse().logprobs
    assert parse(("include", "logprobs"), ("stream", "true")).logprobs


def test_every_field_is_read() -> None:
    """A field of the table that nobody reads would be in the schema, and be ignored."""
    values = {"number": "0.25", "boolean": "true"}
    for task in ("transcribe", "translate"):
        for name, field in fields_of(task).items():
            value = field.choices[-1] if field.choices else values.get(field.kind, "fr")
            more: list[tuple[str, str]] = []
            if name == "timestamp_granularities":
                value, more = "word", [("response_format", "verbose_json")]
            assert parse((name, value), *more, task=task) != parse(*more, task=task), name


def test_brackets_belong_to_lists() -> None:
    assert parse(("model[]", "x"), ("language[0]", "en"), ("stream[]", "maybe")) == parse()
    assert parse(("keywords[0]", "a, b"), ("keywords[1]", "c")).options.hotwords == "a, b, c"
