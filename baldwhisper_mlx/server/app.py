"""The server as an ASGI application: its paths, and what surrounds them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from baldwhisper_mlx.server.errors import (
    ApiError,
    answer_api_error,
    answer_failure,
    answer_http_error,
)
from baldwhisper_mlx.server.models import Models
from baldwhisper_mlx.server.openapi import describe_api
from baldwhisper_mlx.server.page import page_routes
from baldwhisper_mlx.server.places import Places
from baldwhisper_mlx.server.realtime.endpoint import Realtime, most_sessions, realtime_routes
from baldwhisper_mlx.server.responses import WARNINGS_HEADER
from baldwhisper_mlx.server.security import Guard
from baldwhisper_mlx.server.transcriptions import Service, Transcriptions
from baldwhisper_mlx.server.worker import Worker


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a server is reached, and its limits."""

    host: str = "127.0.0.1"
    api_key: str | None = None
    """That clients have to send."""
    origins: Sequence[str] = ()
    """Of pages in browsers that may use the server."""
    max_upload: int = 512 * 10**6
    """Bytes of a file."""
    max_queue: int = 32
    """Requests that wait."""
    max_duration: float = 4 * 3600.0
    """Seconds of a recording."""


def create_app(models: Models, settings: Settings) -> Starlette:
    """The application; its worker runs while its lifespan does.

    Args:
        models: that are served.
        settings: see `Settings`.
    """
    worker = Worker()
    places = Places(settings.max_queue)
    service = Service(models, worker, places, settings.max_upload, settings.max_duration)
    realtime = Realtime(service, most_sessions(settings.max_queue))

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        with worker:
            yield

    middleware = [
        Middleware(Guard, host=settings.host, origins=settings.origins, api_key=settings.api_key)
    ]
    if settings.origins:
        middleware.insert(
            0,
            Middleware(
                CORSMiddleware,
                allow_origins=list(settings.origins),
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=[WARNINGS_HEADER, "Retry-After"],
            ),
        )
    transcriptions = Transcriptions(service, "transcribe")
    translations = Transcriptions(service, "translate")
    app = Starlette(
        routes=[
            *_routes("/v1/audio/transcriptions", transcriptions, "POST"),
            *_routes("/v1/audio/translations", translations, "POST"),
            *realtime_routes(realtime),
            *_facts(models, worker),
            *page_routes(max_upload=settings.max_upload),
        ],
        middleware=middleware,
        exception_handlers={
            ApiError: answer_api_error,
            HTTPException: answer_http_error,
            Exception: answer_failure,
        },
        lifespan=lifespan,
    )
    # A redirect would make clients send their file twice, if they follow it at all.
    app.router.redirect_slashes = False
    app.state.service, app.state.realtime = service, realtime
    return app


def _facts(models: Models, worker: Worker) -> list[Route]:
    """The paths that only tell something."""

    def list_models(_request: Request) -> Response:
        return JSONResponse(models.list())

    def describe_model(request: Request) -> Response:
        return JSONResponse(models.describe(request.path_params["name"]))

    async def health(_request: Request) -> Response:
        worker.check()
        return JSONResponse({"status": "ok"})

    described = describe_api()

    def schema(_request: Request) -> Response:
        return JSONResponse(described)

    return [
        *_routes("/v1/models", list_models),
        Route("/v1/models/{name:path}", describe_model),
        *_routes("/health", health),
        *_routes("/openapi.json", schema),
    ]


def _routes(path: str, endpoint: Callable[..., Any], method: str = "GET") -> list[Route]:
    """A path, with and without a slash at its end."""
    return [Route(path + end, endpoint, methods=[method]) for end in ("", "/")]
