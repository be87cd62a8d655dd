"""Transcripts as OpenAI's API answers them: json, text, srt, verbose_json and vtt."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from baldwhisper_mlx.output.document import finite
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.server.logprobs import logprobs_of
from baldwhisper_mlx.server.parameters import Parameters
from baldwhisper_mlx.text.languages import LANGUAGES
from baldwhisper_mlx.text.tokenizer import Tokenizer

MEDIA_TYPES = {
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}
UNKNOWN = "unknown"
"""In place of a language where nobody speaks."""
WARNINGS_HEADER = "X-Baldwhisper-Warnings"
"""Of an answer whose client should know something; its value is a list of texts in JSON."""
_LONGEST_WARNINGS = 2000
"""Characters of warnings in a header, because clients refuse long ones; the log has all."""


def answer(
    transcript: Transcript,
    parameters: Parameters,
    tokenizer: Tokenizer,
    warnings: Sequence[str] = (),
) -> Response:
    """The answer to a request that is not streamed.

    Args:
        transcript: with words, if the request asks for them.
        parameters: of the request.
        tokenizer: of the model.
        warnings: what the client should know, for a header.
    """
    headers = {WARNINGS_HEADER: _header(warnings)} if warnings else None
    kind = parameters.response_format
    if kind == "text":
        text = f"{transcript.text.strip()}\n"
        return Response(text, media_type=MEDIA_TYPES[kind], headers=headers)
    if kind in MEDIA_TYPES:
        text = transcript.to_format(kind)
        return Response(text, media_type=MEDIA_TYPES[kind], headers=headers)
    return JSONResponse(finite(json_body(transcript, parameters, tokenizer)), headers=headers)


def _header(warnings: Sequence[str]) -> str:
    """Warnings as JSON in ASCII, which holds no character that a header cannot have."""
    kept = [
        warning
        for warning, size in zip(warnings, itertools.accumulate(map(len, warnings)), strict=True)
        if size <= _LONGEST_WARNINGS
    ]
    n_left_out = len(warnings) - len(kept)
    return json.dumps([*kept, *([f"and {n_left_out} more"] if n_left_out else [])])


def json_body(
    transcript: Transcript, parameters: Parameters, tokenizer: Tokenizer
) -> dict[str, Any]:
    """The fields of an answer in json or verbose_json; arguments as for `answer`."""
    body: dict[str, Any] = {"text": transcript.text.strip()}
    if parameters.response_format == "verbose_json":
        body = _verbose(transcript, parameters, body["text"])
    if parameters.logprobs:
        body["logprobs"] = logprobs_of(transcript.segments, tokenizer)
    if parameters.options.task == "transcribe":
        body["usage"] = {"type": "duration", "seconds": transcript.duration}
    return body


def timed_parts(segments: Sequence[Segment], parameters: Parameters) -> dict[str, Any]:
    """Segments and words as verbose_json has them, those that the request asks for.

    Args:
        segments: in their order.
        parameters: of the request.
    """
    parts: dict[str, Any] = {}
    if "segment" in parameters.granularities:
        parts["segments"] = [_segment(segment) for segment in segments]
    if "word" in parameters.granularities:
        parts["words"] = [
            {"word": word.word.strip(), "start": word.start, "end": word.end}
            for segment in segments
            for word in segment.words or ()
        ]
    return parts


def _verbose(transcript: Transcript, parameters: Parameters, text: str) -> dict[str, Any]:
    task, code = parameters.options.task, transcript.language
    language = UNKNOWN if code is None else LANGUAGES.get(code, code)
    return {
        "task": task,
        "language": "english" if task == "translate" else language,
        "duration": transcript.duration,
        "text": text,
        **timed_parts(transcript.segments, parameters),
    }


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
