"""Ends the connections of clients that do not read their answers.

Such a client would keep its place, and what is written for it in memory, for ever.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

READING_SECONDS = 30.0
"""For which a client that has not read all that was sent to it may read too little."""
_LEAST = 2**14
"""Bytes that it has to read in that time; fewer than the buffer may hold without a pause."""


class ReadersProtocol(H11Protocol):
    """uvicorn's HTTP, with a limit for the time in which a client has to read on."""

    _reading: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Begins to wait for the client, whose buffer is full."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """Ends the wait, because the client has read."""
        self._stop_expecting()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """Begins to wait for the client if there is something of the answer that it has not read.

        A connection that is closed stays open until then.
        """
        super().on_response_complete()
        self._expect_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the wait."""
        self._stop_expecting()
        super().connection_lost(exc)

    def _expect_reading(self) -> None:
        self._stop_expecting()
        before = self.transport.get_write_buffer_size()
        if before:
            self._reading = self.loop.call_later(READING_SECONDS, self._check_reading, before)

    def _check_reading(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left and before - left < _LEAST:
            self.transport.abort()
        else:
            self._expect_reading()

    def _stop_expecting(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
