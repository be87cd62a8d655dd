"""The requests of other programs, in the form in which their sources send them.

Open WebUI uses requests, LibreChat axios, integrations of Home Assistant httpx and the openai
package, browsers fetch. Each test sends the headers and the form of one, and reads of the answer
what that program reads.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import socket
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import openai
import pytest
import soundfile

from tests.runtime.server.conftest import SPEECH, Running, Serve

PATH = "/v1/audio/transcriptions"
TEXT = "A small model can learn"


@pytest.fixture(scope="module")
def recording() -> bytes:
    """The sentence as 16-bit WAV, as Home Assistant writes it."""
    samples, rate = soundfile.read(SPEECH, dtype="int16")
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return stream.getvalue()


@pytest.fixture(scope="module")
def webm(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The sentence as browsers record it: Opus in WebM."""
    path: Path = tmp_path_factory.mktemp("media") / "speech.webm"
    samples, rate = soundfile.read(SPEECH, dtype="int16")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libopus", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
        frame.rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return path.read_bytes()


class Part:
    """A part of a form: its headers as they are sent, and its content."""

    def __init__(self, content: bytes | str, *headers: str) -> None:
        self.content = content if isinstance(content, bytes) else content.encode()
        self.headers = headers


def form(boundary: str, parts: Sequence[Part]) -> bytes:
    lines = []
    for part in parts:
        head = "".join(f"{header}\r\n" for header in part.headers)
        lines.append(f"--{boundary}\r\n{head}\r\n".encode() + part.content + b"\r\n")
    return b"".join(lines) + f"--{boundary}--\r\n".encode()


def exchange(
    server: Running, headers: Sequence[str], body: bytes, *, chunked: bool = False
) -> tuple[int, Any]:
    """Sends the headers and the body, and gives the status and the JSON of the answer."""
    size = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    lines = [f"POST {PATH} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", *headers, size, "", ""]
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall("\r\n".join(lines).encode())
        if "Expect: 100-continue" in headers:
            assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        for start in range(0, len(body), 16_384):
            block = body[start : start + 16_384]
            connection.sendall(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
        if chunked:
            connection.sendall(b"0\r\n\r\n")
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, json.loads(response.read())


def field(name: str, value: str, *headers: str) -> Part:
    return Part(value, f'Content-Disposition: form-data; name="{name}"', *headers)


OPEN_WEBUI = (
    "User-Agent: python-requests/2.32.4",
    "Accept-Encoding: gzip, deflate, br",
    "Accept: */*",
    "Connection: keep-alive",
    "Authorization: Bearer ",  # where no key is set
    "X-OpenWebUI-User-Name: J%C3%B8rgen",
    "X-OpenWebUI-User-Role: admin",
    "Content-Type: multipart/form-data; boundary=0123456789abcdef0123456789abcdef",
)


def open_webui(server: Running, audio: bytes, language: str | None) -> tuple[int, Any]:
    name = "2f1f5b5e-8f0a-4b9e-9e55-0d8ff9ac3e11.wav"
    parts = [field("model", "whisper-1")]
    parts += [] if language is None else [field("language", language)]
    parts += [Part(audio, f'Content-Disposition: form-data; name="file"; filename="{name}"')]
    return exchange(server, OPEN_WEBUI, form("0123456789abcdef0123456789abcdef", parts))


def test_open_webui(server: Running, recording: bytes, webm: bytes) -> None:
    for audio in (recording, webm):  # it calls what a browser records a wav, too
        for language in ("en", "en-US", None):
            status, answer = open_webui(server, audio, language)
            assert status == 200
            assert answer["text"].startswith(TEXT)
    # If a request with a language fails it sends another one without.
    status, answer = open_webui(server, recording, "de")
    assert status == 400
    assert "German" in answer["error"].get("message", "").title()


AXIOS_BOUNDARY = "-" * 26 + "123456789012345678901234"
AXIOS = (
    "Accept: application/json, text/plain, */*",
    f"Content-Type: multipart/form-data; boundary={AXIOS_BOUNDARY}",
    "Authorization: Bearer sk-none",
    "User-Agent: axios/1.8.2",
    "Accept-Encoding: gzip, compress, deflate, br",
    "Connection: close",
)


@pytest.mark.parametrize("language", [None, "en"])
def test_librechat(server: Running, webm: bytes, language: str | None) -> None:
    """A stream without a length, first of all, in chunks."""
    head = 'Content-Disposition: form-data; name="file"; filename="audio.webm"'
    parts = [Part(webm, head, "Content-Type: video/webm"), field("model", "whisper-1")]
    parts += [] if language is None else [field("language", language)]
    body = form(AXIOS_BOUNDARY, parts)
    status, answer = exchange(server, AXIOS, body, chunked=True)
    assert status == 200
    assert answer["text"].strip().startswith(TEXT)


HTTPX = (
    "Accept: */*",
    "Accept-Encoding: gzip, deflate, br",
    "Connection: keep-alive",
    "User-Agent: HomeAssistant/2026.11.1 httpx/0.28.1 Python/3.13",
    "Authorization: Bearer none",
    "Content-Type: multipart/form-data; boundary=89abcdef0123456789abcdef01234567",
)


@pytest.mark.parametrize("language", ["en", "en-GB", "de"])
def test_home_assistant_with_httpx(server: Running, recording: bytes, language: str) -> None:
    """openai_stt: all fields, the file first, an empty prompt among them."""
    head = 'Content-Disposition: form-data; name="file"; filename="whisper_audio.wav"'
    parts = [
        Part(recording, head, "Content-Type: audio/wav"),
        field("model", "gpt-4o-mini-transcribe"),
        field("language", language),
        field("prompt", ""),
        field("temperature", "0"),
        field("response_format", "json"),
    ]
    body = form("89abcdef0123456789abcdef01234567", parts)
    status, answer = exchange(server, HTTPX, body)
    if language == "de":
        assert status == 400
        assert answer["error"]["message"]
    else:
        assert status == 200
        assert answer.get("text", "").strip().startswith(TEXT)


def test_home_assistant_with_the_openai_package(server: Running, recording: bytes) -> None:
    """local_openai_stt and openai_whisper_cloud."""

    async def transcribe() -> Any:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            return await client.audio.transcriptions.create(
                model="whisper-1",
                file=("audio.wav", recording, "audio/wav"),
                response_format="json",
                temperature=0.0,
                prompt="Turn on the light in the kitchen.",
                language="en",
            )

    text = getattr(asyncio.run(transcribe()), "text", None)
    assert text is not None
    assert text.startswith(TEXT)


@pytest.mark.parametrize("streamed", [False, True])
def test_wyoming_openai(server: Running, recording: bytes, streamed: bool) -> None:
    """A stream with a name, and `stream` even where it is false."""

    class Named(io.BytesIO):
        name = "recording.wav"

    async def transcribe() -> str:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            answer = await client.audio.transcriptions.create(
                file=Named(recording),
                model="whisper-1",
                response_format="json",
                stream=streamed,
            )
            if isinstance(answer, openai.AsyncStream):
                return "".join([e.delta async for e in answer if e.type == "transcript.text.delta"])
            assert not isinstance(answer, str)
            return answer.text

    assert asyncio.run(transcribe()).startswith(TEXT)


def test_silence_of_home_assistant(server: Running) -> None:
    stream = io.BytesIO()
    soundfile.write(stream, np.zeros(16_000, np.int16), 16_000, format="WAV")
    assert open_webui(server, stream.getvalue(), None) == (
        200, {"text": "", "usage": {"type": "duration", "seconds": 1.0}},
    )  # fmt: skip


def test_aiohttp(server: Running, recording: bytes) -> None:
    """Every part has a Content-Type, and a name that is not ASCII comes twice."""
    text = "Content-Type: text/plain; charset=utf-8"
    head = (
        'Content-Disposition: form-data; name="file"; filename="aufnahme.wav"; '
        "filename*=utf-8''K%C3%BCche.wav"
    )
    parts = [
        Part("whisper-1", text, 'Content-Disposition: form-data; name="model"'),
        Part("en", text, 'Content-Disposition: form-data; name="language"'),
        Part(recording, "Content-Type: audio/wav", head),
    ]
    boundary = "fedcba9876543210fedcba9876543210"
    headers = (
        "User-Agent: Python/3.13 aiohttp/3.12.15",
        "Accept: */*",
        f"Content-Type: multipart/form-data; boundary={boundary}",
    )
    status, answer = exchange(server, headers, form(boundary, parts))
    assert status == 200
    assert answer["text"].startswith(TEXT)


def test_curl(server: Running, recording: bytes) -> None:
    """From a megabyte on it waits until the server wants the body."""
    head = 'Content-Disposition: form-data; name="file"; filename="talk.wav"'
    boundary = "------------------------hWL0qWWUvlVPAQKyNUqCHv"
    parts = [Part(recording, head, "Content-Type: audio/wav"), field("model", "whisper-1")]
    headers = ("User-Agent: curl/8.14.1", "Accept: */*", "Expect: 100-continue",
               f"Content-Type: multipart/form-data; boundary={boundary}")  # fmt: skip
    status, answer = exchange(server, headers, form(boundary, parts))
    assert status == 200
    assert answer["text"].startswith(TEXT)


@pytest.mark.parametrize("kind", ["audio/webm;codecs=opus", "audio/wav", "video/mp4", ""])
def test_a_page_in_a_browser(serve: Serve, webm: bytes, kind: str) -> None:
    page = "http://192.168.1.5:3000"
    server = serve(origins=[page], api_key="secret")
    boundary = "----WebKitFormBoundary7MA4YWxkTrZu0gW"
    head = 'Content-Disposition: form-data; name="file"; filename="blob"'
    parts = [
        Part(webm, head, *([f"Content-Type: {kind}"] if kind else [])),
        field("model", "whisper-1"),
        field("response_format", "verbose_json"),
        field("timestamp_granularities[]", "word"),
    ]
    headers = (
        "Accept: */*",
        f"Origin: {page}",
        "Sec-Fetch-Mode: cors",
        "Authorization: Bearer secret",
        f"Content-Type: multipart/form-data; boundary={boundary}",
    )
    status, answer = exchange(server, headers, form(boundary, parts))
    assert status == 200
    assert answer["words"][0]["word"] == "A"
