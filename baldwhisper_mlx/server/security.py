"""Who may use the server: pure ASGI middleware around all of it.

A page in a browser must not drive a server on the same machine: not by requests to it, which carry
the page's `Origin` (cross-site request forgery), nor under a name of its own that it has made to
point here, which the `Host` shows (DNS rebinding). Such an attack needs a name, so addresses pass.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Collection, Iterable
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from baldwhisper_mlx.server.errors import ApiError

OPEN_PATHS = ("/", "/health")
"""Paths that need no key: they say nothing about the models."""
OPEN_FOLDER = "/page/"
"""The files of the page, which asks for the key."""
KEY_SUBPROTOCOL = "openai-insecure-api-key."
"""With the key behind it, percent-encoded if need be: pages cannot set headers of WebSockets."""
_PAGE_SCHEMES = {"ws": "http", "wss": "https"}
"""Of the page that opens a WebSocket."""
_DENIAL = "websocket.http.response"
"""ASGI's extension for an HTTP answer in place of a WebSocket."""
_HOST = re.compile(r"(\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[\w.-]+))(:\d+)?", re.ASCII)
_LOCAL_NAMES = ("localhost", "host.docker.internal")
"""Names that nobody can point elsewhere: RFC 6761, and ICANN's reserved `internal`."""


def is_loopback(host: str) -> bool:
    """Whether a server at this host can be reached from its own machine only.

    Args:
        host: a name or an address.
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Checks the host, the origin and the key of every request.

    Args:
        app: what the request is passed on to.
        host: at which the server is reached.
        origins: of pages that may use it, such as https://example.org.
        api_key: that clients have to send; None for none.
    """

    def __init__(
        self, app: ASGIApp, *, host: str, origins: Collection[str], api_key: str | None
    ) -> None:
        self._app = app
        name = socket.gethostname().lower()
        self._names = {*_LOCAL_NAMES, host.lower(), name, f"{name}.local"}
        self._origins = frozenset(origins)
        self._key = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or answers it with an error."""
        if scope["type"] in ("http", "websocket"):
            try:
                self._check(scope)
            except ApiError as error:
                await _refuse(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_known(host):
            raise ApiError(
                403, "Host: use an address of this server, or localhost", code="unknown_host"
            )
        origin = headers.get("origin")
        own = f"{_PAGE_SCHEMES.get(scope['scheme'], scope['scheme'])}://{host}"
        if origin is not None and origin != own and origin not in self._origins:
            raise ApiError(
                403, "Origin: pages of other sites may not use this server (--cors)",
                code="unknown_origin",
            )  # fmt: skip
        preflight = scope.get("method") == "OPTIONS" and origin in self._origins
        path = scope["path"]
        is_open = path in OPEN_PATHS or path.startswith(OPEN_FOLDER)
        if self._key is not None and not is_open and not preflight:
            self._check_key(headers.get("authorization", ""), scope.get("subprotocols", ()))

    def _is_known(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = (found["address"] or found["name"]).lower()
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _check_key(self, authorization: str, subprotocols: Iterable[str]) -> None:
        assert self._key is not None
        scheme, _, given = authorization.partition(" ")
        keys = [given.strip()] if scheme.lower() == "bearer" else []
        for name in subprotocols:
            if name.startswith(KEY_SUBPROTOCOL):
                # Not all characters of a key may be in the name of a subprotocol.
                key = name.removeprefix(KEY_SUBPROTOCOL)
                keys += [key, unquote(key)]
        if not any(hmac.compare_digest(key.encode(), self._key) for key in keys):
            raise ApiError(
                401,
                "send the server's API key: Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers instead of the application; a WebSocket is not opened."""
    if scope["type"] == "websocket" and _DENIAL not in scope.get("extensions", {}):
        await WebSocketClose(1008, error.code)(scope, receive, send)
        return
    await error.response()(scope, receive, send)
