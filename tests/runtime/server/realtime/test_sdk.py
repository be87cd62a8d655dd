"""The real `openai` package as the client: synchronous and not, and that of the beta."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import baldwhisper_mlx
from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.checkpoint.load import LoadedModel
from tests.runtime.server.conftest import SPEECH, Running, Serve
from tests.runtime.server.realtime.conftest import CONTENT, pcm

ROOT = Path(__file__).parents[4]
INTENT = {"intent": "transcription"}
SESSION: Any = {
    "type": "transcription",
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "noise_reduction": {"type": "near_field"},
            "transcription": {"model": "gpt-4o-transcribe", "prompt": "", "language": "en"},
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 500,
            },
        }
    },
    "include": ["item.input_audio_transcription.logprobs"],
}
"""OpenAI's own example."""


@pytest.fixture(scope="module")
def text(bundled: LoadedModel) -> str:
    return baldwhisper_mlx.transcribe(SPEECH, bundled).text.strip()


def parts(speech: Samples) -> Iterator[str]:
    """The speech in base64, 100 ms at a time."""
    data = pcm(speech)
    for i in range(0, len(data), 4_800):
        yield base64.b64encode(data[i : i + 4_800]).decode()


def test_the_client(server: Running, speech: Samples, text: str) -> None:
    deltas: list[Any] = []
    with server.client().realtime.connect(extra_query=INTENT) as connection:
        created = connection.recv()
        assert created.type == "session.created"
        connection.session.update(session=SESSION)
        updated = connection.recv()
        assert updated.type == "session.updated"
        assert updated.session.type == "transcription"
        for part in parts(speech):
            connection.input_audio_buffer.append(audio=part)
            connection.session.update(session={"type": "transcription"})
        for event in connection:
            if event.type == f"{CONTENT}.delta":
                deltas.append(event)
            if event.type == f"{CONTENT}.completed":
                break
        assert event.type == f"{CONTENT}.completed"
        assert event.transcript == text
        assert event.usage.type == "duration"
        assert b"".join(bytes(token.bytes) for token in event.logprobs).decode().strip() == text
        assert all(token.logprob <= 0 for token in event.logprobs)
    assert "".join(event.delta for event in deltas) == text
    # Fields that the package does not know stay readable.
    assert any(event.unconfirmed for event in deltas)


def test_the_example_of_the_documentation(
    server: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs/server.md").read_text()
    (code,) = re.findall(r"```python\n(.*?realtime\.connect.*?)```", page, re.DOTALL)
    monkeypatch.chdir(ROOT)
    exec(code.replace("http://127.0.0.1:8000", server.url), {})
    *_, transcript = capsys.readouterr().out.splitlines()
    assert transcript.strip() == baldwhisper_mlx.transcribe("examples/sample.wav").text.strip()


def test_the_handlers_of_the_client(server: Running, speech: Samples, text: str) -> None:
    with server.client().realtime.connect(model="gpt-realtime", extra_query=INTENT) as connection:
        found: list[str] = []

        def completed(event: Any) -> None:
            found.append(event.transcript)
            connection.close()

        connection.on(f"{CONTENT}.completed", completed)
        for part in parts(speech):
            connection.input_audio_buffer.append(audio=part)
        connection.dispatch_events()
    assert found == [text]


def test_errors_of_the_client(server: Running) -> None:
    with server.client().realtime.connect(extra_query=INTENT) as connection:
        connection.recv()
        connection.response.create(event_id="mine")
        event = connection.recv()
        assert event.type == "error"
        assert (event.error.type, event.error.event_id) == ("invalid_request_error", "mine")


def test_asynchronously(serve: Serve, speech: Samples, text: str) -> None:
    server = serve(api_key="secret")

    async def one(client: openai.AsyncOpenAI) -> str:
        async with client.realtime.connect(extra_query=INTENT) as connection:
            await connection.session.update(session=SESSION)
            for part in parts(speech):
                await connection.input_audio_buffer.append(audio=part)
            async for event in connection:
                if event.type == f"{CONTENT}.completed":
                    return event.transcript
        raise AssertionError("the connection has ended")

    async def several() -> list[str]:
        url = f"{server.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="secret") as client:
            return await asyncio.gather(*[one(client) for _ in range(4)])

    assert asyncio.run(several()) == [text] * 4


def test_the_client_of_the_beta(server: Running, speech: Samples, text: str) -> None:
    url = f"ws://127.0.0.1:{server.port}/v1"
    client = server.client(websocket_base_url=url).beta.realtime
    with client.connect(model="gpt-4o-transcribe", extra_query=INTENT) as connection:
        assert connection.recv().type == "transcription_session.created"  # type: ignore[comparison-overlap]
        connection.transcription_session.update(
            session={
                "input_audio_format": "pcm16",
                "input_audio_transcription": {"model": "gpt-4o-transcribe", "language": "en"},
                "turn_detection": {"type": "server_vad", "silence_duration_ms": 500},
            }
        )
        updated = connection.recv()
        assert updated.type == "transcription_session.updated"
        assert updated.session.input_audio_format == "pcm16"
        for part in parts(speech):
            connection.input_audio_buffer.append(audio=part)
        for event in connection:
            if event.type == f"{CONTENT}.completed":
                break
        assert event.type == f"{CONTENT}.completed"
        assert event.transcript == text
