"""Clients that do not read their answers lose their places; slow ones get everything."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from starlette.responses import Response

from baldwhisper_mlx.server import slow_readers, transcriptions
from tests.runtime.server.conftest import SPEECH, Running, Serve, is_free
from tests.runtime.server.test_uploads import TYPE, connect, form, head, part

SIZE = 2**25
"""Bytes of an answer: more than any buffer of a system."""


@pytest.fixture
def large_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_readers, "READING_SECONDS", 0.3)
    monkeypatch.setattr(transcriptions, "answer", lambda *_: Response(b"x" * SIZE))
    monkeypatch.setattr(transcriptions, "event_bytes", lambda *_: b"x" * SIZE)


def send(server: Running, *fields: bytes) -> socket.socket:
    body = form(part("file", SPEECH.read_bytes(), "x"), *fields)
    connection = connect(server)
    connection.sendall(head(server, f"Content-Type: {TYPE}", f"Content-Length: {len(body)}") + body)
    return connection


@pytest.mark.usefixtures("large_answers")
@pytest.mark.parametrize("fields", [(), (part("stream", b"true"),)], ids=["answer", "events"])
def test_those_who_do_not_read(serve: Serve, fields: Any) -> None:
    server = serve()
    with send(server, *fields) as connection:
        assert connection.recv(10)
        assert is_free(server)
        time.sleep(1.0)
        received = 10
        try:
            while data := connection.recv(2**20):
                received += len(data)
        except ConnectionResetError:
            pass
        assert received < SIZE


@pytest.mark.usefixtures("large_answers")
def test_those_who_read_slowly(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    # The system takes more from the server only when a third of its buffer, megabytes, is free.
    monkeypatch.setattr(slow_readers, "READING_SECONDS", 1.0)
    server = serve()
    with send(server) as connection:
        received, begun = 0, time.monotonic()
        while received < SIZE:
            data = connection.recv(2**16)
            assert data, "the connection was closed"
            received += len(data)
            if time.monotonic() - begun < 3:
                time.sleep(0.02)
    assert is_free(server)


def test_what_is_left_behind_an_answer(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is complete for the server, but the client never reads the end of it."""
    ended: list[bool] = []

    class Noted(slow_readers.ReadersProtocol):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            ended.append(True)

    monkeypatch.setattr(slow_readers, "READING_SECONDS", 0.3)
    monkeypatch.setattr("baldwhisper_mlx.server.listening.TimedProtocol", Noted)
    server = serve()
    with connect(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = f"GET /page/main.js HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
        connection.settimeout(0.5)
        try:
            while True:  # until the server does not take any more, because nobody reads
                connection.sendall(request * 1000)
        except OSError:
            pass
        deadline = time.monotonic() + 20
        while not ended and time.monotonic() < deadline:
            time.sleep(0.01)
    assert ended
