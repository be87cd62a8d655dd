"""What the server sends: events as OpenAI's, and the state of the items that they are about."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from baldwhisper_mlx.server.errors import INTERNAL, ApiError

Event = dict[str, Any]
"""Without its identifier."""
_TRANSCRIPTION = "conversation.item.input_audio_transcription"


def new_id(kind: str) -> str:
    """An identifier, such as item_3f..."""
    return f"{kind}_{secrets.token_hex(12)}"


def error_event(error: ApiError, event_id: str | None = None) -> Event:
    """The event of an error.

    Args:
        error: what is wrong.
        event_id: of the client's event, if it gave one.
    """
    return {"type": "error", "error": {**error.body()["error"], "event_id": event_id}}


def milliseconds(seconds: float) -> int:
    """Seconds as OpenAI's events give them."""
    return round(1000 * seconds)


@dataclass(eq=False)
class Item:
    """Audio that becomes one transcript."""

    start: float
    """Seconds of the session at which it begins."""
    id: str = field(default_factory=lambda: new_id("item"))
    _text: str = ""
    """That the deltas so far make."""
    _unconfirmed: str = ""

    def speech_started(self) -> Event:
        """The event of its beginning."""
        start = milliseconds(self.start)
        return self._event("input_audio_buffer.speech_started", audio_start_ms=start)

    def speech_stopped(self, end: float) -> Event:
        """The event of its end, at a second of the session."""
        end_ms = milliseconds(end)
        return self._event("input_audio_buffer.speech_stopped", audio_end_ms=end_ms)

    def delta(self, confirmed: str, unconfirmed: str) -> list[Event]:
        """The event of a draft; none if it says nothing new.

        Args:
            confirmed: all text that stays, which the text of the last draft begins.
            unconfirmed: what follows and may change.
        """
        confirmed = confirmed.lstrip()
        if not confirmed:
            unconfirmed = unconfirmed.lstrip()
        if (confirmed, unconfirmed) == (self._text, self._unconfirmed):
            return []
        text, self._text, self._unconfirmed = self._text, confirmed, unconfirmed
        return [
            self._content(
                "delta", delta=confirmed[len(text) :], unconfirmed=unconfirmed, logprobs=None
            )
        ]

    def completed(
        self,
        transcript: str,
        seconds: float,
        language: str | None,
        logprobs: list[dict[str, Any]] | None = None,
    ) -> list[Event]:
        """The events of the final text: a last delta, if one is missing, and the text.

        Args:
            transcript: as it is, with the space before it.
            seconds: of the audio.
            language: code; None if it is not known.
            logprobs: of the tokens, if the session includes them.
        """
        transcript = transcript.strip()
        last = self.delta(transcript, "") if transcript.startswith(self._text) else []
        usage = {"type": "duration", "seconds": round(seconds, 3)}
        languages = [] if language is None else [{"code": language}]
        completed = self._content(
            "completed", transcript=transcript, usage=usage, languages=languages, logprobs=logprobs
        )
        return [*last, completed]

    def failed(self) -> Event:
        """The event of a transcription that the server failed at."""
        error = ApiError(500, INTERNAL, code="internal_error")
        return self._content("failed", error=error.body()["error"])

    def _content(self, kind: str, **fields: Any) -> Event:
        return self._event(f"{_TRANSCRIPTION}.{kind}", content_index=0, **fields)

    def _event(self, kind: str, **fields: Any) -> Event:
        return {"type": kind, "item_id": self.id, **fields}


class Conversation:
    """The order of the items of a session.

    Args:
        is_beta: whether the client speaks the protocol of the beta.
    """

    def __init__(self, *, is_beta: bool) -> None:
        self.is_beta = is_beta
        self._previous: str | None = None

    def add(self, item: Item) -> Sequence[Event]:
        """The events of an item whose audio is complete."""
        previous, self._previous = self._previous, item.id
        committed: Event = {"type": "input_audio_buffer.committed", "item_id": item.id}
        content = {"type": "input_audio", "transcript": None}
        described = {
            "id": item.id,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [content],
        }
        names = ("created",) if self.is_beta else ("added", "done")
        added: list[Event] = [
            {"type": f"conversation.item.{name}", "item": described} for name in names
        ]
        return [event | {"previous_item_id": previous} for event in (committed, *added)]
