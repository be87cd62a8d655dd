"""Transcripts as OpenAI's API answers them: json, text, srt, verbose_json and vtt; and events."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from baldwhisper_mlx.output.document import finite
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.server.parameters import Parameters
from baldwhisper_mlx.text.languages import LANGUAGES

MEDIA_TYPES = {
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}
UNKNOWN = "unknown"
"""In place of a language where nobody speaks."""


def answer(transcript: Transcript, parameters: Parameters) -> Response:
    """The answer to a request that is not streamed.

    Args:
        transcript: with words, if the request asks for them.
        parameters: of the request.
    """
    kind = parameters.response_format
    if kind == "text":
        return Response(f"{transcript.text.strip()}\n", media_type=MEDIA_TYPES[kind])
    if kind in MEDIA_TYPES:
        return Response(transcript.to_format(kind), media_type=MEDIA_TYPES[kind])
    if kind == "verbose_json":
        return JSONResponse(finite(_verbose(transcript, parameters)))
    body: dict[str, Any] = {"text": transcript.text.strip()}
    if parameters.options.task == "transcribe":
        body["usage"] = _usage(transcript)
    return JSONResponse(body)


def done_event(transcript: Transcript) -> dict[str, Any]:
    """The last event of a stream."""
    return {
        "type": "transcript.text.done",
        "text": transcript.text.strip(),
        "usage": _usage(transcript),
    }


class Deltas:
    """The text of a transcription as events, whose deltas together are the text of the last one."""

    def __init__(self) -> None:
        self._begun = False

    def of(self, segments: Sequence[Segment]) -> dict[str, Any] | None:
        """The event of finished segments; None if they have no text."""
        text = "".join(segment.text for segment in segments)
        if not self._begun:
            text = text.lstrip()
        if not text:
            return None
        self._begun = True
        return {"type": "transcript.text.delta", "delta": text}


def event_bytes(data: Mapping[str, Any], name: str | None = None) -> bytes:
    """A server-sent event.

    Args:
        data: which becomes JSON, on one line.
        name: of an event that is no message.
    """
    head = f"event: {name}\n" if name is not None else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def _verbose(transcript: Transcript, parameters: Parameters) -> dict[str, Any]:
    task, code = parameters.options.task, transcript.language
    language = UNKNOWN if code is None else LANGUAGES.get(code, code)
    body: dict[str, Any] = {
        "task": task,
        "language": "english" if task == "translate" else language,
        "duration": transcript.duration,
        "text": transcript.text.strip(),
    }
    if "segment" in parameters.granularities:
        body["segments"] = [_segment(segment) for segment in transcript.segments]
    if "word" in parameters.granularities:
        body["words"] = [
            {"word": word.word.strip(), "start": word.start, "end": word.end}
            for segment in transcript.segments
            for word in segment.words or ()
        ]
    if task == "transcribe":
        body["usage"] = _usage(transcript)
    return body


def _segment(segment: Segment) -> dict[str, Any]:
    return {
        "id": segment.id,
        "seek": segment.seek,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
    }


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": transcript.duration}
