"""One session: reads what the client sends, and processes it in its order.

Audio that arrives while some is processed waits, and is then processed at once, so that the newest
state is drafted. A thread that all sessions share decodes, and the event loop stays free.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from starlette.websockets import WebSocket, WebSocketDisconnect

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.server.errors import ApiError
from baldwhisper_mlx.server.places import cancel_all
from baldwhisper_mlx.server.realtime.commits import transcribed
from baldwhisper_mlx.server.realtime.events import Conversation, Event, Item, error_event, new_id
from baldwhisper_mlx.server.realtime.inbox import Inbox
from baldwhisper_mlx.server.realtime.messages import (
    BETA_UPDATE,
    CLEAR,
    COMMIT,
    ClientEvent,
    EventError,
    parse_message,
)
from baldwhisper_mlx.server.realtime.settings import SessionSettings, updated
from baldwhisper_mlx.server.realtime.stream import SessionStream
from baldwhisper_mlx.server.transcriptions import Service

_Result = TypeVar("_Result")
IDLE_SECONDS = 300.0
"""Until a client has to send something."""
SEND_SECONDS = 30.0
"""Until a client has to have taken an event."""
_BLOCK_SECONDS = 5
"""Of audio that are processed at once: the other sessions wait for it."""


class Session:
    """A session whose connection has been accepted.

    Args:
        websocket: the connection.
        service: shared with all requests.
        executor: whose thread decodes.
        settings: to begin with.
        is_beta: whether the client speaks the protocol of the beta.

    Raises:
        ApiError: there is no such model.
    """

    def __init__(
        self,
        websocket: WebSocket,
        service: Service,
        executor: Executor,
        settings: SessionSettings,
        *,
        is_beta: bool,
    ) -> None:
        self._websocket, self._service, self._executor = websocket, service, executor
        self._id = new_id("sess")
        self._conversation = Conversation(is_beta=is_beta)
        loaded = settings.find(service.models)
        self._stream = SessionStream(settings, loaded, self._conversation, service.max_upload)
        self._inbox = Inbox()
        self._transcription: asyncio.Task[None] | None = None
        """Of the last item that the client committed."""

    async def run(self) -> None:
        """Serves the client until it goes away.

        Raises:
            WebSocketDisconnect: it has. ApiError: it sent nothing for long.
        """
        await self._send([self._describe("created")])
        tasks = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._process())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            if self._transcription is not None:
                tasks.append(self._transcription)
            await cancel_all(tasks)

    async def _read(self) -> None:
        while True:
            try:
                message = await asyncio.wait_for(self._websocket.receive(), IDLE_SECONDS)
            except asyncio.TimeoutError:
                if self._is_busy():
                    continue
                text = f"nothing was sent for {IDLE_SECONDS:.0f} s"
                raise ApiError(408, text, code="session_idle") from None
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code") or 1005)
            try:
                event = parse_message(message)
            except EventError as error:
                await self._send([error_event(error, error.event_id)])
                continue
            await self._inbox.put(event)

    def _is_busy(self) -> bool:
        """Whether the client may be waiting for something."""
        transcribes = self._transcription is not None and not self._transcription.done()
        return bool(self._inbox) or transcribes

    async def _process(self) -> None:
        while True:
            form = self._stream.settings.format
            taken = await self._inbox.take(_BLOCK_SECONDS * form.rate * form.width)
            event_id = None if isinstance(taken, bytes) else taken.id
            try:
                if isinstance(taken, bytes):
                    await self._send(await self._in_thread(self._stream.feed, taken))
                else:
                    await self._handle(taken)
            except ApiError as error:
                await self._send([error_event(error, event_id)])

    async def _handle(self, event: ClientEvent) -> None:
        if event.type == CLEAR:
            await self._in_thread(self._stream.clear)
            await self._send([{"type": "input_audio_buffer.cleared"}])
        elif event.type != COMMIT:
            settings = updated(self._stream.settings, event.session)
            loaded = settings.find(self._service.models)
            await self._send(await self._in_thread(self._stream.change, settings, loaded))
            self._conversation.is_beta = event.type == BETA_UPDATE
            await self._send([self._describe("updated")])
        elif self._stream.settings.vad is not None:
            await self._send(await self._in_thread(self._stream.end_speech))
        else:
            await self._commit(*await self._in_thread(self._stream.take_buffer))

    async def _commit(self, item: Item, samples: Samples) -> None:
        await self._send(self._conversation.add(item))
        if self._transcription is not None:
            await self._transcription
        # With the settings of now: others may be in effect before it begins.
        settings, loaded = self._stream.settings, self._stream.loaded
        events = transcribed(self._service, samples, loaded, settings, item)
        self._transcription = asyncio.ensure_future(self._send_all(events))

    async def _send_all(self, events: AsyncGenerator[Event, None]) -> None:
        async with contextlib.aclosing(events):
            async for event in events:
                await self._send([event])

    async def _in_thread(self, call: Callable[..., _Result], *args: Any) -> _Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, partial(call, *args))

    def _describe(self, what: str) -> Event:
        is_beta = self._conversation.is_beta
        kind = "transcription_session" if is_beta else "session"
        model = self._stream.settings.model or self._service.models.default
        described = replace(self._stream.settings, model=model)
        session = described.describe(self._id, is_beta=is_beta)
        return {"type": f"{kind}.{what}", "session": session}

    async def _send(self, events: Iterable[Event]) -> None:
        for event in events:
            await send_event(self._websocket, event)


async def send_event(websocket: WebSocket, event: Event) -> None:
    """Sends an event, with an identifier.

    Args:
        websocket: that has been accepted.
        event: without one.

    Raises:
        WebSocketDisconnect: the client has gone away, or does not take it.
    """
    text = json.dumps({"event_id": new_id("event"), **event})
    try:
        await asyncio.wait_for(websocket.send_text(text), SEND_SECONDS)
    except (asyncio.TimeoutError, RuntimeError):  # starlette's, if a send failed before
        raise WebSocketDisconnect(1006) from None
