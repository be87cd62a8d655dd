"""Hosts, origins and keys: what a page in a browser, and a client without a key, cannot do."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

import openai
import pytest

from baldwhisper_mlx.server.security import is_loopback
from tests.runtime.server.conftest import SPEECH, Running, Serve


def get(
    server: Running, path: str = "/v1/models", method: str = "GET", **headers: str
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=given)
    return connection.getresponse()


def error_of(response: http.client.HTTPResponse) -> Any:
    return json.loads(response.read())["error"]


@pytest.mark.parametrize("host", [
    "127.0.0.1", "127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "192.168.1.5:80",
    "host.docker.internal:8000", socket.gethostname(),
])  # fmt: skip
def test_hosts_of_this_machine(server: Running, host: str) -> None:
    assert get(server, Host=host).status == 200


@pytest.mark.parametrize("host", [
    "evil.org", "evil.org:8000", "localhost.evil.org", "127.0.0.1.evil.org", "", "[::1", "a@evil",
    "127.0.0.1@evil.org", "0x7f000001.evil", "localhost/x.evil.org@evil.org",
])  # fmt: skip
def test_other_hosts_are_refused(server: Running, host: str) -> None:
    response = get(server, Host=host)
    assert response.status == 403
    assert error_of(response)["code"] == "unknown_host"


@pytest.mark.parametrize("path", ["/v1/models", "/health", "/v1/audio/transcriptions", "/"])
@pytest.mark.parametrize("origin", ["https://evil.org", "null", "http://127.0.0.1:1", "x"])
def test_pages_of_other_sites_are_refused(server: Running, path: str, origin: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        response = get(server, path, method, Origin=origin)
        assert response.status == 403
        assert error_of(response)["code"] == "unknown_origin"
        assert response.headers["access-control-allow-origin"] is None


def test_its_own_pages_may_use_it(server: Running) -> None:
    assert get(server, Origin=server.url).status == 200


def test_cors_for_those_who_are_named(serve: Serve) -> None:
    page = "https://app.example.org"
    server = serve(origins=[page], api_key="secret")
    preflight = get(
        server,
        "/v1/audio/transcriptions",
        "OPTIONS",
        Origin=page,
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="authorization",
    )
    assert preflight.status == 200
    assert preflight.headers["access-control-allow-origin"] == page
    refused = get(server, Origin=page)
    assert refused.status == 401
    assert refused.headers["access-control-allow-origin"] == page
    assert get(server, Origin=page, Authorization="Bearer secret").status == 200
    other = get(server, Origin="https://evil.org", Authorization="Bearer secret")
    assert other.status == 403
    assert other.headers["access-control-allow-origin"] is None


@pytest.mark.parametrize("authorization", [
    "", "Bearer", "Bearer ", "Bearer secre", "Bearer secret2", "Basic secret", "secret",
    "Bearer s\u00e9cret",
])  # fmt: skip
def test_wrong_keys(serve: Serve, authorization: str) -> None:
    server = serve(api_key="secret")
    for path in ("/v1/models", "/v1/audio/transcriptions", "/nothing"):
        response = get(server, path, Authorization=authorization)
        assert response.status == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert error_of(response)["type"] == "authentication_error"
    assert get(server, "/health").status == 200


def test_the_client_sends_the_key(serve: Serve) -> None:
    server = serve(api_key="secret")
    with pytest.raises(openai.AuthenticationError, match="Authorization"):
        server.client(api_key="wrong").audio.transcriptions.create(file=SPEECH, model="whisper-1")
    client = server.client(api_key="secret")
    assert client.audio.transcriptions.create(file=SPEECH, model="whisper-1").text


@pytest.mark.parametrize(("host", "local"), [
    ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
    ("0.0.0.0", False), ("::", False), ("192.168.0.1", False), ("example.org", False), ("", False),
])  # fmt: skip
def test_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local


def test_a_request_to_the_websocket(server: Running) -> None:
    response = get(server, "/v1/realtime?intent=transcription")
    assert (response.status, response.headers["upgrade"]) == (426, "websocket")
    assert error_of(response)["code"] == "upgrade_required"


def test_unknown_paths_and_methods(server: Running) -> None:
    assert get(server, "/v2").status == 404
    response = get(server, "/v1/audio/transcriptions")
    assert response.status == 405
    assert error_of(response)["code"] == "method_not_allowed"
    assert error_of(get(server, "/../../etc/passwd"))["code"] == "not_found"
