"""A transcription as server-sent events: OpenAI's, and one with the times of finished segments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from baldwhisper_mlx.output.document import finite
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.server.logprobs import logprobs_of
from baldwhisper_mlx.server.parameters import Parameters
from baldwhisper_mlx.server.responses import json_body, timed_parts
from baldwhisper_mlx.text.tokenizer import Tokenizer

DELTA = "transcript.text.delta"
DONE = "transcript.text.done"
SEGMENTS = "baldwhisper.segments"
"""Not OpenAI's, whose transcript.text.segment has a speaker; only with verbose_json."""


class Events:
    """The events of a transcription, whose deltas together are the text of the last one.

    Args:
        parameters: of the request.
        tokenizer: of the model.
    """

    def __init__(self, parameters: Parameters, tokenizer: Tokenizer) -> None:
        self._parameters, self._tokenizer = parameters, tokenizer
        self._begun = False
        self._space = ""
        """At the end of the text so far; it is sent if more text follows."""
        self._unsent: list[Segment] = []
        """Whose text has not been in a delta."""

    def of(self, segments: Sequence[Segment]) -> list[dict[str, Any]]:
        """The events of finished segments.

        Args:
            segments: the next ones.
        """
        events = []
        self._unsent += segments
        text = self._space + "".join(segment.text for segment in segments)
        delta = text.rstrip()
        self._space = text[len(delta) :]
        if not self._begun:
            delta, self._space = delta.lstrip(), self._space if delta else ""
        if delta:
            self._begun = True
            event: dict[str, Any] = {"type": DELTA, "delta": delta}
            if self._parameters.logprobs:
                event["logprobs"] = logprobs_of(self._unsent, self._tokenizer)
            self._unsent = []
            events.append(event)
        if self._parameters.response_format == "verbose_json" and segments:
            events.append({"type": SEGMENTS, **timed_parts(segments, self._parameters)})
        return events

    def done(self, transcript: Transcript, warnings: Sequence[str]) -> dict[str, Any]:
        """The last event, with all that an answer which is not streamed has.

        Args:
            transcript: of the segments so far.
            warnings: what the client should know.
        """
        body = json_body(transcript, self._parameters, self._tokenizer)
        return {"type": DONE, **body, **({"warnings": list(warnings)} if warnings else {})}


def event_bytes(data: Mapping[str, Any], name: str | None = None) -> bytes:
    """A server-sent event.

    Args:
        data: which becomes JSON, on one line.
        name: of an event that is no message.
    """
    head = f"event: {name}\n" if name is not None else ""
    line = json.dumps(finite(data), ensure_ascii=False, allow_nan=False)
    return f"{head}data: {line}\n\n".encode()
