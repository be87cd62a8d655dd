"""The settings of a session, in OpenAI's two forms."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.audio.endpointing import Endpointer
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.server.errors import ApiError
from baldwhisper_mlx.server.models import Models
from baldwhisper_mlx.server.realtime.audio import A_LAW, MU_LAW, PCM, AudioFormat
from baldwhisper_mlx.server.realtime.messages import TYPES, parse_message
from baldwhisper_mlx.server.realtime.settings import ServerVad, SessionSettings, updated

START = SessionSettings()


def nested(**fields: Any) -> dict[str, Any]:
    return {"type": "transcription", "audio": {"input": fields}}


def test_both_forms() -> None:
    transcription = {"model": "whisper-1", "language": "en", "prompt": "A talk."}
    vad = {"type": "server_vad", "threshold": 0.4, "silence_duration_ms": 800}
    newer = nested(
        format={"type": "audio/pcm", "rate": 24000}, transcription=transcription,
        turn_detection=vad, noise_reduction={"type": "near_field"},
    )  # fmt: skip
    older = {
        "input_audio_format": "pcm16",
        "input_audio_transcription": transcription,
        "turn_detection": vad,
        "input_audio_noise_reduction": {"type": "near_field"},
        "include": ["item.input_audio_transcription.logprobs"],
    }
    expected = SessionSettings(
        model="whisper-1", language="en", prompt="A talk.", vad=ServerVad(0.4, 300, 800)
    )
    assert updated(START, newer) == expected
    assert updated(START, older) == replace(expected, logprobs=True)
    described = expected.describe("sess_1", is_beta=False)
    assert updated(START, described) == expected
    assert described["audio"]["input"]["noise_reduction"] is None
    assert described["include"] is None
    with_logprobs = replace(expected, logprobs=True)
    assert updated(START, with_logprobs.describe("sess_1", is_beta=False)) == with_logprobs
    assert updated(with_logprobs, {"include": None}) == updated(with_logprobs, {"include": []})
    assert not updated(with_logprobs, {"include": None}).logprobs
    with pytest.raises(ApiError, match=r"session\.include can have .*logprobs only"):
        updated(START, {"include": ["item.input_audio_transcription.words"]})
    assert updated(START, expected.describe("sess_1", is_beta=True)) == expected


@pytest.mark.parametrize(("given", "expected"), [
    ({"type": "audio/pcm"}, AudioFormat(PCM, 24_000)),
    ({"type": "audio/pcm", "rate": 16000}, AudioFormat(PCM, 16_000)),
    ({"type": "audio/pcmu"}, AudioFormat(MU_LAW, 8_000)),
    ({"type": "audio/pcma", "rate": 8000}, AudioFormat(A_LAW, 8_000)),
    ("g711_ulaw", AudioFormat(MU_LAW, 8_000)),
    ("pcm16", AudioFormat()),
    (None, AudioFormat()),
])  # fmt: skip
def test_formats(given: Any, expected: AudioFormat) -> None:
    before = SessionSettings(format=AudioFormat(PCM, 48_000))
    assert updated(before, nested(format=given)).format == expected


def test_what_is_not_named_stays() -> None:
    first = updated(START, nested(transcription={"language": "fr", "keywords": ["Bamako"]}))
    second = updated(first, nested(turn_detection=None))
    assert (second.language, second.hotwords, second.vad) == ("fr", "Bamako", None)
    third = updated(second, nested(transcription={"language": None, "prompt": "x"}))
    assert (third.language, third.prompt, third.hotwords) == (None, "x", "Bamako")
    fourth = updated(third, nested(transcription=None, turn_detection={}))
    assert (fourth.prompt, fourth.hotwords, fourth.vad) == (None, None, ServerVad())
    assert updated(fourth, {"type": "transcription", "unknown": 1}) == fourth


def test_semantic_detection_becomes_that_of_speech() -> None:
    asked = nested(turn_detection={"type": "semantic_vad", "eagerness": "low"})
    found = updated(START, asked)
    assert found.vad == ServerVad()
    described = found.describe("sess_1", is_beta=False)
    assert described["audio"]["input"]["turn_detection"]["type"] == "server_vad"


def test_padding_does_not_reach_into_the_next_utterance() -> None:
    vad = {"type": "server_vad", "threshold": 0.1, "prefix_padding_ms": 300}
    found = updated(START, nested(turn_detection={**vad, "silence_duration_ms": 500}))
    assert found.vad == ServerVad(0.1, 250, 500)
    speech = found.vad.options()
    assert (speech.speech_pad, speech.min_silence_duration, speech.neg_threshold) == (0.25, 0.5, 0)


INPUT = "session.audio.input"


@pytest.mark.parametrize(("session", "param"), [
    (None, "session"),
    ([], "session"),
    ({"type": "realtime"}, "session.type"),
    ({"type": 1}, "session.type"),
    ({"audio": 1}, "session.audio"),
    ({"audio": {"input": []}}, INPUT),
    ({"input_audio_format": "mp3"}, "session.input_audio_format"),
    (nested(format=1), f"{INPUT}.format"),
    (nested(format={"type": "audio/mp3"}), f"{INPUT}.format.type"),
    (nested(format={"type": "audio/pcm", "rate": 1}), f"{INPUT}.format.rate"),
    (nested(format={"type": "audio/pcm", "rate": "24000"}), f"{INPUT}.format.rate"),
    (nested(format={"type": "audio/pcm", "rate": True}), f"{INPUT}.format.rate"),
    (nested(format={"type": "audio/pcmu", "rate": 24000}), f"{INPUT}.format.rate"),
    (nested(transcription="whisper-1"), f"{INPUT}.transcription"),
    (nested(transcription={"model": 1}), f"{INPUT}.transcription.model"),
    (nested(transcription={"prompt": "\ud800"}), f"{INPUT}.transcription.prompt"),
    (nested(transcription={"prompt": "x" * 2**17}), f"{INPUT}.transcription.prompt"),
    (nested(transcription={"keywords": "x"}), f"{INPUT}.transcription.keywords"),
    (nested(transcription={"keywords": [1]}), f"{INPUT}.transcription.keywords"),
    (nested(transcription={"language": "en", "languages": ["fr"]}),
     f"{INPUT}.transcription.languages"),
    (nested(turn_detection={"type": "x"}), f"{INPUT}.turn_detection.type"),
    (nested(turn_detection={"threshold": 1.5}), f"{INPUT}.turn_detection.threshold"),
    (nested(turn_detection={"threshold": float("nan")}), f"{INPUT}.turn_detection.threshold"),
    (nested(turn_detection={"silence_duration_ms": -1}),
     f"{INPUT}.turn_detection.silence_duration_ms"),
])  # fmt: skip
def test_impossible_values(session: Any, param: str) -> None:
    with pytest.raises(ApiError) as caught:
        updated(START, session)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert param in caught.value.message


@pytest.mark.parametrize("name", [None, "whisper-1", "gpt-realtime-whisper", "gpt-4o-transcribe"])
def test_names_of_the_default_model(
    bundled: LoadedModel, bilingual: LoadedModel, name: str | None
) -> None:
    models = Models([("gpt-2", bundled), ("tiny", bilingual)])
    assert SessionSettings(model=name).find(models) is bundled
    assert SessionSettings(model="tiny", language="French").find(models) is bilingual
    assert SessionSettings(model="gpt-2").find(models) is bundled


@pytest.mark.parametrize(("asked", "code"), [
    (SessionSettings(model="nothing"), "model_not_found"),
    (SessionSettings(language="fr"), "invalid_value"),
    (SessionSettings(language="klingon"), "invalid_value"),
    (SessionSettings(model="tiny", languages=("fr", "xx")), "invalid_value"),
])  # fmt: skip
def test_models_and_their_languages(
    bundled: LoadedModel, bilingual: LoadedModel, asked: SessionSettings, code: str
) -> None:
    with pytest.raises(ApiError) as caught:
        asked.find(Models([("tiny-en", bundled), ("tiny", bilingual)]))
    assert caught.value.code == code


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from([
            "type", "session", "audio", "input", "format", "transcription", "turn_detection",
            "rate", "model", "language", "languages", "keywords", "threshold", "event_id",
            "silence_duration_ms", "input_audio_format",
        ]),
        inner,
        max_size=5,
    ),
)  # fmt: skip
TYPED = st.tuples(st.sampled_from([*TYPES, "x"]), JSON, JSON)


@given(JSON | TYPED.map(lambda x: {"type": x[0], "session": x[1], "audio": x[2]}))
@settings(deadline=None)
def test_no_event_raises_anything_else(event: Any) -> None:
    with contextlib.suppress(ApiError):
        parsed = parse_message({"text": json.dumps(event)})
        found = updated(START, parsed.session)
        found.options()
        json.dumps(found.describe("sess_1", is_beta=False))
        if found.vad is not None:
            Endpointer(found.vad.options())
