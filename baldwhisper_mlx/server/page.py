"""The page at `/`: static files that use the API, as routes of the server."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from baldwhisper_mlx.text.languages import LANGUAGES

FOLDER = Path(__file__).resolve().parent.parent / "assets/page"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""By ending; a file with another one is not served."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "media-src blob:; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # A browser asks each time, and gets 304 if nothing has changed.
    "Cache-Control": "no-cache",
}
INDEX = "index.html"


def page_routes(folder: Path = FOLDER) -> list[Route]:
    """The routes `/` and `/page/...`, one for each file; no other path is read.

    Args:
        folder: whose files are read now and kept in memory, about 40 kB.

    Raises:
        FileNotFoundError: the page is missing in this installation.
    """
    files = {
        path.name: path.read_bytes()
        for path in sorted(folder.glob("*"))
        if path.suffix in MEDIA_TYPES
    }
    if INDEX not in files:
        raise FileNotFoundError(f"{folder / INDEX} is missing; install baldwhisper-mlx again")
    routes = [
        _route("/" if name == INDEX else f"/page/{name}", body, MEDIA_TYPES[Path(name).suffix])
        for name, body in files.items()
    ]
    return [*routes, Route("/page/languages.json", _languages)]


def _route(path: str, body: bytes, media_type: str) -> Route:
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers: Mapping[str, str] = {**HEADERS, "ETag": tag}

    def answer(request: Request) -> Response:
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=media_type, headers=headers)

    return Route(path, answer)


def _languages(_request: Request) -> Response:
    """Codes and names of the languages, by name."""
    ordered = sorted(LANGUAGES.items(), key=lambda item: item[1])
    names = {code: name.title() for code, name in ordered}
    return JSONResponse(names, headers=HEADERS)
