"""The API as an OpenAPI 3.1 document, from the table that the parser of forms reads.

https://spec.openapis.org/oas/v3.1.1
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from baldwhisper_mlx._version import __version__
from baldwhisper_mlx.server.field_table import Field, fields_of
from baldwhisper_mlx.server.openapi_schemas import SCHEMAS, Schema, list_of, reference
from baldwhisper_mlx.server.realtime.endpoint import PATH
from baldwhisper_mlx.server.responses import MEDIA_TYPES, WARNINGS_HEADER

_KEY = "api_key"
_REASONS = {
    400: "a value that is not possible, a damaged form, or no audio in the file",
    401: "no API key, or a wrong one",
    403: "a Host or an Origin that is not accepted",
    404: "there is no such model",
    408: "the request came too slowly",
    413: "the file is larger than the server takes",
    415: "the body is not multipart/form-data",
    426: "the path is a WebSocket",
    429: "too many requests are waiting; Retry-After says when to try again",
    500: "the server failed; its log says why",
}
_OF_POST = (400, 401, 403, 404, 408, 413, 415, 429, 500)
_OF_GET = (401, 403, 500)


def describe_api() -> dict[str, Any]:
    """The document.

    Example:
        >>> list(describe_api()["paths"])[:2]
        ['/v1/audio/transcriptions', '/v1/audio/translations']
    """
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "baldwhisper serve",
            "version": __version__,
            "description": (
                "OpenAI's audio API. Files of the page at / are not listed. Fields of forms with "
                "other names are ignored."
            ),
        },
        "paths": {
            "/v1/audio/transcriptions": {"post": _upload("transcribe")},
            "/v1/audio/translations": {"post": _upload("translate")},
            "/v1/models": {
                "get": _get("list_models", "The models that are served.", reference("Models"))
            },
            "/v1/models/{model}": {"get": _describe_model()},
            "/health": {
                "get": _get("health", "Whether the server answers.", reference("Health"), open=True)
            },
            PATH: {"get": _realtime()},
            "/openapi.json": {"get": _get("schema", "This document.", {"type": "object"})},
            "/": {"get": _page()},
        },
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                _KEY: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Only where the server was started with a key.",
                }
            },
        },
    }


def _upload(task: str) -> dict[str, Any]:
    fields = fields_of(task)
    names = {"transcribe": "Transcription", "translate": "Translation"}
    text = {"schema": {"type": "string"}}
    content: dict[str, Any] = {
        "application/json": {
            "schema": {"anyOf": [reference(names[task]), reference(f"Verbose{names[task]}")]}
        },
        **{media_type.partition(";")[0]: text for media_type in MEDIA_TYPES.values()},
    }
    if task == "transcribe":
        events = [reference(name) for name in ("DeltaEvent", "SegmentsEvent", "DoneEvent", "Error")]
        data = {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"anyOf": events},
        }
        content["text/event-stream"] = {
            "schema": {
                "type": "object",
                "description": "One of the events.",
                "properties": {
                    "event": {"type": "string", "description": "`error`, or missing."},
                    "data": data,
                },
                "required": ["data"],
            }
        }
    answer = {
        "description": "The text, in the format that response_format names.",
        "headers": {
            WARNINGS_HEADER: {
                "description": "What the client should know, if there is anything; a list of "
                "texts as JSON. A stream has it in its last event.",
                "content": {"application/json": {"schema": list_of({"type": "string"})}},
            }
        },
        "content": content,
    }
    return {
        "operationId": task,
        "summary": {
            "transcribe": "Transcribes a file.",
            "translate": "Translates a file into English.",
        }[task],
        "security": [{_KEY: []}, {}],
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": _form(fields)}},
        },
        "responses": {"200": answer, **_errors(_OF_POST)},
    }


def _form(fields: dict[str, Field]) -> Schema:
    properties: Schema = {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "Audio or video; its content decides the format, not its name.",
        }
    }
    for name, field in fields.items():
        if field.kind == "list":
            properties[f"{name}[]"] = _field(field)
        else:
            properties[name] = _field(field)
    return {
        "type": "object",
        "properties": properties,
        "required": ["file"],
        "additionalProperties": True,
    }


def _field(field: Field) -> Schema:
    schema: Schema = {"type": "string", "enum": list(field.choices)} if field.choices else {}
    if field.kind == "list":
        return {
            "type": "array",
            "items": schema or {"type": "string"},
            "description": field.meaning
            + (" A value can hold several, with commas." if field.commas else "")
            + " The name can stand without brackets.",
        }
    if field.kind == "number":
        schema = {"type": "number", "minimum": field.least, "maximum": field.most}
    elif field.kind == "boolean":
        schema = {"type": "boolean"}
    elif not schema:
        schema = {"type": "string"}
    if field.default is not None:
        number = field.kind == "number"
        schema["default"] = float(field.default) if number else field.default
        if field.kind == "boolean":
            schema["default"] = field.default == "true"
    return {**schema, "description": field.meaning}


def _get(
    name: str, summary: str, schema: Schema, *, open: bool = False, errors: Sequence[int] = _OF_GET
) -> dict[str, Any]:
    """A path that is read; `open` for one that needs no key."""
    return {
        "operationId": name,
        "summary": summary,
        "security": [] if open else [{_KEY: []}, {}],
        "responses": {
            "200": {
                "description": summary,
                "content": {"application/json": {"schema": schema}},
            },
            **_errors(errors),
        },
    }


def _describe_model() -> dict[str, Any]:
    operation = _get("describe_model", "One model.", reference("Model"), errors=(404, *_OF_GET))
    operation["parameters"] = [
        {
            "name": "model",
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1},
            "description": "May contain slashes.",
        }
    ]
    return operation


def _realtime() -> dict[str, Any]:
    operation = _get("realtime", "OpenAI's realtime transcription sessions, over a WebSocket.", {})
    operation["responses"] = {
        "101": {"description": "The connection is a WebSocket from now on."},
        **_errors((426, *_OF_GET)),
    }
    return operation


def _page() -> dict[str, Any]:
    operation = _get("page", "The page that uses this API.", {}, open=True)
    operation["responses"]["200"]["content"] = {"text/html": {"schema": {"type": "string"}}}
    return operation


def _errors(codes: Sequence[int]) -> dict[str, Any]:
    return {
        str(code): {
            "description": _REASONS[code],
            "content": {"application/json": {"schema": reference("Error")}},
        }
        for code in sorted(codes)
    }
