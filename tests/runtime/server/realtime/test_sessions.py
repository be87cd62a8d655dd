"""Sessions: the events of items, settings that change, and errors after which they continue."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import baldwhisper_mlx
from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.server.realtime.settings import LOGPROBS
from baldwhisper_mlx.transcription.live_draft import DraftDecoder
from baldwhisper_mlx.transcription.live_policies import DraftWord
from baldwhisper_mlx.transcription.stream import TranscriptStream
from tests.runtime.server.conftest import SPEECH
from tests.runtime.server.realtime.conftest import ADDRESS, CONTENT, SILENCE, URL, Client, pcm

ITEM = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
    f"{CONTENT}.completed",
]


@pytest.fixture(scope="module")
def text(bundled: LoadedModel) -> str:
    """What is said."""
    return baldwhisper_mlx.transcribe(SPEECH, bundled).text.strip()


def kinds(events: list[Any]) -> list[str]:
    """Types of events other than deltas."""
    return [event["type"] for event in events if event["type"] != f"{CONTENT}.delta"]


def deltas(events: list[Any]) -> str:
    return "".join(event.get("delta", "") for event in events)


def test_the_events_of_items(client: Client, speech: Samples, text: str) -> None:
    events = client.speak(pcm(np.concatenate([SILENCE, speech, speech])))
    middle = next(i for i, event in enumerate(events) if event["type"] == ITEM[-1]) + 1
    first, second = events[:middle], events[middle:]
    for events in (first, second):
        assert kinds(events) == ITEM
        assert events[-1]["transcript"] == text != ""
        assert len({event["item_id"] for event in events if "item_id" in event}) == 1
        assert len({event["event_id"] for event in events}) == len(events)
    assert any(event.get("unconfirmed") for event in first)
    started, stopped = first[0], next(e for e in first if e["type"] == ITEM[1])
    assert 500 < started["audio_start_ms"] < 1500
    assert 2500 < stopped["audio_end_ms"] < 3800
    seconds = (stopped["audio_end_ms"] - started["audio_start_ms"]) / 1000
    usage = first[-1]["usage"]
    assert usage == {"type": "duration", "seconds": pytest.approx(seconds, abs=0.001)}
    committed = [next(e for e in events if e["type"] == ITEM[2]) for events in (first, second)]
    assert committed[0]["previous_item_id"] is None
    assert committed[1]["previous_item_id"] == committed[0]["item_id"]
    assert second[0]["audio_start_ms"] > stopped["audio_end_ms"]


def test_deltas_together_are_the_text_where_nothing_changes(
    client: Client, speech: Samples, text: str
) -> None:
    events = client.speak(pcm(speech))
    assert deltas(events) == text


def test_a_draft_that_was_wrong_is_replaced(
    client: Client, speech: Samples, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    guess = [DraftWord(f" {word}", (ord("x"),), 0.0, 0.1, 0.0) for word in ("Wrong", "guess")]
    monkeypatch.setattr(DraftDecoder, "words", lambda *_: guess)
    events = client.speak(pcm(speech))
    assert deltas(events).startswith("Wrong")
    assert events[-1]["transcript"] == text


def test_the_beta(app: TestClient, speech: Samples, text: str) -> None:
    with app.websocket_connect(URL, headers={"OpenAI-Beta": "realtime=v1"}) as session:
        client = Client(session)
        assert client.next()["type"] == "transcription_session.created"
        given = {"input_audio_format": "pcm16", "input_audio_transcription": {"language": "en"}}
        client.send("transcription_session.update", session=given)
        answer = client.next()
        assert answer["type"] == "transcription_session.updated"
        assert answer["session"]["input_audio_transcription"]["language"] == "en"
        assert answer["session"]["input_audio_transcription"]["model"] == "tiny-en"
        client.append(pcm(speech))
        events = client.until("completed")
        assert kinds(events) == [*ITEM[:3], "conversation.item.created", ITEM[-1]]
        assert events[-1]["transcript"] == text


@pytest.mark.parametrize(("audio_format", "rate"), [
    ({"type": "audio/pcm", "rate": 16000}, 16_000), ({"type": "audio/pcm", "rate": 48000}, 48_000),
])  # fmt: skip
def test_other_rates(
    client: Client, speech: Samples, text: str, audio_format: Any, rate: int
) -> None:
    assert client.update(format=audio_format)["type"] == "session.updated"
    client.append(pcm(speech, rate), size=7_777)
    assert client.until("completed")[-1]["transcript"] == text


def test_a_commit_ends_what_somebody_still_says(client: Client, speech: Samples) -> None:
    client.append(pcm(speech[: 3 * SAMPLE_RATE // 2]))
    assert client.until("started")
    client.send("input_audio_buffer.commit")
    events = client.until("completed")
    assert kinds(events) == ITEM[1:]
    assert events[-1]["transcript"]
    client.send("input_audio_buffer.commit", event_id="again")
    error = client.next()["error"]
    assert (error["code"], error["event_id"]) == ("input_audio_buffer_commit_empty", "again")
    client.append(pcm(SILENCE))
    client.send("input_audio_buffer.commit")
    silent = client.until("completed")
    assert kinds(silent) == ITEM[2:]
    assert silent[-1]["transcript"] == ""


def test_clear_forgets_what_was_said(client: Client, speech: Samples, text: str) -> None:
    client.append(pcm(speech[:SAMPLE_RATE]))
    client.send("input_audio_buffer.clear")
    assert kinds(client.until("cleared"))[-1] == "input_audio_buffer.cleared"
    client.append(pcm(speech))
    events = client.until("completed")
    assert kinds(events) == ITEM
    assert events[0]["audio_start_ms"] >= 1000
    assert events[-1]["transcript"] == text


def test_the_client_commits(
    client: Client, speech: Samples, text: str, bundled: LoadedModel
) -> None:
    assert client.update(turn_detection=None)["session"]["audio"]["input"]["turn_detection"] is None
    data = pcm(np.concatenate([speech, speech]), 16_000)
    client.update(format={"type": "audio/pcm", "rate": 16000})
    client.append(data)
    client.send("input_audio_buffer.commit")
    client.append(pcm(speech, 16_000))
    client.send("input_audio_buffer.commit")
    events = client.until("completed")
    events += client.until("completed")
    assert kinds(events).count(ITEM[2]) == 2
    first, second = [event for event in events if event["type"] == ITEM[-1]]
    samples = np.frombuffer(data, "<i2") / np.float32(32768)
    assert first["transcript"] == baldwhisper_mlx.transcribe(samples, bundled).text.strip()
    assert second["transcript"] == text
    for event in (first, second):
        own = [e for e in events if e.get("item_id") == event["item_id"]]
        assert deltas(own) == event["transcript"]
    assert first["usage"]["seconds"] == pytest.approx(len(samples) / SAMPLE_RATE, abs=0.001)


def test_a_commit_keeps_the_settings_that_it_was_made_with(
    client: Client, speech: Samples, text: str
) -> None:
    client.update(turn_detection=None)
    client.send("session.update", session={"include": [LOGPROBS]})
    client.append(pcm(speech))
    client.send("input_audio_buffer.commit")
    client.send(
        "session.update", session={"input_audio_transcription": {"model": "tiny"}, "include": []}
    )
    completed = client.until("completed", "failed")[-1]
    assert completed["transcript"] == text
    spelled = b"".join(bytes(token["bytes"]) for token in completed["logprobs"])
    assert spelled.decode().strip() == text


def test_a_buffer_that_nobody_commits(client: Client, speech: Samples) -> None:
    client.update(turn_detection=None)
    client.append(pcm(speech))
    assert client.update(turn_detection={})["error"]["param"] == "session.turn_detection"
    client.send("input_audio_buffer.clear")
    assert client.next()["type"] == "input_audio_buffer.cleared"
    assert client.update(turn_detection={})["type"] == "session.updated"


def test_new_settings_end_what_somebody_says(client: Client, speech: Samples) -> None:
    client.append(pcm(speech[: 3 * SAMPLE_RATE // 2]))
    client.until("started")
    client.send(
        "session.update", session={"audio": {"input": {"transcription": {"model": "tiny"}}}}
    )
    events = client.until("session.updated")
    assert kinds(events) == [*ITEM[1:], "session.updated"]
    described = events[-1]["session"]["audio"]["input"]["transcription"]
    assert described["model"] == "tiny"
    client.append(pcm(speech))
    events = client.until("completed")
    assert events[0]["audio_start_ms"] >= 1500


@pytest.mark.parametrize(("message", "code", "param", "event_id"), [
    ("no json", "invalid_json", None, None),
    ("[" * 100_000, "invalid_json", None, None),
    ("[1]", "invalid_json", None, None),
    ("1e999", "invalid_json", None, None),
    ("{}", "invalid_value", "type", None),
    ('{"type": "response.create", "event_id": "e"}', "invalid_value", "type", "e"),
    ('{"type": ["x"], "event_id": 5}', "invalid_value", "event_id", None),
    ('{"type": "input_audio_buffer.append", "event_id": "e"}', "invalid_value", "audio", "e"),
    ('{"type": "input_audio_buffer.append", "audio": 5}', "invalid_value", "audio", None),
    ('{"type": "input_audio_buffer.append", "audio": "a"}', "invalid_value", "audio", None),
    ('{"type": "input_audio_buffer.append", "audio": "\\u00e9"}', "invalid_value", "audio", None),
    ('{"type": "session.update", "event_id": "e"}', "invalid_value", "session", "e"),
    ('{"type": "session.update", "session": {"input_audio_transcription": {"model": "x"}}}',
     "model_not_found", "model", None),
    ('{"type": "session.update", "session": {"input_audio_transcription": {"language": "fr"}}}',
     "invalid_value", "language", None),
])  # fmt: skip
def test_errors_after_which_the_session_continues(
    client: Client, message: str, code: str, param: str | None, event_id: str | None
) -> None:
    client.session.send_text(message)
    event = client.next()
    assert event["type"] == "error"
    error = event["error"]
    assert error["type"] == "invalid_request_error"
    assert (error["code"], error["param"], error["event_id"]) == (code, param, event_id)
    assert client.update()["type"] == "session.updated"


def test_binary_messages(client: Client) -> None:
    client.session.send_bytes(b"\0" * 10)
    assert client.next()["error"]["param"] == "type"
    assert client.update()["type"] == "session.updated"


@pytest.mark.parametrize(("query", "code", "param"), [
    ("", "invalid_value", "intent"),
    ("?intent=conversation", "invalid_value", "intent"),
    ("?intent=transcription&model=nothing", "model_not_found", "model"),
])  # fmt: skip
def test_connections_that_are_refused(app: TestClient, query: str, code: str, param: str) -> None:
    with app.websocket_connect(f"{ADDRESS}{query}") as session:
        error = session.receive_json()["error"]
        assert (error["code"], error["param"]) == (code, param)
        with pytest.raises(WebSocketDisconnect) as caught:
            session.receive_json()
        assert caught.value.code == 1008


def test_the_model_of_the_address(app: TestClient) -> None:
    with app.websocket_connect(f"{URL}&model=tiny") as session:
        described = session.receive_json()["session"]
        assert described["audio"]["input"]["transcription"]["model"] == "tiny"
        assert described["id"].startswith("sess_")
        json.dumps(described)


def fail(*_: Any, **__: Any) -> Any:
    raise FloatingPointError("NaN logits in /home/secret")


def test_an_error_of_the_model_ends_the_item_only(
    client: Client, speech: Samples, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(TranscriptStream, "transcript", fail)
        client.append(pcm(speech))
        events = client.until("failed", "completed")
    assert kinds(events) == [*ITEM[:-1], f"{CONTENT}.failed"]
    error = events[-1]["error"]
    assert error["code"] == "internal_error"
    assert "secret" not in json.dumps(events)
    client.append(pcm(speech))
    assert client.until("completed")[-1]["transcript"] == text


def test_an_error_of_a_draft_does_not_end_the_item(
    client: Client, speech: Samples, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DraftDecoder, "words", fail)
    events = client.speak(pcm(speech))
    assert kinds(events) == ITEM
    assert events[-1]["transcript"] == text


def test_an_error_of_a_commit_ends_the_item_only(
    client: Client, speech: Samples, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.update(turn_detection=None)
    for patched, kind in ((True, "failed"), (False, "completed")):
        client.append(pcm(speech))
        with monkeypatch.context() as patch:
            if patched:
                patch.setattr("baldwhisper_mlx.server.worker.transcribe_windows", fail)
            client.send("input_audio_buffer.commit")
            events = client.until("failed", "completed")
        assert events[-1]["type"] == f"{CONTENT}.{kind}"
    assert events[-1]["transcript"] == text
