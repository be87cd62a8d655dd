"""What a client has sent and nobody has processed yet: in its order, and bounded."""

from __future__ import annotations

import asyncio
from collections import deque

from baldwhisper_mlx.server.realtime.messages import APPEND, ClientEvent

MOST_WAITING = 2**21
"""Bytes of audio above which no more is read: 44 s at 24 kHz."""
_MOST_EVENTS = 1000
"""Events that wait, above which no more are read, either."""


class Inbox:
    """A queue of events, in which a client that sends too fast waits for the server."""

    def __init__(self) -> None:
        self._events: deque[ClientEvent] = deque()
        self._n_bytes = 0
        self._changed = asyncio.Condition()

    def __bool__(self) -> bool:
        """Whether something waits."""
        return bool(self._events)

    async def put(self, event: ClientEvent) -> None:
        """Adds an event, and waits until there is room for another one."""
        async with self._changed:
            self._events.append(event)
            self._n_bytes += len(event.audio)
            self._changed.notify_all()
            await self._changed.wait_for(
                lambda: self._n_bytes <= MOST_WAITING and len(self._events) <= _MOST_EVENTS
            )

    async def take(self, most: int) -> ClientEvent | bytes:
        """The next event, or all audio that waits up to the next event of another kind.

        Args:
            most: bytes of audio that are taken at once.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._events)
            if self._events[0].type != APPEND:
                taken: ClientEvent | bytes = self._events.popleft()
            else:
                taken = self._take_audio(most)
            self._changed.notify_all()
            return taken

    def _take_audio(self, most: int) -> bytes:
        parts, room = [], most
        while room > 0 and self._events and self._events[0].type == APPEND:
            event = self._events.popleft()
            parts.append(event.audio[:room])
            if len(event.audio) > room:
                rest = event.audio[room:]
                self._events.appendleft(ClientEvent(APPEND, event.id, rest, None))
            room -= len(parts[-1])
        audio = b"".join(parts)
        self._n_bytes -= len(audio)
        return audio
