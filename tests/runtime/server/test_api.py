"""OpenAI's API, used by the real `openai` package: formats, events, models and errors."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
import soundfile
from openai.types.audio import Transcription, TranscriptionVerbose

import baldwhisper_mlx
from baldwhisper_mlx.audio.vad import VadOptions
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.server import transcriptions
from baldwhisper_mlx.server.field_table import FORMATS
from baldwhisper_mlx.server.places import BATCH
from tests.runtime.conftest import RATE
from tests.runtime.server.conftest import SPEECH, Running, Serve, is_free

MODEL = "whisper-1"


@pytest.fixture(scope="module")
def expected(bundled: LoadedModel) -> Transcript:
    return baldwhisper_mlx.transcribe(SPEECH, bundled, word_timestamps=True)


def create(server: Running, **options: Any) -> Any:
    given = {"file": SPEECH, "model": MODEL} | options
    return server.client().audio.transcriptions.create(**given)


def test_json(server: Running, expected: Transcript) -> None:
    answer = create(server)
    assert answer.text == expected.text.strip() != ""
    assert (answer.usage.type, answer.usage.seconds) == ("duration", expected.duration)


@pytest.mark.parametrize(("name", "media_type"), [
    ("text", "text/plain"), ("srt", "application/x-subrip"), ("vtt", "text/vtt"),
])  # fmt: skip
def test_texts(server: Running, bundled: LoadedModel, name: str, media_type: str) -> None:
    plain = baldwhisper_mlx.transcribe(SPEECH, bundled)
    wanted = f"{plain.text.strip()}\n" if name == "text" else plain.to_format(name)
    assert create(server, response_format=name) == wanted
    raw = server.client().audio.transcriptions.with_raw_response.create(
        file=SPEECH, model=MODEL, response_format=name
    )
    assert raw.headers["content-type"] == f"{media_type}; charset=utf-8"


def test_verbose_json(server: Running, expected: Transcript) -> None:
    answer = create(
        server, response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    assert (answer.task, answer.language, answer.duration) == ("transcribe", "english", 2.0)
    assert answer.text == expected.text.strip()
    for found, segment in zip(answer.segments, expected.segments, strict=True):
        for name, value in found.model_dump().items():
            assert value == (list(segment.tokens) if name == "tokens" else getattr(segment, name))
        assert len(found.model_dump()) == 10
    words = [word for segment in expected.segments for word in segment.words or ()]
    assert [(w.word, w.start, w.end) for w in answer.words] == [
        (w.word.strip(), w.start, w.end) for w in words
    ]


@pytest.mark.parametrize(
    ("asked", "segments", "words"), [([], True, False), (["word"], False, True)]
)
def test_granularities(server: Running, asked: list[str], segments: bool, words: bool) -> None:
    answer = create(server, response_format="verbose_json", timestamp_granularities=asked)
    assert (answer.segments is not None, answer.words is not None) == (segments, words)


def test_events(server: Running, expected: Transcript) -> None:
    *deltas, done = create(server, stream=True)
    assert deltas
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert done.type == "transcript.text.done"
    assert "".join(event.delta for event in deltas) == done.text == expected.text.strip()


def test_asynchronously(server: Running, expected: Transcript) -> None:
    async def several() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            create = client.audio.transcriptions.create
            answers = await asyncio.gather(*[create(file=SPEECH, model=MODEL) for _ in range(6)])
            stream = await create(file=SPEECH, model=MODEL, stream=True)
            events = [event async for event in stream]
            return [answer.text for answer in answers] + [events[-1].text]  # type: ignore[union-attr]

    assert asyncio.run(several()) == [expected.text.strip()] * 7


def test_every_format_asynchronously(server: Running) -> None:
    async def all_formats() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            create = client.audio.transcriptions.create
            return [
                await create(file=SPEECH, model=MODEL, response_format=name)  # type: ignore[call-overload]
                for name in FORMATS
            ]

    answers = dict(zip(FORMATS, asyncio.run(all_formats()), strict=True))
    for name, answer in answers.items():
        wanted = create(server, response_format=name)
        assert type(answer) is type(wanted)
        assert answer == wanted
    assert isinstance(answers["verbose_json"], TranscriptionVerbose)
    assert isinstance(answers["json"], Transcription)


def test_errors_and_models_asynchronously(server: Running) -> None:
    async def ask() -> tuple[list[str], str, Any, Any]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            models = [one.id async for one in client.models.list()]
            model = await client.models.retrieve("tiny")
            with pytest.raises(openai.BadRequestError) as refused:
                await client.audio.transcriptions.create(file=SPEECH, model=MODEL, language="zz")
            with pytest.raises(openai.NotFoundError) as missing:
                await client.audio.transcriptions.create(file=SPEECH, model="no", stream=True)
            return models, model.id, refused.value.param, missing.value.code

    assert asyncio.run(ask()) == (["tiny-en", "tiny"], "tiny", "language", "model_not_found")


def test_the_other_fields(server: Running, bundled: LoadedModel) -> None:
    answer = create(
        server,
        language="English",
        prompt="A talk.",
        temperature=0,
        chunking_strategy={"type": "server_vad", "threshold": 0.4, "prefix_padding_ms": 400},
        extra_body={"user": "me", "known": ["a", "b"], "keywords[]": ["model"]},
    )
    wanted = baldwhisper_mlx.transcribe(
        SPEECH,
        bundled,
        language="en",
        initial_prompt="A talk.",
        hotwords="model",
        vad=VadOptions(threshold=0.4, neg_threshold=0.25, speech_pad=0.4),
    )
    assert answer.text == wanted.text.strip() != ""


def test_chunking_leaves_out_pauses(server: Running, bundled: LoadedModel) -> None:
    wanted = baldwhisper_mlx.transcribe(SPEECH, bundled, vad=True)
    answer = create(server, chunking_strategy="auto", response_format="verbose_json")
    assert [one.end for one in answer.segments] == [one.end for one in wanted.segments]
    silence = io.BytesIO()
    soundfile.write(silence, np.zeros(RATE, np.float32), RATE, format="WAV")
    events = list(create(server, file=silence.getvalue(), chunking_strategy="auto", stream=True))
    assert [event.type for event in events] == ["transcript.text.done"]
    assert events[0].text == ""


def translate(server: Running, **options: Any) -> Any:
    with pytest.warns(DeprecationWarning, match="deprecated"):  # OpenAI will switch it off
        return server.client().audio.translations.create(file=SPEECH, **options)


def test_translation(server: Running) -> None:
    answer = translate(server, model="tiny", response_format="verbose_json")
    assert (answer.task, answer.language, answer.duration) == ("translate", "english", 2.0)
    assert set(translate(server, model="tiny").model_dump()) == {"text"}
    for name in ("text", "srt", "vtt"):
        assert isinstance(translate(server, model="tiny", response_format=name), str)
    assert translate(server, model="tiny", response_format="vtt").startswith("WEBVTT")
    with pytest.raises(openai.BadRequestError, match="English only") as caught:
        translate(server, model="tiny-en")
    assert caught.value.param == "model"


def test_models(server: Running) -> None:
    client = server.client()
    assert [(one.id, one.object) for one in client.models.list()] == [
        ("tiny-en", "model"), ("tiny", "model"),
    ]  # fmt: skip
    assert client.models.retrieve("tiny").id == "tiny"
    assert client.models.retrieve(MODEL).id == "tiny-en"
    with pytest.raises(openai.NotFoundError, match="tiny-en, tiny") as caught:
        client.models.retrieve("whisper-9")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(("options", "kind", "param"), [
    ({"language": "zz"}, openai.BadRequestError, "language"),
    ({"language": "fr"}, openai.BadRequestError, "language"),
    ({"temperature": 1.5}, openai.BadRequestError, "temperature"),
    ({"response_format": "diarized_json"}, openai.BadRequestError, "response_format"),
    ({"response_format": "srt", "stream": True}, openai.BadRequestError, "response_format"),
    ({"timestamp_granularities": ["word"]}, openai.BadRequestError, "timestamp_granularities"),
    ({"include": ["logprobs"], "response_format": "text"}, openai.BadRequestError, "include"),
    ({"model": "whisper-9"}, openai.NotFoundError, "model"),
    ({"file": b""}, openai.BadRequestError, "file"),
    ({"file": b"no audio" * 100}, openai.BadRequestError, "file"),
])  # fmt: skip
def test_errors(server: Running, options: dict[str, Any], kind: Any, param: str) -> None:
    with pytest.raises(kind) as caught:
        create(server, **options)
    assert caught.value.param == param
    assert param in caught.value.message
    assert caught.value.type == "invalid_request_error"
    assert set(caught.value.body) == {"message", "type", "param", "code"}
    assert "/" not in caught.value.body["message"].replace("and/or", "")


def test_what_fails_inside_is_no_detail(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise FloatingPointError("/secret/path")

    server = serve()
    monkeypatch.setattr("baldwhisper_mlx.server.worker.transcribe_windows", fail)
    with pytest.raises(openai.InternalServerError) as caught:
        create(server)
    assert "secret" not in str(caught.value)
    with pytest.raises(openai.APIError, match="failed") as streamed:
        list(create(server, stream=True))
    assert "secret" not in str(streamed.value)
    assert "/secret/path" in caplog.text
    assert is_free(server)


def test_a_full_queue_and_retries(serve: Serve, expected: Transcript) -> None:
    server = serve(max_queue=1)
    places = [server.service.places.take() for _ in range(1 + BATCH)]
    for place in places:
        place.__enter__()
    with pytest.raises(openai.RateLimitError) as caught:
        create(server)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert caught.value.code == "queue_full"

    # The answer comes also where the client is still sending.
    with pytest.raises(openai.RateLimitError):
        create(server, file=b"x" * 8_000_000)
    with pytest.raises(openai.APIStatusError) as refused:
        create(serve(max_upload=1000), file=b"x" * 8_000_000)
    assert refused.value.status_code == 413

    def free() -> None:
        places[0].__exit__(None, None, None)

    timer = threading.Timer(0.5, free)
    timer.start()
    client = server.client(max_retries=3)
    answer = client.audio.transcriptions.create(file=SPEECH, model=MODEL)
    timer.join()
    assert answer.text == expected.text.strip()


@pytest.mark.parametrize("stream", [False, True])
def test_retries_asynchronously_after_the_time_that_the_server_names(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    server = serve(max_queue=0)
    places = [server.service.places.take() for _ in range(BATCH)]
    for place in places:
        place.__enter__()
    waits = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        for place in places:
            place.__exit__(None, None, None)
        places.clear()

    async def transcribe() -> str:
        client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=1)
        async with client:
            monkeypatch.setattr("openai._base_client.anyio.sleep", wait)
            answer = await client.audio.transcriptions.create(
                file=SPEECH, model=MODEL, stream=stream
            )
            if isinstance(answer, openai.AsyncStream):
                return str([event async for event in answer][-1].text)  # type: ignore[union-attr]
            return answer.text

    assert asyncio.run(transcribe()).startswith("A small model")
    assert waits == [2]  # as Retry-After says


def test_a_client_that_disconnects_frees_its_place(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, jobs = threading.Event(), []

    class Stuck(transcriptions.Job):  # type: ignore[misc]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            jobs.append(self)
            begun.set()

    server = serve()
    monkeypatch.setattr(transcriptions, "Job", Stuck)
    monkeypatch.setattr(server.service.worker, "submit", lambda job: None)
    for stream in (False, True):
        begun.clear()
        create = server.client(timeout=1).audio.transcriptions.create
        # A stream begins at once, and fails when it is read.
        with pytest.raises((openai.APITimeoutError, httpx2.ReadTimeout)):
            list(create(file=SPEECH, model=MODEL, stream=stream))  # type: ignore[call-overload]
        assert begun.wait(10)
        assert is_free(server)
        assert jobs[-1].is_cancelled


def test_names_are_never_used_as_paths(server: Running, expected: Transcript) -> None:
    for name in ("../../etc/passwd", "/dev/zero", "a\nb.wav", "talk.docx", "\u202ereversed"):
        answer = create(server, file=(name, SPEECH.read_bytes(), "application/x-nonsense"))
        assert answer.text == expected.text.strip()


def test_events_are_json_lines(server: Running) -> None:
    raw = server.client().audio.transcriptions.with_raw_response.create(
        file=io.BytesIO(SPEECH.read_bytes()), model=MODEL, stream=True
    )
    assert raw.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in raw.http_response.iter_lines() if line]
    assert all(json.loads(line.removeprefix("data: "))["type"] for line in lines)
