"""The routes of the page, and that its files name nothing that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient

from baldwhisper_mlx.server.page import FOLDER, HEADERS, page_routes, page_url
from baldwhisper_mlx.server.security import Guard
from baldwhisper_mlx.text.languages import LANGUAGES


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(Starlette(routes=page_routes(max_upload=5))) as client:
        yield client


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page/style.css", "text/css; charset=utf-8"),
        ("/page/main.js", "text/javascript; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
        ("/page/languages.json", "application/json"),
    ],
)
def test_types_and_headers(client: TestClient, path: str, media_type: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS


def test_an_unchanged_file_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/page/main.js")
    again = client.get("/page/main.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = client.get("/page/main.js", headers={"If-None-Match": '"another"'})
    assert other.content == first.content


@pytest.mark.parametrize(
    "path", ["/page/", "/page/../app.py", "/page/%2e%2e/app.py", "/page/index.html"]
)
def test_other_paths_are_not_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_languages_are_those_of_whisper(client: TestClient) -> None:
    assert client.get("/page/languages.json").json().keys() == LANGUAGES.keys()


def test_settings_say_what_the_server_takes(client: TestClient) -> None:
    assert client.get("/page/settings.json").json() == {"max_upload": 5, "realtime": False}


async def _answer(_: object) -> None: ...


@pytest.mark.parametrize("path", ["/v1/realtime", "/v1/{name}"])
def test_settings_say_whether_there_are_live_captions(path: str) -> None:
    app = Starlette(routes=[*page_routes(max_upload=5), WebSocketRoute(path, _answer)])
    assert TestClient(app).get("/page/settings.json").json()["realtime"]


@pytest.mark.parametrize(
    ("url", "page"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/"),
        ("http://0.0.0.0:1", "http://localhost:1/"),
        ("http://[::]:8000", "http://localhost:8000/"),
        ("http://[::1]:8000", "http://[::1]:8000/"),
        ("http://talk.local:8000", "http://talk.local:8000/"),
    ],
)
def test_the_address_can_be_opened(url: str, page: str) -> None:
    assert page_url(url) == page


def test_a_missing_page_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"index\.html is missing"):
        page_routes(tmp_path, max_upload=5)


def test_files_name_only_files_that_are_served(client: TestClient) -> None:
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    named = re.findall(r'(?:href|src)="([^#"]+)"', html)
    for path in FOLDER.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        found = re.findall(r'(?:from "\./|new URL\(")([\w.-]+)"', text)
        named += [f"page/{name}" for name in found]
    assert {"page/capture-worklet.js", "page/record-button.js"} <= set(named)
    assert len(named) > 20
    assert [name for name in named if client.get(f"/{name}").status_code != 200] == []


def test_nothing_is_written_inline_or_comes_from_elsewhere() -> None:
    for path in FOLDER.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://", text), path
        assert "innerHTML" not in text, path
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", html)


def test_the_page_needs_no_key_but_the_api_does() -> None:
    """A browser cannot send a key with the page's own files; the page asks for it."""
    app = Guard(
        Starlette(routes=page_routes(max_upload=5)), host="127.0.0.1", origins=(), api_key="secret"
    )  # fmt: skip
    client = TestClient(app, base_url="http://localhost")
    for path in ("/", "/page/main.js", "/page/languages.json"):
        assert client.get(path).status_code == 200
    for path in ("/v1/models", "/v1/page/main.js", "/pages", "/page"):
        assert client.get(path).status_code == 401
