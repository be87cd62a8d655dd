"""What a client sends: events as JSON, with audio in base64."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from baldwhisper_mlx.server.errors import ApiError, bad_value
from baldwhisper_mlx.terminal import quoted

MOST_AUDIO = 15 * 2**20
"""Bytes of audio in one event, as OpenAI's."""
MOST_MESSAGE = MOST_AUDIO * 4 // 3 + 2**16
"""Bytes of a message, with audio in base64."""
APPEND = "input_audio_buffer.append"
COMMIT = "input_audio_buffer.commit"
CLEAR = "input_audio_buffer.clear"
UPDATE, BETA_UPDATE = "session.update", "transcription_session.update"
TYPES = (UPDATE, BETA_UPDATE, APPEND, COMMIT, CLEAR)
_LONGEST_ID = 512


@dataclass(frozen=True)
class ClientEvent:
    """An event of the client's."""

    type: str
    id: str | None
    """That the client gave it; errors name it."""
    audio: bytes
    """That an APPEND brings."""
    session: Any
    """The settings that an update brings, not checked."""


class EventError(ApiError):
    """What is wrong with an event, whose identifier it knows."""

    def __init__(self, error: ApiError, event_id: str | None) -> None:
        super().__init__(error.status, error.message, param=error.param, code=error.code)
        self.event_id = event_id


def parse_message(message: Mapping[str, Any]) -> ClientEvent:
    """Reads a message of the client's.

    Args:
        message: of ASGI, of the type websocket.receive.

    Raises:
        EventError: it is none of the events that this server takes.
    """
    text = message.get("text")
    if text is None:
        raise EventError(bad_value("type", "send text: an event as a JSON object"), None)
    try:
        event = json.loads(text)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        code = "invalid_json"
        raise EventError(ApiError(400, "the message is no JSON object", code=code), None)
    event_id = event.get("event_id")
    if not isinstance(event_id, str) or len(event_id) > _LONGEST_ID:
        event_id = None
    try:
        return _checked(event, event_id)
    except ApiError as error:
        raise EventError(error, event_id) from None


def _checked(event: Mapping[str, Any], event_id: str | None) -> ClientEvent:
    if event.get("event_id") is not None and event_id is None:
        raise bad_value("event_id", f"event_id must be text of at most {_LONGEST_ID} characters")
    kind = event.get("type")
    if kind not in TYPES:
        raise bad_value(
            "type",
            f"type: {quoted(kind)} is no event of a transcription session; this server takes "
            f"{', '.join(TYPES)}",
        )
    audio = _audio(event.get("audio")) if kind == APPEND else b""
    return ClientEvent(kind, event_id, audio, event.get("session"))


def _audio(value: Any) -> bytes:
    if not isinstance(value, str):
        raise bad_value("audio", "audio: send the audio in base64")
    try:
        audio = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise bad_value("audio", "audio: this is no base64") from None
    if len(audio) > MOST_AUDIO:
        raise bad_value("audio", f"audio: send at most {MOST_AUDIO} bytes in one event")
    return audio
