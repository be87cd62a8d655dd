"""The page at `/`: static files that use the API, as routes of the server."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route

from baldwhisper_mlx.server.realtime.endpoint import PATH
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


def page_routes(folder: Path = FOLDER, *, max_upload: int) -> list[Route]:
    """The routes `/` and `/page/...`, one for each file; no other path is read.

    Args:
        folder: whose files are read now and kept in memory, about 60 kB.
        max_upload: bytes of the largest file that the server takes. The page asks before it sends
            one: a browser does not show the answer to an upload that is refused halfway.

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

    def settings(request: Request) -> Response:
        body = {"max_upload": max_upload, "realtime": _has_realtime(request)}
        return JSONResponse(body, headers=HEADERS)

    return [
        *routes,
        Route("/page/languages.json", _languages),
        Route("/page/settings.json", settings),
    ]


def page_url(url: str) -> str:
    """The address of the page for a browser on this machine.

    Args:
        url: of the server. One that listens on all addresses, such as http://0.0.0.0:8000, has none
            that a browser can open; then it is that of localhost.

    Example:
        >>> page_url("http://0.0.0.0:8000")
        'http://localhost:8000/'
    """
    parts = urlsplit(url)
    try:
        everywhere = ipaddress.ip_address(parts.hostname or "").is_unspecified
    except ValueError:
        everywhere = False
    return f"{parts.scheme}://localhost:{parts.port}/" if everywhere else f"{url}/"


def _route(path: str, body: bytes, media_type: str) -> Route:
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers: Mapping[str, str] = {**HEADERS, "ETag": tag}

    def answer(request: Request) -> Response:
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=media_type, headers=headers)

    return Route(path, answer)


def _has_realtime(request: Request) -> bool:
    """Whether the application of a request has the path of live captions."""
    scope = {"type": "websocket", "path": PATH, "root_path": ""}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


def _languages(_request: Request) -> Response:
    """Codes and names of the languages, by name."""
    ordered = sorted(LANGUAGES.items(), key=lambda item: item[1])
    names = {code: name.title() for code, name in ordered}
    return JSONResponse(names, headers=HEADERS)
