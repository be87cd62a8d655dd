"""A double of OpenAI's audio API behind the page, whose answers follow the name of the file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from baldwhisper_mlx.server.page import page_routes

SEGMENTS = [
    {"id": 0, "start": 0.0, "end": 1.2, "text": " One small <step>,"},
    {"id": 1, "start": 1.2, "end": 2.5, "text": " one & all."},
]
WORDS = [
    {"word": "One", "start": 0.1, "end": 0.4},
    {"word": "small", "start": 0.4, "end": 0.8},
    {"word": "<step>,", "start": 0.8, "end": 1.2},
    {"word": "one", "start": 1.3, "end": 1.6},
    {"word": "&", "start": 1.6, "end": 1.8},
    {"word": "all.", "start": 1.8, "end": 2.4},
]
TEXT = "One small <step>, one & all."
ARABIC = "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643\u0645"
N_DELTAS = 600
"""Of long.wav."""


def error(status: int, message: str, param: str | None = None) -> JSONResponse:
    """An error in OpenAI's shape."""
    body = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
    return JSONResponse({"error": body}, status)


@dataclass
class Double:
    """The double; `proceed` releases the answers that wait."""

    key: str | None = None
    proceed: threading.Event = field(default_factory=threading.Event)
    requests: list[dict[str, str]] = field(default_factory=list)
    """The text fields of each request, and the name and size of its file."""
    max_upload: int = 10**6
    realtime: bool = True
    """Whether there are live captions."""
    received: list[dict[str, Any]] = field(default_factory=list)
    """Events of the websocket."""
    _to_send: queue.Queue[dict[str, Any] | None] = field(default_factory=queue.Queue)

    def app(self) -> Starlette:
        """The page and the API."""
        routes: list[BaseRoute] = [
            *page_routes(max_upload=self.max_upload),
            Route("/v1/models", self.models),
            Route("/v1/audio/transcriptions", self.transcribe, methods=["POST"]),
            Route("/v1/audio/translations", self.translate, methods=["POST"]),
        ]
        if self.realtime:
            routes.append(WebSocketRoute("/v1/realtime", self.captions))
        return Starlette(routes=routes)

    def say(self, kind: str, **values: Any) -> None:
        """Sends an event over the websocket."""
        self._to_send.put({"type": kind, **values})

    def hang_up(self) -> None:
        """Closes the websocket."""
        self._to_send.put(None)

    async def captions(self, socket: WebSocket) -> None:
        """WS /v1/realtime: what a test lets it say."""
        wanted = [] if self.key is None else [f"openai-insecure-api-key.{self.key}"]
        if [unquote(name) for name in socket.scope["subprotocols"]] != ["realtime", *wanted]:
            await socket.close()  # before it is accepted: the browser gets the status 403
            return
        await socket.accept("realtime")
        sending = asyncio.create_task(self._send_events(socket))
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                self.received.append(await socket.receive_json())
        sending.cancel()

    async def _send_events(self, socket: WebSocket) -> None:
        await socket.send_json({"type": "session.created", "session": {}})
        while True:
            with contextlib.suppress(queue.Empty):
                event = self._to_send.get_nowait()
                if event is None:
                    await socket.close(1011)
                    return
                await socket.send_json(event)
            await asyncio.sleep(0.01)

    def refused(self, request: Request) -> Response | None:
        """The answer to a request without the key."""
        if self.key is None or request.headers.get("authorization") == f"Bearer {self.key}":
            return None
        return error(401, "send the server's API key")

    def models(self, request: Request) -> Response:
        """GET /v1/models."""
        data = [{"id": name, "object": "model"} for name in ("first", "second")]
        return self.refused(request) or JSONResponse({"object": "list", "data": data})

    async def transcribe(self, request: Request) -> Response:
        """POST /v1/audio/transcriptions."""
        return await self.answer(request, "transcribe")

    async def translate(self, request: Request) -> Response:
        """POST /v1/audio/translations."""
        return await self.answer(request, "translate")

    async def answer(self, request: Request, task: str) -> Response:
        """The transcript that this double always gives, or the error that the name asks for."""
        if refused := self.refused(request):
            return refused
        form = await request.form()
        fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
        file = form["file"]
        assert not isinstance(file, str)
        name, size = file.filename or "", len(await file.read())
        self.requests.append({**fields, "task": task, "name": name, "size": str(size)})
        if name == "notes.wav":
            return error(400, "file: this is no audio; send a recording", "file")
        if fields.get("stream") == "true":
            return StreamingResponse(self.events(name), media_type="text/event-stream")
        words = WORDS if task == "transcribe" else None
        body = {"task": task, "language": "english", "duration": 2.5, "text": TEXT}
        body |= {"segments": SEGMENTS} | ({"words": words} if words else {})
        headers = {"X-Baldwhisper-Warnings": '["a packet is damaged", "it ends early"]'}
        return JSONResponse(body, headers=headers if name == "damaged.wav" else None)

    async def events(self, name: str) -> AsyncIterator[str]:
        """The stream: slow.wav waits in the middle, halfway.wav and broken.wav end there."""

        def event(**data: object) -> str:
            return f"data: {json.dumps(data)}\n\n"

        if name == "arabic.wav":
            words = [
                {"word": word, "start": at, "end": at + 1} for at, word in enumerate(ARABIC.split())
            ]
            segments = [{"id": 0, "start": 0, "end": 2, "text": ARABIC}]
            times = {"segments": segments, "words": words, "language": "arabic", "duration": 2.5}
            yield event(type="transcript.text.done", text=ARABIC, **times)
            return
        for _ in range(N_DELTAS if name == "long.wav" else 0):
            yield event(type="transcript.text.delta", delta="and so on ")
        yield event(type="transcript.text.delta", delta=TEXT[:4])
        yield event(type="transcript.text.delta", delta=TEXT[4:17])
        if name == "halfway.wav":
            failure = {"error": {"message": "the decoder failed", "type": "server_error"}}
            yield f"event: error\ndata: {json.dumps(failure)}\n\n"
            return
        while name == "slow.wav" and not self.proceed.is_set():
            await asyncio.sleep(0.02)
        if name in ("broken.wav", "parts.wav"):
            yield event(type="baldwhisper.segments", segments=SEGMENTS[:1], words=WORDS[:3])
        while name in ("broken.wav", "parts.wav") and not self.proceed.is_set():
            await asyncio.sleep(0.02)
        if name == "broken.wav":
            raise RuntimeError("the connection breaks")
        if name == "parts.wav":
            yield event(type="baldwhisper.segments", segments=SEGMENTS[1:], words=WORDS[3:])
        yield event(type="transcript.text.delta", delta=TEXT[17:])
        times = {"segments": SEGMENTS, "words": WORDS, "language": "english", "duration": 2.5}
        if name == "damaged.wav":
            times["warnings"] = ["a packet is damaged", "it ends early"]
        yield event(type="transcript.text.done", text=TEXT, **times)


@contextlib.contextmanager
def served(app: Starlette) -> Iterator[str]:
    """Runs an application in a thread, and gives its address."""
    config = uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            thread.join(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
