"""The published schema: it describes what the server does, as schemathesis finds by trying."""

from __future__ import annotations

import io
import json
import urllib.request
from typing import Any

import jsonschema
import numpy as np
import pytest
import schemathesis
import soundfile
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi_checks
from starlette.routing import Route

from baldwhisper_mlx.server.errors import ApiError
from baldwhisper_mlx.server.field_table import FIELDS, fields_of
from baldwhisper_mlx.server.openapi import describe_api
from baldwhisper_mlx.server.parameters import parse_fields
from tests.runtime.conftest import RATE
from tests.runtime.server.conftest import SPEECH, Running

DOCUMENT = describe_api()


def wav(samples: Any) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, RATE, format="WAV")
    return stream.getvalue()


NOISE = np.random.default_rng(0).normal(0, 0.1, RATE // 50)
FILES = [wav(np.zeros(RATE // 50)), wav(NOISE), wav(np.zeros(0)), b"", b"no audio"]
schemathesis.openapi.format("binary", st.sampled_from(FILES) | st.binary(max_size=50))
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.unsupported_method,
    openapi_checks.allow_header_conformance,
]


@SCHEMA.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_the_server_does_what_it_says(case: Any, server: Running) -> None:
    if case.path.endswith("translations") and isinstance(case.body, dict):
        case.body.setdefault("model", "tiny")  # the default model knows English only
    case.call_and_validate(base_url=server.url, checks=CHECKS, timeout=60)


def test_it_is_published(server: Running) -> None:
    with urllib.request.urlopen(f"{server.url}/openapi.json") as answer:
        assert json.loads(answer.read()) == DOCUMENT
    SCHEMA.validate()  # as an OpenAPI document


def test_its_paths_are_those_of_the_server(server: Running) -> None:
    paths = {
        route.path.replace(":path", "").replace("{name}", "{model}")
        for route in server.app.routes
        if isinstance(route, Route)
    }
    listed = {path.rstrip("/") or "/" for path in paths if not path.startswith("/page/")}
    assert listed == set(DOCUMENT["paths"])


@pytest.mark.parametrize(("path", "task"), [
    ("/v1/audio/transcriptions", "transcribe"), ("/v1/audio/translations", "translate"),
])  # fmt: skip
def test_its_fields_are_those_that_are_read(path: str, task: str) -> None:
    form = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["multipart/form-data"]
    properties = dict(form["schema"]["properties"])
    del properties["file"]
    assert {name.removesuffix("[]") for name in properties} == set(fields_of(task))
    for name, schema in properties.items():
        field = FIELDS[name.removesuffix("[]")]
        values = schema["items"] if name.endswith("[]") else schema
        assert tuple(values.get("enum", ())) == field.choices
        for value in field.choices:
            more = [("response_format", "verbose_json")] if name.startswith("time") else []
            assert parse_fields([(name, value), *more], task)
        if field.kind == "number":
            for limit in (schema["minimum"], schema["maximum"]):
                assert parse_fields([(name, str(limit))], task)
            with pytest.raises(ApiError):
                parse_fields([(name, str(schema["maximum"] + 1))], task)


def check(value: Any, name: str) -> None:
    jsonschema.validate(
        value, {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    )


def test_answers_with_speech(server: Running) -> None:
    create = server.client().audio.transcriptions.with_raw_response.create
    times = {"response_format": "verbose_json", "timestamp_granularities": ["word", "segment"]}
    for options, name in (
        ({}, "Transcription"),
        ({"include": ["logprobs"]}, "Transcription"),
        (times, "VerboseTranscription"),
    ):
        given: dict[str, Any] = {"file": SPEECH, "model": "whisper-1", **options}
        body = json.loads(create(**given).text)
        check(body, name)
        assert set(body) > {"text"}
        kinds = {}
        for line in create(**given, stream=True).http_response.iter_lines():
            if line:
                event = json.loads(line.removeprefix("data: "))
                kinds[event["type"]] = event
        last = kinds["transcript.text.done"]
        assert {key: last[key] for key in body} == body  # with all that the plain answer has
        check(kinds["transcript.text.delta"], "DeltaEvent")
        check(last, "DoneEvent")
        assert ("baldwhisper.segments" in kinds) == (options is times)
        if options is times:
            check(kinds["baldwhisper.segments"], "SegmentsEvent")
