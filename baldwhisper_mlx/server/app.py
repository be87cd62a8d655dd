"""The server as an ASGI application: its paths, and what surrounds them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

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
from baldwhisper_mlx.server.page import page_routes
from baldwhisper_mlx.server.places import Places
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


def create_app(models: Models, settings: Settings) -> Starlette:
    """The application; its worker runs while its lifespan does.

    Args:
        models: that are served.
        settings: see `Settings`.
    """
    worker = Worker()
    service = Service(models, worker, Places(settings.max_queue), settings.max_upload)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        with worker:
            yield

    def list_models(_request: Request) -> Response:
        return JSONResponse(models.list())

    def describe_model(request: Request) -> Response:
        return JSONResponse(models.describe(request.path_params["name"]))

    def health(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

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
            ),
        )
    app = Starlette(
        routes=[
            Route(
                "/v1/audio/transcriptions", Transcriptions(service, "transcribe"), methods=["POST"]
            ),
            Route("/v1/audio/translations", Transcriptions(service, "translate"), methods=["POST"]),
            Route("/v1/models", list_models),
            Route("/v1/models/{name:path}", describe_model),
            Route("/health", health),
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
    app.state.service = service
    return app
