"""How a server ends: at Ctrl-C or SIGTERM with the requests in hand, at a second Ctrl-C at once."""

from __future__ import annotations

import os
import signal
import socket
from types import FrameType

import uvicorn

INTERRUPTED = 130
"""The exit status of a program that Ctrl-C ended: 128 and the number of the signal."""


class InterruptibleServer(uvicorn.Server):
    """uvicorn's server, whose `run` returns when a signal has ended it in order."""

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
