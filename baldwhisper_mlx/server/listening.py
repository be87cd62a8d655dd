"""Runs the application with uvicorn, with limits for headers and times."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0
"""Until a client has to have sent the headers of a request."""
_HEADER_BYTES = 2**15


class TimedProtocol(H11Protocol):
    """uvicorn's HTTP, with a limit for the time that headers take, which uvicorn does not have."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins to wait for headers."""
        super().connection_made(transport)
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        """Reads on; waits for headers if a new request has begun, and no more when they are there.

        Args:
            data: from the client.
        """
        before = self.cycle
        super().data_received(data)
        in_request = self.cycle is not None and not self.cycle.response_complete
        if self.cycle is not before or in_request:
            self._stop_waiting()
        elif self._timer is None:
            self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the wait."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_headers(self) -> None:
        self._timer = self.loop.call_later(HEADER_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that clients can connect to from now on.

    Args:
        host: a name or an address.
        port: 0 for any that is free.

    Raises:
        OSError: no such host, or the port is taken; the message says what to do.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(cast("tuple[str, int]", address[:2]), family=family)
    except OSError as error:
        raise OSError(
            f"cannot listen on {host} port {port} ({error.strerror}); choose another --host or "
            "--port"
        ) from None


def url_of(listener: socket.socket) -> str:
    """The address of a socket as clients write it."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn's server, which says when it has started."""

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


def make_server(app: ASGIApp, on_start: Callable[[], object] = lambda: None) -> uvicorn.Server:
    """A server whose `run(sockets=[...])` answers requests until it is interrupted.

    Ctrl-C ends it when the requests in hand have been answered, a second one at once.

    Args:
        app: the application.
        on_start: called when it answers requests, and can be interrupted.
    """
    config = uvicorn.Config(
        app,
        http=TimedProtocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=_HEADER_BYTES,
    )
    return Server(config, on_start)
