"""Connections: who may open one, how many there are, how fast clients send, and how they end."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.server import listening, worker
from baldwhisper_mlx.server.app import Settings, create_app
from baldwhisper_mlx.server.jobs import Job
from baldwhisper_mlx.server.models import Models
from baldwhisper_mlx.server.realtime import session
from baldwhisper_mlx.server.realtime.endpoint import most_sessions
from baldwhisper_mlx.server.realtime.inbox import MOST_WAITING
from baldwhisper_mlx.server.realtime.messages import MOST_AUDIO
from baldwhisper_mlx.server.realtime.stream import SessionStream
from tests.runtime.server.conftest import SPEECH, Running, Serve, running
from tests.runtime.server.realtime.conftest import CONTENT, pcm

KEY = "openai-insecure-api-key."


def open_session(server: Running, **options: Any) -> Any:
    url = f"ws://127.0.0.1:{server.port}/v1/realtime?intent=transcription"
    return connect(url, open_timeout=30, close_timeout=30, **options)


def created(connection: ClientConnection) -> bool:
    return bool(json.loads(connection.recv(30))["type"] == "session.created")


def append(data: bytes) -> str:
    audio = base64.b64encode(data).decode()
    return json.dumps({"type": "input_audio_buffer.append", "audio": audio})


def status_of(server: Running, **options: Any) -> int:
    """The status with which a connection is refused; 101 if it is not."""
    try:
        with open_session(server, **options) as connection:
            assert created(connection)
            return 101
    except InvalidStatus as error:
        if error.response.status_code != 404:
            body = json.loads(error.response.body)
            assert body["error"]["code"] in ("unknown_host", "unknown_origin", "invalid_api_key")
        return error.response.status_code


def n_sessions(server: Running) -> int:
    """How many are open."""
    return int(server.app.state.realtime.n_sessions)


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize(("origin", "status"), [
    (None, 101), ("own", 101), ("https://app.example.org", 101), ("https://evil.org", 403),
    ("null", 403), ("http://127.0.0.1:1", 403),
])  # fmt: skip
def test_origins(serve: Serve, origin: str | None, status: int) -> None:
    server = serve(origins=["https://app.example.org"])
    assert status_of(server, origin=server.url if origin == "own" else origin) == status


@pytest.mark.parametrize(("forwarded", "status"), [("https", 101), ("http", 403)])
def test_its_own_pages_behind_a_proxy_with_tls(
    server: Running, forwarded: str, status: int
) -> None:
    headers = {"X-Forwarded-Proto": forwarded}
    origin = server.url.replace("http:", "https:")
    assert status_of(server, origin=origin, additional_headers=headers) == status


def test_hosts(server: Running) -> None:
    with contextlib.closing(socket.create_connection(("127.0.0.1", server.port))) as taken:
        url = f"ws://evil.org:{server.port}/v1/realtime?intent=transcription"
        with pytest.raises(InvalidStatus) as caught, connect(url, sock=taken):
            pass
    assert caught.value.response.status_code == 403


@pytest.mark.parametrize(("headers", "subprotocols", "status"), [
    ({}, None, 401),
    ({}, ["realtime"], 401),
    ({"Authorization": "Bearer s%c=t"}, None, 101),
    ({"Authorization": "Bearer wrong"}, None, 401),
    ({"Authorization": "Basic s%c=t"}, None, 401),
    ({}, ["realtime", f"{KEY}s%25c%3Dt"], 101),
    ({}, ["realtime", f"{KEY}s%25c"], 401),
    ({}, ["realtime", KEY], 401),
    ({}, ["realtime", "s%25c%3Dt"], 401),
    ({"Authorization": "Bearer wrong"}, ["realtime", f"{KEY}s%25c%3Dt"], 101),
])  # fmt: skip
def test_keys(serve: Serve, headers: dict[str, str], subprotocols: Any, status: int) -> None:
    server = serve(api_key="s%c=t")
    assert status_of(server, additional_headers=headers, subprotocols=subprotocols) == status


def test_the_subprotocol_is_the_protocol(serve: Serve) -> None:
    server = serve(api_key="secret%41")
    with open_session(server, subprotocols=[f"{KEY}secret%41", "realtime"]) as connection:
        assert connection.subprotocol == "realtime"


def test_a_server_without_answers_to_handshakes_closes(bundled: LoadedModel) -> None:
    app = create_app(Models([("tiny-en", bundled)]), Settings(api_key="secret"))
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "scheme": "ws", "path": "/v1/realtime", "subprotocols": [],
             "headers": [(b"host", b"localhost")], "query_string": b""}  # fmt: skip
    with TestClient(app) as client:
        assert client.portal is not None
        client.portal.call(app, scope, None, send)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "invalid_api_key"}]


def test_every_send_to_who_went_away_says_so() -> None:
    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            raise OSError

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def twice() -> None:
        scope = {"type": "websocket", "headers": [], "path": "/"}
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        for _ in range(2):
            with pytest.raises(WebSocketDisconnect):
                await session.send_event(websocket, {"type": "error"})

    asyncio.run(twice())


def test_other_paths_take_no_websocket(server: Running) -> None:
    url = f"ws://127.0.0.1:{server.port}/v1/models"
    with pytest.raises(InvalidStatus) as caught, connect(url):
        pass
    assert caught.value.response.status_code == 403


def test_the_limit_for_headers_is_none_for_sessions(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "HEADER_SECONDS", 0.3)
    with open_session(serve()) as connection:
        assert created(connection)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.send("{}")
        assert json.loads(connection.recv(30))["type"] == "error"


@pytest.mark.parametrize(("max_queue", "most"), [(0, 1), (7, 1), (32, 8)])
def test_a_share_of_the_queue(max_queue: int, most: int) -> None:
    assert most_sessions(max_queue) == most


def test_too_many_sessions(serve: Serve) -> None:
    server = serve(max_queue=8)
    with open_session(server) as first, open_session(server) as second:
        assert created(first)
        assert created(second)
        with open_session(server) as third:
            error = json.loads(third.recv(30))["error"]
            assert (error["type"], error["code"]) == ("rate_limit_error", "too_many_sessions")
            with pytest.raises(ConnectionClosed):
                third.recv(30)
            assert third.close_code == 1013
    assert eventually(lambda: n_sessions(server) == 0)
    with open_session(server) as fourth:
        assert created(fourth)


def test_who_sends_nothing_is_disconnected(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "IDLE_SECONDS", 0.3)
    server = serve()
    with open_session(server) as connection:
        assert created(connection)
        assert json.loads(connection.recv(30))["error"]["code"] == "session_idle"
        with pytest.raises(ConnectionClosed):
            connection.recv(30)
        assert connection.close_code == 1000
    assert eventually(lambda: n_sessions(server) == 0)


def test_who_waits_for_a_text_is_not_idle(
    serve: Serve, speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "IDLE_SECONDS", 0.3)
    proceed, transcribe = threading.Event(), worker.transcribe_windows

    def later(*args: Any) -> Any:
        proceed.wait(60)
        return transcribe(*args)

    monkeypatch.setattr(worker, "transcribe_windows", later)
    with open_session(serve()) as connection:
        assert created(connection)
        manual = {"turn_detection": None}
        connection.send(json.dumps({"type": "session.update", "session": manual}))
        connection.send(append(pcm(speech)))
        connection.send(json.dumps({"type": "input_audio_buffer.commit"}))
        time.sleep(1)
        proceed.set()
        kinds = [json.loads(message)["type"] for message in connection]
    assert kinds[-2:] == [f"{CONTENT}.completed", "error"]


def test_messages_that_are_too_large(server: Running) -> None:
    with open_session(server) as connection:
        assert created(connection)
        connection.send(append(b"\0" * (MOST_AUDIO + 2)))
        assert json.loads(connection.recv(30))["error"]["param"] == "audio"
        with contextlib.suppress(ConnectionClosed):
            connection.send(append(b"\0" * (MOST_AUDIO + 2**18)))
        with pytest.raises(ConnectionClosed):
            connection.recv(30)
        # The rest of the message may keep the close code from coming through.
        assert connection.close_code in (1009, 1006)
    with open_session(server) as connection:
        assert created(connection)


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Sessions that decode nothing until the end of the test; the bytes of audio of each call."""
    proceed, sizes = threading.Event(), []

    def feed(self: SessionStream, data: bytes) -> list[Any]:
        sizes.append(len(data))
        proceed.wait(120)
        return []

    monkeypatch.setattr(SessionStream, "feed", feed)
    yield sizes
    proceed.set()


def test_who_sends_too_fast_waits(serve: Serve, blocked: list[int]) -> None:
    server, n_sent = serve(), 0
    message = append(b"\0" * 2**19)

    def send(connection: ClientConnection) -> None:
        nonlocal n_sent
        with contextlib.suppress(ConnectionClosed, OSError):
            for _ in range(200):
                connection.send(message)
                n_sent += 1

    with open_session(server) as connection:
        assert created(connection)
        sender = threading.Thread(target=send, args=(connection,), daemon=True)
        sender.start()
        before = -1
        while before != n_sent or n_sent == 0:
            before = n_sent
            sender.join(1)
        # What the sockets hold is beside what the server does.
        assert n_sent * 2**19 < MOST_WAITING + 2**24
        connection.socket.shutdown(socket.SHUT_RDWR)
        sender.join(60)


def test_sessions_do_not_hinder_requests(serve: Serve, blocked: list[int], speech: Samples) -> None:
    server = serve()
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            connection = stack.enter_context(open_session(server))
            assert created(connection)
            connection.send(append(pcm(speech)))
        assert eventually(lambda: len(blocked) > 0)
        client = server.client(timeout=30)
        assert client.audio.transcriptions.create(file=SPEECH, model="whisper-1").text


def test_who_goes_away_frees_its_place(serve: Serve, speech: Samples) -> None:
    server = serve()
    connection = open_session(server)
    with connection as opened:
        assert created(opened)
        opened.send(append(pcm(speech)))
        opened.socket.shutdown(socket.SHUT_RDWR)
    assert eventually(lambda: n_sessions(server) == 0)


def test_who_goes_away_ends_its_transcription(
    serve: Serve, speech: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Job] = []
    submit = worker.Worker.submit

    def watched(self: worker.Worker, job: Job) -> None:
        jobs.append(job)
        submit(self, job)

    proceed = threading.Event()
    transcribe = worker.transcribe_windows
    monkeypatch.setattr(worker.Worker, "submit", watched)
    monkeypatch.setattr(
        worker, "transcribe_windows", lambda *args: (proceed.wait(60), transcribe(*args))[1]
    )
    server = serve()
    with open_session(server) as connection:
        assert created(connection)
        manual = {"turn_detection": None}
        connection.send(json.dumps({"type": "session.update", "session": manual}))
        connection.send(append(pcm(speech)))
        connection.send(json.dumps({"type": "input_audio_buffer.commit"}))
        assert eventually(lambda: len(jobs) == 1)
    assert eventually(lambda: jobs[0].is_cancelled)
    proceed.set()
    assert eventually(lambda: n_sessions(server) == 0)


def test_who_takes_no_events_is_disconnected(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SEND_SECONDS", 0.5)
    monkeypatch.setattr(listening, "_CLOSE_SECONDS", 0.5)
    server = serve()
    with contextlib.closing(socket.create_connection(("127.0.0.1", server.port))) as raw:
        raw.sendall(
            b"GET /v1/realtime?intent=transcription HTTP/1.1\r\nHost: localhost\r\n"
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert eventually(lambda: n_sessions(server) == 1)
        frame = bytes([0x81, 0x80 | 2, 0, 0, 0, 0]) + b"{}"
        raw.settimeout(60)
        with contextlib.suppress(ConnectionError):
            while True:
                raw.sendall(frame * 1000)
    assert eventually(lambda: n_sessions(server) == 0)


@pytest.mark.parametrize("busy", [False, True])
def test_sessions_end_with_the_server(bundled: LoadedModel, speech: Samples, busy: bool) -> None:
    with contextlib.ExitStack() as stack:
        stopping = stack.enter_context(contextlib.ExitStack())
        server = stopping.enter_context(running(Models([("tiny-en", bundled)])))
        connection = stack.enter_context(open_session(server))
        assert created(connection)
        if busy:
            for _ in range(5):
                connection.send(append(pcm(speech)))
        stopping.close()
        for _ in connection:
            pass
        assert connection.close_code == 1001
