"""The JSON schemas of what the API answers, for openapi.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

STRING: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
NULLABLE_NUMBER: Schema = {"type": ["number", "null"]}
"""Null stands for a number that is not finite."""
SECONDS: Schema = {"type": "number", "minimum": 0}


def reference(name: str) -> Schema:
    """A reference to one of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def list_of(items: Schema) -> Schema:
    """A list of some kind."""
    return {"type": "array", "items": items}


def object_of(properties: Mapping[str, Schema], *optional: str, closed: bool = True) -> Schema:
    """An object.

    Args:
        properties: by name.
        optional: names of those that can be missing.
        closed: whether there are no others.
    """
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": not closed,
    }


_USAGE = object_of({"type": {"const": "duration"}, "seconds": SECONDS})
_TEXT = {"type": "string", "description": "The whole text, without space at its ends."}
_TIMED: dict[str, Schema] = {
    "segments": list_of(reference("Segment")),
    "words": list_of(reference("Word")),
}
_VERBOSE: dict[str, Schema] = {
    "task": {"enum": ["transcribe", "translate"]},
    "language": {"type": "string", "description": "A name; `unknown` where nobody speaks."},
    "duration": SECONDS,
    "text": _TEXT,
    **_TIMED,
    "usage": _USAGE,
}
_LOGPROBS = list_of(reference("Logprob"))

SCHEMAS: dict[str, Schema] = {
    "Error": object_of(
        {
            "error": object_of(
                {
                    "message": STRING,
                    "type": {
                        "enum": [
                            "invalid_request_error",
                            "authentication_error",
                            "rate_limit_error",
                            "server_error",
                        ]
                    },
                    "param": {
                        "type": ["string", "null"],
                        "description": "The field that is wrong.",
                    },
                    "code": {"type": ["string", "null"]},
                }
            )
        }
    ),
    "Logprob": object_of(
        {
            "token": {
                "type": "string",
                "description": "Its text; `bytes:\\xe2\\x80` for a part of a character.",
            },
            "logprob": NULLABLE_NUMBER,
            "bytes": list_of({"type": "integer", "minimum": 0, "maximum": 255}),
        }
    ),
    "Word": object_of({"word": STRING, "start": SECONDS, "end": SECONDS}),
    "Segment": object_of(
        {
            "id": INTEGER,
            "seek": INTEGER,
            "start": SECONDS,
            "end": SECONDS,
            "text": STRING,
            "tokens": list_of(INTEGER),
            "temperature": NULLABLE_NUMBER,
            "avg_logprob": NULLABLE_NUMBER,
            "compression_ratio": NULLABLE_NUMBER,
            "no_speech_prob": NULLABLE_NUMBER,
        }
    ),
    "Transcription": object_of({"text": _TEXT, "logprobs": _LOGPROBS, "usage": _USAGE}, "logprobs"),
    "VerboseTranscription": object_of(_VERBOSE, "segments", "words"),
    "Translation": object_of({"text": _TEXT}),
    "VerboseTranslation": object_of(
        {name: schema for name, schema in _VERBOSE.items() if name not in ("usage", "words")}
    ),
    "DeltaEvent": object_of(
        {"type": {"const": "transcript.text.delta"}, "delta": STRING, "logprobs": _LOGPROBS},
        "logprobs",
    ),
    "SegmentsEvent": object_of(
        {"type": {"const": "baldwhisper.segments"}, **_TIMED}, "segments", "words"
    ),
    "DoneEvent": object_of(
        {
            "type": {"const": "transcript.text.done"},
            **_VERBOSE,
            "logprobs": _LOGPROBS,
            "warnings": list_of(STRING),
        },
        *("task", "language", "duration", "segments", "words", "logprobs", "warnings"),
    ),
    "Model": object_of(
        {"id": STRING, "object": {"const": "model"}, "created": INTEGER, "owned_by": STRING}
    ),
    "Models": object_of({"object": {"const": "list"}, "data": list_of(reference("Model"))}),
    "Health": object_of({"status": {"const": "ok"}}),
}
"""By name."""
