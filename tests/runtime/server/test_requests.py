"""Unusual requests: methods, paths, fields in every wrong form, and audio without speech."""

from __future__ import annotations

import http.client
import io
import json
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.runtime.server.conftest import SPEECH, Running, Serve

TRANSCRIPTIONS, TRANSLATIONS = "/v1/audio/transcriptions", "/v1/audio/translations"
POSTS = (TRANSCRIPTIONS, TRANSLATIONS)
GETS = ("/v1/models", "/v1/models/tiny", "/health", "/openapi.json", "/")
BOUNDARY = "b0undary"


def request(
    server: Running, method: str, path: str, body: bytes = b"", **headers: str
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body or None, given)
    return connection.getresponse()


def part(name: bytes, value: bytes, more: bytes = b"") -> bytes:
    head = b'Content-Disposition: form-data; name="%s"%s' % (name, more)
    return b"--%s\r\n%s\r\n\r\n%s\r\n" % (BOUNDARY.encode(), head, value)


FILE = part(b"file", SPEECH.read_bytes(), b'; filename="a.flac"')


def post(server: Running, *parts: bytes, path: str = TRANSCRIPTIONS) -> tuple[int, Any]:
    body = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    response = request(server, "POST", path, body, Content_Type=kind)
    return response.status, json.loads(response.read())


def error_of(server: Running, *parts: bytes) -> Any:
    status, answer = post(server, *parts)
    assert status == 400
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    return answer["error"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"])
@pytest.mark.parametrize("path", POSTS)
def test_other_methods_of_uploads(server: Running, path: str, method: str) -> None:
    response = request(server, method, path)
    assert (response.status, response.headers["allow"]) == (405, "POST")
    body = response.read()
    assert method == "HEAD" or json.loads(body)["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", GETS)
def test_methods_of_what_is_read(server: Running, path: str) -> None:
    whole, head = request(server, "GET", path), request(server, "HEAD", path)
    assert whole.status == head.status == 200
    assert head.headers["content-length"] == str(len(whole.read()))
    assert head.read() == b""
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        response = request(server, method, path)
        assert response.status == 405
        assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize("path", [f"{path}/" for path in (*POSTS, "/v1/models", "/health")])
def test_a_slash_at_the_end(server: Running, path: str) -> None:
    if path.startswith("/v1/audio"):
        model = part(b"model", b"tiny")
        status, answer = post(server, FILE, model, path=path)
        assert (status, "text" in answer) == (200, True)
    else:
        response = request(server, "GET", path)
        assert response.status == 200
        assert json.loads(response.read()) == json.loads(
            request(server, "GET", path.rstrip("/")).read()
        )


@pytest.mark.parametrize(("path", "status"), [
    ("/v1/models/tiny%2Den", 200), ("/v1%2Fmodels", 200), ("/v1/models/%E2%82%AC", 404),
    ("/v1/models/%00%0a", 404), ("/v1/models/%ff", 404), ("/v1/models/..%2f..%2fetc", 404),
    ("//v1/models", 404), ("/v1//models", 404), ("/V1/models", 404), ("/v1/models?x=%zz", 200),
    ("/" + "a" * 8000, 404),
])  # fmt: skip
def test_paths(server: Running, path: str, status: int) -> None:
    response = request(server, "GET", path)
    assert response.status == status
    assert json.loads(response.read())


def test_models_for_pages_of_other_sites(serve: Serve) -> None:
    page = "https://app.example.org"
    response = request(serve(origins=[page]), "GET", "/v1/models", Origin=page)
    assert response.headers["access-control-allow-origin"] == page
    exposed = response.headers["access-control-expose-headers"].lower()
    assert {"x-baldwhisper-warnings", "retry-after"} <= set(exposed.split(", "))
    assert request(serve(), "GET", "/v1/models").headers["access-control-allow-origin"] is None


def test_a_field_twice(server: Running) -> None:
    same = part(b"model", b"tiny")
    assert post(server, same, same, FILE)[0] == 200
    error = error_of(server, same, part(b"model", b"tiny-en"), FILE)
    assert (error["param"], "once" in error["message"]) == ("model", True)


def test_two_files(server: Running) -> None:
    assert "files" in error_of(server, FILE, FILE)["message"]


@pytest.mark.parametrize("name", [b"model", b"response_format"])
def test_a_field_as_a_file(server: Running, name: bytes) -> None:
    as_file = part(name, b"json", b'; filename="x.txt"')
    assert "file" in error_of(server, as_file, FILE)["message"]
    assert error_of(server, as_file)["param"] == "file"


def test_the_file_as_a_field(server: Running) -> None:
    for value in (b"", b"talk.mp3", SPEECH.read_bytes()[:1000]):
        assert error_of(server, part(b"file", value))["param"] == "file"


def test_bytes_that_are_no_utf8(server: Running) -> None:
    """Old programs send prompts in Latin-1; choices and names have no such letters."""
    assert post(server, part(b"prompt", b"caf\xe9"), FILE)[0] == 200
    assert error_of(server, part(b"language", b"fran\xe7ais"), FILE)["param"] == "language"
    assert error_of(server, part(b"response_format", b"\xff\xfe"), FILE)["param"] == (
        "response_format"
    )
    assert post(server, part(b"\xff\xfe", b"\xff"), FILE)[0] == 200  # unknown, so ignored


@pytest.mark.parametrize("value", [b"\x00", b"\r\n", b"\x1b[2J", "\ud7ff\u202e".encode(), b" "])
def test_unusual_texts(server: Running, value: bytes) -> None:
    assert post(server, part(b"prompt", value), part(b"keywords[]", value), FILE)[0] == 200


def test_long_fields(server: Running) -> None:
    # As much as there is room for is used, and the client gets a warning.
    silence = wav(np.zeros(16_000))
    assert post(server, part(b"prompt", b"a word " * 5000), silence)[0] == 200
    message = error_of(server, part(b"prompt", b"x" * 70_000), FILE)["message"]
    assert "exceeded maximum size" in message
    error = error_of(server, part(b"language", b"x" * 60_000), FILE)
    assert len(error["message"]) < 2000
    assert "fields" in error_of(server, *[part(b"x", b"")] * 300, FILE)["message"]
    assert error_of(server, part(b"model" * 10_000, b"x"), FILE)


@pytest.mark.parametrize("value", [
    "nan", "inf", "-inf", "1e999", "\u0663", "0x1", "1_0", "0,5", "--1", "1 0", "true", "[]",
])  # fmt: skip
def test_numbers(server: Running, value: str) -> None:
    for name in (b"temperature", b"chunking_strategy[threshold]"):
        error = error_of(server, part(name, value.encode()), FILE)
        assert error["param"] == name.decode()
        assert "number" in error["message"]


def wav(samples: Any) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, 16_000, format="WAV")
    return part(b"file", stream.getvalue(), b'; filename="a.wav"')


@pytest.mark.parametrize("samples", [np.zeros(1), np.zeros(16_000), np.full(40_000, 1e-5)])
@pytest.mark.parametrize("path", POSTS)
def test_silence(server: Running, path: str, samples: Any) -> None:
    fields = [part(b"model", b"tiny" if path == TRANSLATIONS else b"tiny-en"), wav(samples)]
    verbose = part(b"response_format", b"verbose_json")
    status, answer = post(server, *fields, verbose, path=path)
    assert status == 200
    if path == TRANSCRIPTIONS:
        assert (answer["text"], answer["segments"]) == ("", [])
        assert answer["language"] == "unknown"
        assert post(server, *fields, verbose, part(b"chunking_strategy", b"auto"))[1] == answer
    assert answer["duration"] == len(samples) / 16_000


@pytest.mark.parametrize("content", [b"", b"RIFF", b"\x00" * 1000, b"ID3\x04", b"fLaC"])
def test_no_audio(server: Running, content: bytes) -> None:
    error = error_of(server, part(b"file", content, b'; filename="a.wav"'))
    assert error["param"] == "file"
    assert error_of(server, wav(np.zeros(0)))["message"].startswith("file: contains no audio")
