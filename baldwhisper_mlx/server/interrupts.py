"""How a server starts, and how it ends: at Ctrl-C when the requests in hand have been answered."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

INTERRUPTED = 130
"""The exit status of a program that Ctrl-C ended: 128 and the number of the signal."""


class InterruptibleServer(uvicorn.Server):
    """uvicorn's server, whose `run` returns when a signal has ended it in order.

    Args:
        config: of the server.
        on_start: called when requests are answered and signals are followed.
    """

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], object]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, then calls `on_start`, unless the application failed.

        Args:
            sockets: to listen on.
        """
        await super().startup(sockets)
        if self.started:
            self._on_start()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Answers requests until it is interrupted.

        Args:
            sockets: to listen on.
        """
        try:
            super().run(sockets)
        except (KeyboardInterrupt, SystemExit):
            # uvicorn raises the signals again that it has followed.
            if not self.should_exit:
                raise

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins to end; at a second Ctrl-C the process ends at once.

        Args:
            sig: number of the signal.
            frame: where it came.
        """
        if self.should_exit and sig == signal.SIGINT:
            # Nothing has to be tidied up, and threads that decode would be waited for.
            os._exit(INTERRUPTED)
        super().handle_exit(sig, frame)
