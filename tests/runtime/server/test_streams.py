"""Streams with times, log-probabilities and warnings, as the real `openai` package sees them."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import soundfile

import baldwhisper_mlx
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.server.events import Events, event_bytes
from baldwhisper_mlx.server.logprobs import logprobs_of
from baldwhisper_mlx.server.parameters import parse_fields
from baldwhisper_mlx.server.responses import WARNINGS_HEADER, answer
from tests.runtime.server.conftest import SPEECH, Running

MODEL = "whisper-1"
TIMES: dict[str, Any] = {
    "response_format": "verbose_json",
    "timestamp_granularities": ["word", "segment"],
}


@pytest.fixture(scope="module")
def expected(bundled: LoadedModel) -> Transcript:
    return baldwhisper_mlx.transcribe(SPEECH, bundled)


def create(server: Running, **options: Any) -> Any:
    given = {"file": SPEECH, "model": MODEL} | options
    return server.client().audio.transcriptions.create(**given)


@pytest.fixture(scope="module")
def long_speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sentence twice, so far apart that it is in two windows."""
    samples, rate = soundfile.read(SPEECH)
    pause = np.zeros(30 * rate)
    path = tmp_path_factory.mktemp("speech") / "long.flac"
    soundfile.write(path, np.concatenate([samples, pause] * 2), rate)
    return path


def several_events(server: Running, file: Path) -> list[Any]:
    async def read() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            stream = await client.audio.transcriptions.create(
                file=file, model=MODEL, stream=True, **TIMES
            )
            return [event async for event in stream]

    return asyncio.run(read())


def test_a_stream_has_all_that_the_plain_answer_has(server: Running, long_speech: Path) -> None:
    plain = create(server, file=long_speech, **TIMES)
    events = list(create(server, file=long_speech, stream=True, **TIMES))
    assert [event.model_dump() for event in several_events(server, long_speech)] == [
        event.model_dump() for event in events
    ]
    deltas = [event for event in events if event.type == "transcript.text.delta"]
    assert "".join(event.delta for event in deltas) == plain.text
    assert len(deltas) > 1
    done = events[-1].model_dump(exclude_unset=True)
    assert done.pop("type") == "transcript.text.done"
    wanted = plain.model_dump(exclude_unset=True)
    assert {name: done[name] for name in wanted} == wanted
    assert len(wanted["segments"]) > 1
    assert wanted["words"]
    finished = [event for event in events if event.type == "baldwhisper.segments"]
    assert len(finished) > 1
    for name in ("segments", "words"):
        assert [one for event in finished for one in event.model_dump()[name]] == wanted[name]


@pytest.mark.parametrize("asked", ["word", "segment"])
def test_a_stream_has_only_the_times_that_are_asked_for(server: Running, asked: str) -> None:
    events = create(
        server, stream=True, response_format="verbose_json", timestamp_granularities=[asked]
    )
    for event in events:
        if event.type != "transcript.text.delta":
            found = {name for name in ("words", "segments") if name in event.model_dump()}
            assert found == {f"{asked}s"}


def test_other_streams_have_no_times(server: Running) -> None:
    for name in ("json", "text"):
        events = list(create(server, stream=True, response_format=name))
        assert {event.type for event in events} == {"transcript.text.delta", "transcript.text.done"}
        assert "segments" not in events[-1].model_dump()


def text_of(logprobs: Sequence[Any]) -> str:
    return bytes(int(byte) for one in logprobs for byte in one.bytes).decode()


def test_log_probabilities(server: Running, bundled: LoadedModel, expected: Transcript) -> None:
    answer = create(server, include=["logprobs"])
    assert text_of(answer.logprobs) == expected.text
    wanted = [
        (bundled.tokenizer.decode([token]), logprob)
        for segment in expected.segments
        for token, logprob in zip(segment.tokens, segment.logprobs or (), strict=True)
        if token < bundled.tokenizer.eot
    ]
    assert [one.token for one in answer.logprobs] == [token for token, _ in wanted]
    found = [one.logprob for one in answer.logprobs]
    np.testing.assert_allclose(found, [logprob for _, logprob in wanted], atol=1e-4)
    assert all(value <= 0 for value in found)
    assert create(server).logprobs is None


@pytest.mark.parametrize("options", [{}, {"chunking_strategy": "auto"}, {"temperature": 0.8}])
def test_log_probabilities_of_a_stream(
    server: Running, long_speech: Path, options: dict[str, Any]
) -> None:
    *deltas, done = create(server, file=long_speech, stream=True, include=["logprobs"], **options)
    assert deltas
    assert text_of(done.logprobs).strip() == done.text
    joined = [one.model_dump() for event in deltas for one in event.logprobs]
    assert joined == [one.model_dump() for one in done.logprobs]
    for event in deltas:
        assert text_of(event.logprobs).strip() == event.delta.strip()
    assert done.logprobs


def test_tokens_that_are_parts_of_characters(bundled: LoadedModel) -> None:
    tokenizer = bundled.tokenizer
    text = " naïve 🎉日本"
    tokens = [tokenizer.timestamp_begin, *tokenizer.encode(text), tokenizer.timestamp_begin + 50]
    values = tuple(-float(i) for i in range(len(tokens)))
    segment = Segment(0, 0, 0.0, 1.0, text, tuple(tokens), 0.0, 0.0, 1.0, 0.0, logprobs=values)
    found = logprobs_of([segment], tokenizer)
    assert b"".join(bytes(one["bytes"]) for one in found).decode() == text
    assert [one["logprob"] for one in found] == list(values[1:-1])
    parts = [one for one in found if one["token"].startswith("bytes:")]
    assert parts
    for one in parts:
        assert one["token"] == "bytes:" + "".join(f"\\x{byte:02x}" for byte in one["bytes"])


def segment(text: str, number: int = 0) -> Segment:
    return Segment(number, 0, 0.0, 1.0, text, (), 0.0, float("nan"), 1.0, 0.0, logprobs=())


def test_deltas_add_up_to_the_stripped_text(bundled: LoadedModel) -> None:
    parameters = parse_fields([("stream", "true")], "transcribe")
    for texts in (["  One ", " two.  ", " "], [" ", "\n", " A"], ["One", "two", " three "], []):
        events = Events(parameters, bundled.tokenizer)
        deltas = [event["delta"] for text in texts for event in events.of([segment(text)])]
        assert "".join(deltas) == "".join(texts).strip()
        assert all(deltas)


def test_numbers_that_json_does_not_have(bundled: LoadedModel) -> None:
    items = [("stream", "true"), ("response_format", "verbose_json")]
    events = Events(parse_fields(items, "transcribe"), bundled.tokenizer)
    line = event_bytes(events.of([segment(" a")])[-1]).decode()
    assert json.loads(line.removeprefix("data: "))["segments"][0]["avg_logprob"] is None


def truncated_wav() -> bytes:
    stream = io.BytesIO()
    samples, rate = soundfile.read(SPEECH)
    soundfile.write(stream, samples, rate, format="WAV")
    return stream.getvalue()[: -rate // 2 * 2]


def test_warnings_of_a_file(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    message = "file: cut off: 0.5 s of audio are missing at its end"
    for options in ({}, {"response_format": "srt"}, {"response_format": "text"}, TIMES):
        raw = server.client().audio.transcriptions.with_raw_response.create(
            file=truncated_wav(), model=MODEL, **options
        )
        assert json.loads(raw.headers[WARNINGS_HEADER]) == [message]
    assert message in caplog.text
    *_, done = create(server, file=truncated_wav(), stream=True)
    assert done.warnings == [message]
    translated = server.raw("translations", {"model": "tiny"}, truncated_wav())
    assert json.loads(translated.headers[WARNINGS_HEADER]) == [message]


def test_warnings_of_options(server: Running) -> None:
    keywords = [f"a longer name, number {i}" for i in range(100)]
    for vad in ({}, {"chunking_strategy": "auto"}):
        raw = server.client().audio.transcriptions.with_raw_response.create(
            file=SPEECH, model=MODEL, keywords=keywords, **vad
        )
        (message,) = json.loads(raw.headers[WARNINGS_HEADER])
        assert message.startswith("hotwords: ")
    both = list(create(server, file=truncated_wav(), keywords=keywords, stream=True))[-1].warnings
    assert [message.partition(":")[0] for message in both] == ["file", "hotwords"]


@pytest.mark.parametrize("vad", [{}, {"chunking_strategy": "auto"}])
def test_a_language_that_the_model_does_not_know(
    server: Running, monkeypatch: pytest.MonkeyPatch, vad: dict[str, Any]
) -> None:
    monkeypatch.setattr("baldwhisper_mlx.transcription.language.IMPROBABLE", 0.0)
    monkeypatch.setattr("baldwhisper_mlx.transcription.language.FEWEST_TOKENS", 1)
    *_, done = create(server, stream=True, **vad)
    (message,) = done.warnings
    assert "this model knows only en" in message


def test_without_warnings(server: Running) -> None:
    raw = server.client().audio.transcriptions.with_raw_response.create(file=SPEECH, model=MODEL)
    assert WARNINGS_HEADER not in raw.headers
    *_, done = create(server, stream=True)
    assert "warnings" not in done.model_dump()


def test_a_header_is_not_too_long(bundled: LoadedModel) -> None:
    """A damaged file can have a warning for every packet; letters of other scripts are escaped."""
    transcript = Transcript("", (), None, 1.0)
    warnings = [f"file: damaged at {i} s, \u00e9\U0001f389\r\n" for i in range(1000)]
    response = answer(transcript, parse_fields([], "transcribe"), bundled.tokenizer, warnings)
    value = response.headers[WARNINGS_HEADER]
    assert value.isascii()
    assert value.isprintable()
    assert len(value) < 8000
    *kept, more = json.loads(value)
    assert kept == warnings[: len(kept)]
    assert more == f"and {1000 - len(kept)} more"
