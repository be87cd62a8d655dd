"""WS /v1/realtime?intent=transcription: from the connection to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from baldwhisper_mlx.server.errors import INTERNAL, ApiError
from baldwhisper_mlx.server.realtime.events import error_event
from baldwhisper_mlx.server.realtime.session import SEND_SECONDS, Session, send_event
from baldwhisper_mlx.server.realtime.settings import SessionSettings
from baldwhisper_mlx.server.transcriptions import Service
from baldwhisper_mlx.terminal import quoted

PATH = "/v1/realtime"
SUBPROTOCOL = "realtime"
_BETA_HEADER, _BETA = "openai-beta", "realtime=v1"
_BETA_SUBPROTOCOL = "openai-beta.realtime-v1"
_NORMAL, _REFUSED, _FAILED, _TRY_LATER = 1000, 1008, 1011, 1013
"""Close codes of RFC 6455, and of IANA's registry."""
_SESSIONS_SHARE = 4
_log = logging.getLogger("baldwhisper_mlx.server")


def most_sessions(max_queue: int) -> int:
    """Sessions at once, for requests that may wait: a fourth of them, and at least one."""
    return max(1, max_queue // _SESSIONS_SHARE)


def realtime_routes(realtime: Realtime) -> list[BaseRoute]:
    """The endpoint, and what a request gets there that opens no WebSocket."""
    return [WebSocketRoute(PATH, realtime), Route(PATH, _answer_request)]


class Realtime:
    """The endpoint, as an ASGI application.

    Args:
        service: shared with all requests.
        most: sessions at once.
    """

    def __init__(self, service: Service, most: int) -> None:
        self._service, self._most = service, most
        # The sessions take turns, as the model would make them, and leave asyncio's own threads,
        # which decode files, alone.
        self._executor = ThreadPoolExecutor(1, "baldwhisper-realtime")
        self.n_sessions = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        websocket = WebSocket(scope, receive, send)
        offered = scope.get("subprotocols", ())
        with contextlib.suppress(WebSocketDisconnect):
            await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
            try:
                await self._serve(websocket, is_beta=_is_beta(websocket))
            except ApiError as error:
                await _refuse(websocket, error)
            except (WebSocketDisconnect, asyncio.CancelledError):
                raise
            except Exception:
                _log.exception("a realtime session failed")
                await _refuse(websocket, ApiError(500, INTERNAL, code="internal_error"))

    async def _serve(self, websocket: WebSocket, *, is_beta: bool) -> None:
        intent = websocket.query_params.get("intent")
        if intent != "transcription":
            raise ApiError(
                400,
                f"intent must be transcription, not {quoted(intent)}: this server only "
                f"transcribes; connect to {PATH}?intent=transcription",
                param="intent",
                code="invalid_value",
            )
        with self._place():
            settings = SessionSettings(model=websocket.query_params.get("model") or None)
            session = Session(websocket, self._service, self._executor, settings, is_beta=is_beta)
            await session.run()

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        if self.n_sessions >= self._most:
            raise ApiError(
                429,
                f"{self.n_sessions} sessions are open, the most that this server keeps "
                "(a fourth of --max-queue): try again later",
                code="too_many_sessions",
            )
        self.n_sessions += 1
        try:
            yield
        finally:
            self.n_sessions -= 1


def _answer_request(_request: Request) -> Response:
    raise ApiError(
        426,
        f"{PATH} is a WebSocket: connect with a client of OpenAI's realtime API",
        code="upgrade_required",
        headers={"Upgrade": "websocket"},
    )


def _is_beta(websocket: WebSocket) -> bool:
    header = websocket.headers.get(_BETA_HEADER, "")
    return _BETA in header or _BETA_SUBPROTOCOL in websocket.scope.get("subprotocols", ())


async def _refuse(websocket: WebSocket, error: ApiError) -> None:
    """Sends an error, and closes the connection."""
    codes = {408: _NORMAL, 429: _TRY_LATER, 500: _FAILED}
    await send_event(websocket, error_event(error))
    with contextlib.suppress(asyncio.TimeoutError, RuntimeError):
        await asyncio.wait_for(
            websocket.close(codes.get(error.status, _REFUSED), error.code), SEND_SECONDS
        )
