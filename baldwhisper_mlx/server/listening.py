"""Runs the application with uvicorn, with limits for headers and times."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from baldwhisper_mlx.server.interrupts import InterruptibleServer
from baldwhisper_mlx.server.realtime.messages import MOST_MESSAGE
from baldwhisper_mlx.server.slow_readers import ReadersProtocol

HEADER_SECONDS = 10.0
"""Until a client has to have sent the headers of a request."""
_HEADER_BYTES = 2**15
_PING_SECONDS = 20.0
_CLOSE_SECONDS = 10.0
"""Until a client has to have taken what is sent before a WebSocket is closed."""
_GOING_AWAY = 1001
"""The close code of a server that ends: RFC 6455, section 7.4.1."""


class TimedProtocol(ReadersProtocol):
    """uvicorn's HTTP, with a limit for the time that headers take, which uvicorn does not have."""

    _timer: asyncio.TimerHandle | None = None
    _is_upgraded = False

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
        if self._is_upgraded:
            return
        in_request = self.cycle is not None and not self.cycle.response_complete
        if self.cycle is not before or in_request:
            self._stop_waiting()
        elif self._timer is None:
            self._wait_for_headers()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hands the connection over to the protocol of WebSockets.

        Args:
            event: the request.
        """
        self._is_upgraded = True
        self._stop_waiting()
        super().handle_websocket_upgrade(event)

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


class SessionProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSockets, which end with the server, even if the client does nothing."""

    def shutdown(self) -> None:
        """Closes the connection, because the server ends."""
        if self.handshake_complete and not self.close_sent and not self.transport.is_closing():
            self.stop_keepalive()
            self.queue.put_nowait({"type": "websocket.disconnect", "code": _GOING_AWAY})
            self.conn.send_close(_GOING_AWAY)
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
        else:
            super().shutdown()
        self._abort_later()

    async def run_asgi(self) -> None:
        """Runs the application, after whose end the connection does not last."""
        await super().run_asgi()
        self._abort_later()

    def _abort_later(self) -> None:
        # What a client does not take stays in the transport, which waits for it when it is closed.
        self.loop.call_later(_CLOSE_SECONDS, self.transport.abort)


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


def make_server(app: ASGIApp, on_start: Callable[[], object] = lambda: None) -> uvicorn.Server:
    """A server whose `run(sockets=[...])` answers requests until it is interrupted.

    Ctrl-C or SIGTERM ends it when the requests in hand have been answered, a second Ctrl-C at once.

    Args:
        app: the application.
        on_start: called when it answers requests, and can be interrupted.
    """
    config = uvicorn.Config(
        app,
        http=TimedProtocol,
        ws=SessionProtocol,
        ws_max_size=MOST_MESSAGE,
        ws_ping_interval=_PING_SECONDS,
        # A client whose audio waits to be read cannot answer; silent ones end with the idle time.
        ws_ping_timeout=None,
        ws_per_message_deflate=False,
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=_HEADER_BYTES,
    )
    return InterruptibleServer(config, on_start)
