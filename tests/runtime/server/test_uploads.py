"""Uploads: limits while they are read, damaged forms, slow and vanishing clients."""

from __future__ import annotations

import json
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
import soundfile

from baldwhisper_mlx.server import listening, uploads
from tests.runtime.server.conftest import SPEECH, Running, Serve, is_free
from tests.support.tiny_media import audio_frames

PATH = "/v1/audio/transcriptions"
BOUNDARY = "b0undary"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def connect(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def head(server: Running, *lines: str) -> bytes:
    first = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
    return (first + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode()


def answer(connection: socket.socket) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    received = b""
    while True:
        data = connection.recv(65536)
        received += data
        start, _, body = received.partition(b"\r\n\r\n")
        try:
            return int(start.split()[1]), json.loads(body)
        except (IndexError, ValueError):
            if not data:
                raise ConnectionError(f"no answer: {received!r}") from None


def post(server: Running, body: bytes, kind: str = TYPE) -> tuple[int, Any]:
    with connect(server) as connection:
        connection.sendall(
            head(server, f"Content-Type: {kind}", f"Content-Length: {len(body)}") + body
        )
        return answer(connection)


def is_closed(connection: socket.socket) -> bool:
    """Whether the server closes it, without an answer."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of temporary files, which is empty in the end."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def test_a_raw_form(server: Running, temporary: Path) -> None:
    status, body = post(server, form(part("file", SPEECH.read_bytes(), "../../x")))
    assert status == 200
    assert body["text"]


def test_the_content_decides_the_format(server: Running, tmp_path: Path) -> None:
    samples, rate = soundfile.read(SPEECH, dtype="float32")
    path = tmp_path / "speech.webm"
    _write_webm(path, samples, rate)
    status, body = post(server, form(part("file", path.read_bytes(), "speech.wav")))
    assert status == 200
    assert "model" in body["text"]


def _write_webm(path: Path, samples: Any, rate: int) -> None:
    with av.open(str(path), "w", format="webm") as output:
        stream = output.add_stream("libopus", rate=48_000, layout="mono")
        resampler = av.AudioResampler("flt", "mono", 48_000)
        for frame in resampler.resample(audio_frames(samples, rate)):
            for packet in stream.encode(frame):
                output.mux(packet)
        for packet in stream.encode(None):
            output.mux(packet)


@pytest.mark.parametrize(("kind", "status"), [
    ("application/json", 415), ("text/plain", 415), ("", 415),
    ("multipart/form-data", 400), ("multipart/form-data; boundary=", 400),
    (f"multipart/form-data; boundary={'x' * 3000}", 400),
])  # fmt: skip
def test_no_form(server: Running, kind: str, status: int) -> None:
    found, body = post(server, form(part("file", b"x", "x")), kind)
    assert found == status
    assert body["error"]["type"] == "invalid_request_error"


DAMAGED = [
    b"",
    b"no form at all",
    f"--{BOUNDARY}\r\n\r\nno headers\r\n--{BOUNDARY}--".encode(),
    part("file", b"never ends", "x"),
    form(part("file", b"two", "x"), part("file", b"files", "y")),
    form(part("prompt", b"x" * 70_000), part("file", b"x", "x")),
    form(*[part(f"f{i}", b"x") for i in range(300)]),
    f"--{BOUNDARY}\r\nX: {'x' * 100_000}\r\n\r\nx\r\n--{BOUNDARY}--".encode(),
    b"\x00" * 10_000,
    form(part("file", SPEECH.read_bytes())),  # a field, not a file
    form(part("model", b"whisper-1")),
]


@pytest.mark.parametrize("body", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_forms(server: Running, temporary: Path, body: bytes) -> None:
    status, found = post(server, body)
    assert status == 400
    assert set(found["error"]) == {"message", "type", "param", "code"}
    assert is_free(server)


def test_a_length_that_is_too_large_is_refused_at_once(serve: Serve, temporary: Path) -> None:
    server = serve(max_upload=10_000)
    for length in ("10000000000", "9" * 19):
        with connect(server) as connection:
            connection.sendall(head(server, f"Content-Type: {TYPE}", f"Content-Length: {length}"))
            status, body = answer(connection)
        assert (status, body["error"]["param"]) == (413, "file")
    assert is_free(server)


def test_the_limit_is_enforced_while_reading(serve: Serve, temporary: Path) -> None:
    server = serve(max_upload=10_000)
    assert post(server, form(part("file", b"x" * 10_001, "x")))[0] == 413
    assert post(server, form(part("file", b"x" * 10_000, "x")))[0] == 400  # no audio
    with connect(server) as connection:
        lines = (f"Content-Type: {TYPE}", "Transfer-Encoding: chunked")
        connection.sendall(head(server, *lines))
        data = part("file", b"", "x")[:-2]
        connection.sendall(b"%x\r\n%s\r\n" % (len(data), data))
        block, sent = b"x" * 65536, 0
        try:
            while sent < 100 * 2**20:  # never ends by itself
                connection.sendall(b"%x\r\n%s\r\n" % (len(block), block))
                sent += len(block)
        except OSError:
            pass
        assert sent < 50 * 2**20
    assert is_free(server)


def test_clients_that_vanish_while_they_send(server: Running, temporary: Path) -> None:
    body = form(part("file", SPEECH.read_bytes(), "x"))
    for _ in range(5):
        connection = connect(server)
        lines = (f"Content-Type: {TYPE}", f"Content-Length: {len(body)}")
        connection.sendall(head(server, *lines) + body[: len(body) // 2])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()  # as the system does for a killed program
    assert is_free(server)
    assert post(server, body)[0] == 200


def test_slow_bodies_end(serve: Serve, monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    monkeypatch.setattr(uploads, "BLOCK_SECONDS", 0.2)
    server = serve()
    with connect(server) as connection:
        connection.sendall(head(server, f"Content-Type: {TYPE}", "Content-Length: 1000") + b"--")
        assert answer(connection)[0] == 408
    assert is_free(server)


def test_a_trickle_ends(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "_SECONDS", 0.2)
    server = serve()
    with connect(server) as connection:
        begin = head(server, f"Content-Type: {TYPE}", "Content-Length: 1000")
        connection.sendall(begin + part("file", b"", "x"))
        for _ in range(20):
            try:
                connection.sendall(b"-")
            except OSError:
                break
            time.sleep(0.05)
        assert answer(connection)[0] == 408
    assert is_free(server)


@pytest.mark.parametrize("sent", [b"", b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nA: "])
def test_slow_headers_end_the_connection(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(listening, "HEADER_SECONDS", 0.2)
    server = serve()
    with connect(server) as connection:
        connection.sendall(sent)
        assert is_closed(connection)
    # Also behind a request that was answered.
    with connect(server) as connection:
        connection.sendall(
            f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
        )
        assert answer(connection)[0] == 200
        connection.sendall(sent or b"GET")
        assert is_closed(connection)


def test_many_headers_are_refused(server: Running) -> None:
    with connect(server) as connection:
        connection.sendall(head(server, *[f"X-{i}: {'x' * 1000}" for i in range(100)])[:-2])
        assert b"400" in connection.recv(100)
