"""What clients can do to a server: die, hold connections, and ask while it works."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any

import psutil
import pytest

from tests.runtime.server.conftest import SPEECH, Running, Serve, is_free
from tests.runtime.server.test_uploads import TYPE, form, head, part, post
from tests.support.long_speech import repeat_speech

CLIENT = """
import socket, sys, time
port, size = int(sys.argv[1]), int(sys.argv[2])
connection = socket.create_connection(("127.0.0.1", port))
connection.sendall(sys.stdin.buffer.read())
if size:
    while size > 0:
        size -= len(connection.recv(size))
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def minutes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A recording of several windows."""
    path = tmp_path_factory.mktemp("long") / "long.wav"
    return repeat_speech(SPEECH, path, 90).read_bytes()


def killed(server: Running, request: bytes, read: int = 0) -> None:
    """A client in a process of its own, killed when it has sent and read so much."""
    command = [sys.executable, "-c", CLIENT, str(server.port), str(read)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request)
        process.stdin.close()
        assert process.stdout.readline() == b"ready\n"
        assert is_taken(server)
        process.kill()


def is_taken(server: Running) -> bool:
    """Whether one place is taken, after a while."""
    deadline = time.monotonic() + 20
    while server.service.places.taken != 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    return server.service.places.taken == 1


def upload(server: Running, body: bytes) -> bytes:
    return head(server, f"Content-Type: {TYPE}", f"Content-Length: {len(body)}") + body


def descriptors() -> int:
    return int(psutil.Process().num_fds())


def settles_at(most: int) -> bool:
    deadline = time.monotonic() + 20
    while descriptors() > most and time.monotonic() < deadline:
        time.sleep(0.02)
    return descriptors() <= most


def test_killed_clients_give_back_what_they_hold(serve: Serve, minutes: bytes) -> None:
    server = serve()
    body = form(part("file", minutes, "x"), part("stream", b"true"))
    assert post(server, form(part("file", SPEECH.read_bytes(), "x")))[0] == 200
    before = descriptors()
    killed(server, upload(server, body)[: len(body) // 2])
    assert is_free(server)
    killed(server, upload(server, body), read=400)  # the headers, and the first event
    assert is_free(server)
    killed(server, upload(server, form(part("file", minutes, "x"))))
    assert is_free(server)
    assert settles_at(before)
    assert post(server, form(part("file", SPEECH.read_bytes(), "x")))[0] == 200


def test_no_request_leaves_a_file_open(serve: Serve) -> None:
    server = serve()
    speech = SPEECH.read_bytes()
    bodies = [
        form(part("file", speech, "../../etc/passwd")),
        form(part("file", speech + bytes(2**21), "x")),  # more than is kept in memory
        form(part("file", b"no audio" * 300_000, "x")),
        form(part("file", b"#EXTM3U\n/etc/passwd\n", "x.m3u8")),
        form(part("file", speech, "x"), part("language", b"xx")),
        form(part("file", speech, "x"), part("file", speech, "y")),
        form(part("file", speech, "x"))[:-10],
        form(part("file", b"", "x")),
    ]
    for body in bodies:
        post(server, body)
    assert is_free(server)
    time.sleep(0.2)
    before = descriptors()
    statuses = [post(server, body)[0] for _ in range(3) for body in bodies]
    assert statuses == [200, 200, 400, 400, 400, 400, 400, 400] * 3
    assert settles_at(before)


def test_idle_connections_do_not_stop_others(serve: Serve) -> None:
    server = serve()
    assert post(server, form(part("file", SPEECH.read_bytes(), "x")))[0] == 200
    before = descriptors()
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
        assert post(server, form(part("file", SPEECH.read_bytes(), "x")))[0] == 200
        assert is_free(server)
    assert settles_at(before)


def health(server: Running) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_health_while_a_recording_is_decoded(serve: Serve, minutes: bytes) -> None:
    server = serve()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        body = form(part("file", minutes, "x"), part("stream", b"true"))
        connection.sendall(upload(server, body))
        assert connection.recv(1000)
        for _ in range(5):
            assert health(server) == (200, {"status": "ok"})
            assert server.service.places.taken == 1
    assert is_free(server)


def test_health_of_a_server_whose_decoder_has_ended(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end() -> None:
        raise SystemExit

    server = serve()
    monkeypatch.setattr(server.service.worker, "_step", end)
    body = form(part("file", SPEECH.read_bytes(), "x"))
    assert post(server, body)[0] == 500
    assert post(server, body)[0] == 500
    status, found = health(server)
    assert status == 500
    assert found["error"]["code"] == "internal_error"
    assert is_free(server)
