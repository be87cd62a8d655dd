"""The options object: the same options as `transcribe`, and errors that name the wrong one."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.transcription import stream
from baldwhisper_mlx.transcription.options import TranscribeKeywords, TranscribeOptions
from baldwhisper_mlx.transcription.transcribe import transcribe, transcribe_iter
from tests.runtime.conftest import tone

KEYWORDS = {
    name: parameter
    for name, parameter in inspect.signature(transcribe).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
}


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> LoadedModel:
    return load_model(model_folder, dtype="float32")


def test_every_field_is_a_keyword_of_transcribe_and_the_other_way_round() -> None:
    fields = {field.name: field.default for field in dataclasses.fields(TranscribeOptions)}
    assert fields == {name: parameter.default for name, parameter in KEYWORDS.items()}
    documented = inspect.getdoc(transcribe) or ""
    assert [name for name in fields if f"\n    {name}: " not in documented] == []


def test_type_checkers_know_the_same_keywords() -> None:
    types = {field.name: field.type for field in dataclasses.fields(TranscribeOptions)}
    assert TranscribeKeywords.__annotations__.keys() == types.keys()
    keywords = TranscribeKeywords.__annotations__.items()
    assert {name: reference.__forward_arg__ for name, reference in keywords} == types


def test_every_keyword_reaches_the_options(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {
        "language": "fr",
        "task": "translate",
        "initial_prompt": "Bloom",
        "carry_initial_prompt": True,
        "hotwords": "Kokoro",
        "prefix": "Once",
        "temperature": (0, 0.25),
        "beam_size": 5,
        "patience": 1.5,
        "length_penalty": 0.5,
        "best_of": 3,
        "condition_on_previous_text": False,
        "without_timestamps": True,
        "word_timestamps": True,
        "clip_timestamps": "0-10,60-",
        "hallucination_silence_threshold": 2.0,
        "suppress_tokens": [-1, 50],
        "repetition_penalty": 1.5,
        "no_repeat_ngram_size": 3,
        "compression_ratio_threshold": 2.5,
        "logprob_threshold": -2.0,
        "no_speech_threshold": 0.5,
        "vad": True,
        "batch_size": 2,
        "on_progress": lambda done, total: None,
    }
    # These two exclude `language`.
    detected: dict[str, Any] = {"languages": ["en", "fr"], "multilingual": True}
    assert given.keys() | detected.keys() == KEYWORDS.keys()
    received: list[TranscribeOptions] = []

    def recording(_: Any, __: Any, options: TranscribeOptions, **_warnings: Any) -> Any:
        received.append(options)
        yield from ()
        return Transcript("", (), None, 1.0)

    monkeypatch.setattr(stream, "transcribe_recording", recording)
    for keywords in (given, detected):
        transcribe(tone(), loaded, **keywords)
        transcribe_iter(tone(), loaded, **keywords).transcript()
        for options in received[-2:]:
            assert {name: getattr(options, name) for name in keywords} == keywords
    assert len(received) == 4


def test_an_unknown_keyword_is_a_type_error(loaded: LoadedModel) -> None:
    with pytest.raises(TypeError, match="beams"):
        transcribe(tone(), loaded, beams=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="beams"):
        TranscribeOptions(beams=5)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("task", "summarize"),
        ("temperature", -0.5),
        ("temperature", float("nan")),
        ("temperature", (0.0, -1.0)),
        ("temperature", ()),
        ("compression_ratio_threshold", float("nan")),
        ("logprob_threshold", "-1"),
        ("no_speech_threshold", float("nan")),
        ("beam_size", 0),
        ("beam_size", 2.5),
        ("patience", 1.0),
        ("length_penalty", 2.0),
        ("best_of", 0),
        ("languages", "en"),
        ("languages", []),
        ("languages", ["en", 5]),
        ("multilingual", "yes"),
        ("vad", "loud"),
        ("vad", None),
        ("batch_size", 0),
        ("batch_size", 1.5),
        ("hotwords", ["Kokoro"]),
        ("prefix", 5),
        ("initial_prompt", b"x"),
        ("clip_timestamps", "10-5"),
        ("hallucination_silence_threshold", 2.0),  # without word_timestamps
        ("suppress_tokens", "50;60"),
        ("suppress_tokens", [1.5]),
        ("suppress_tokens", 50),
        ("repetition_penalty", "1"),
        ("repetition_penalty", 0.0),
        ("no_repeat_ngram_size", 1.5),
        ("no_repeat_ngram_size", -1),
    ],
)
def test_errors_name_the_option_before_a_model_is_loaded(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        transcribe(tone(), "no/such/model", **{option: value})


def test_beams_at_temperature_0_and_samples_above() -> None:
    """As in openai-whisper, whose options are ignored where they do not apply."""
    options = TranscribeOptions(
        temperature=(0, 0.5), beam_size=5, patience=2.0, length_penalty=0.5, best_of=3
    )
    first, second = options.attempts
    assert (first.beam_size, first.patience, first.best_of, first.length_penalty) == (
        5, 2.0, None, 0.5,
    )  # fmt: skip
    assert (second.beam_size, second.patience, second.best_of, second.length_penalty) == (
        None, None, 3, 0.5,
    )  # fmt: skip
    assert (first.temperature, second.temperature) == (0, 0.5)
    assert TranscribeOptions(temperature=0.5, beam_size=5).attempts[0].beam_size is None


@pytest.mark.parametrize("other", [{"multilingual": True}, {"languages": ["en", "fr"]}])
def test_a_language_leaves_nothing_to_detect(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"language and {next(iter(other))} exclude each other"):
        TranscribeOptions(language="fr", **other)


def test_numbers_of_numpy_are_numbers() -> None:
    options = TranscribeOptions(
        temperature=np.float32(0.5), batch_size=np.int64(2), logprob_threshold=np.float32(-1)
    )
    assert [attempt.temperature for attempt in options.attempts] == [0.5]


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), "2"])
def test_the_threshold_of_silence_is_a_time(bad: Any) -> None:
    with pytest.raises(ValueError, match="hallucination_silence_threshold must be"):
        TranscribeOptions(word_timestamps=True, hallucination_silence_threshold=bad)


@pytest.mark.parametrize("given", ["-1, 50,60", [-1, 50, 60], (-1, 50, np.int64(60))])
def test_all_attempts_suppress_the_same_tokens(given: Any) -> None:
    options = TranscribeOptions(suppress_tokens=given, repetition_penalty=2, no_repeat_ngram_size=3)
    assert len(options.attempts) == 6
    for attempt in options.attempts:
        assert attempt.suppress_tokens == (-1, 50, 60)
        assert (attempt.repetition_penalty, attempt.no_repeat_ngram_size) == (2.0, 3)
    assert TranscribeOptions(suppress_tokens="").attempts[0].suppress_tokens == ()
    assert TranscribeOptions().attempts[0].suppress_tokens == (-1,)


def test_options_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TranscribeOptions().task = "translate"  # type: ignore[misc]
