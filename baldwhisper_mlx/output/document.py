"""The JSON document of a transcript: its keys, its version, and how it is written.

docs/transcript.schema.json describes it, docs/output.md says what changes the version. Standard
library only.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from baldwhisper_mlx.output.segment import Segment

VERSION = 1
"""Of the document; it increases when a key is removed or renamed, or gets another meaning."""
_OPTIONAL = ("words", "channel", "language")
"""Keys of a segment that are there only if they have a value."""


def to_document(
    text: str, segments: Sequence[Segment], language: str | None, duration: float
) -> dict[str, Any]:
    """A transcript as a dictionary, in the layout of OpenAI's JSON output.

    Args:
        text: of all segments.
        segments: in their order.
        language: code; None if nothing is spoken.
        duration: of the audio, in seconds.

    Returns:
        OpenAI's keys, then `duration` and `version`. Numbers are as they are, NaN included.
    """
    return {
        "text": text,
        "segments": [_segment(segment) for segment in segments],
        "language": language,
        "duration": duration,
        "version": VERSION,
    }


def write_json(document: Mapping[str, Any]) -> str:
    """A document as one line of JSON, with null for a number that is not finite.

    Args:
        document: from `to_document`.
    """
    return json.dumps(finite(document), ensure_ascii=False, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """The JSON value with None instead of NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _segment(segment: Segment) -> dict[str, Any]:
    raw = dataclasses.asdict(segment)
    del raw["logprobs"]
    raw["tokens"] = list(segment.tokens)
    if segment.words is not None:
        raw["words"] = list(raw["words"])
    return {key: value for key, value in raw.items() if value is not None or key not in _OPTIONAL}
