"""Places for requests: how many wait, and how many recordings are in memory.

A request has a place from its first byte on, before its file is received, and until it is answered
or its client disconnects. Long recordings never have all places in memory: a short one does not
wait for their end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.recording import TooLongError
from baldwhisper_mlx.server.errors import CLOSE, ApiError

BATCH = 8
"""Recordings that are in memory at once, and decoded together if they can."""
MOST_LONG = BATCH // 2
"""Of these, long ones."""
LONG_SECONDS = 300.0
"""Longer recordings are long."""
_RETRY_SECONDS = 2

Load = Callable[[float], Awaitable[Samples]]
"""Decodes a recording of at most so many seconds; raises TooLongError."""


class Places:
    """Counts the requests in hand.

    Args:
        max_queue: requests that wait, beside those whose recordings are decoded.
    """

    def __init__(self, max_queue: int) -> None:
        self._most = max_queue + BATCH
        self._taken = 0
        self.decoding = asyncio.Semaphore(BATCH)
        """Held by a request while its recording is in memory."""
        self._long = asyncio.Semaphore(MOST_LONG)

    @property
    def taken(self) -> int:
        """Requests in hand."""
        return self._taken

    @contextmanager
    def take(self) -> Iterator[None]:
        """A place for the time of the block.

        Raises:
            ApiError: there is none; 429 with Retry-After.
        """
        if self._taken >= self._most:
            raise ApiError(
                429,
                f"{self._taken} requests are waiting, the most that this server keeps "
                "(--max-queue): try again later",
                code="queue_full",
                headers={"Retry-After": str(_RETRY_SECONDS), **CLOSE},
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    @asynccontextmanager
    async def in_memory(self, load: Load, max_duration: float) -> AsyncIterator[Samples]:
        """Has a recording in memory for the time of the block, when there is a place for it.

        Whether it is long shows when it is decoded. A long one then gives its place back, and is
        decoded again once there is one for long recordings.

        Args:
            load: decodes it.
            max_duration: seconds.

        Raises:
            TooLongError: it is longer than that.
        """
        async with self.decoding:
            try:
                samples = await load(min(LONG_SECONDS, max_duration))
            except TooLongError:
                if max_duration <= LONG_SECONDS:
                    raise
            else:
                yield samples
                return
        async with self._long, self.decoding:
            yield await load(max_duration)


async def while_connected(receive: Receive, work: Callable[[], Awaitable[None]]) -> None:
    """Does some work, and cancels it when the client disconnects.

    Args:
        receive: of a request whose body has been received.
        work: the rest of the request.

    Raises:
        ClientDisconnect: the client went away first.
    """
    working = asyncio.ensure_future(work())
    watching = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        await working
    finally:
        await cancel_all([working, watching])


async def cancel_all(tasks: Sequence[asyncio.Future[None]]) -> None:
    """Cancels tasks and waits for their end; what they raise is dropped.

    `asyncio.gather` would lose whose cancellation it is, if the caller is cancelled meanwhile.
    """
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
