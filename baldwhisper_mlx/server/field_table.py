"""The fields of requests: what may stand in them, and what they mean.

The parser (parameters.py) and the published schema (openapi.py) read the same table. Names and
meanings are those of OpenAI's API reference.
"""

from __future__ import annotations

from dataclasses import dataclass

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
STREAMED_FORMATS = ("json", "text", "verbose_json")
GRANULARITIES = ("word", "segment")
INCLUDED = ("logprobs",)
_LONGEST_TIME = 60_000
"""Milliseconds of a pause, or of padding, that can be asked for."""


@dataclass(frozen=True)
class Field:
    """One text field of a form."""

    kind: str
    """string, number, boolean, or list, of which each value is a string."""
    meaning: str
    choices: tuple[str, ...] = ()
    """What a value may be, if there are a few."""
    least: float = 0.0
    """Of a number."""
    most: float = 1.0
    """Of a number."""
    default: str | None = None
    in_translations: bool = False
    commas: bool = True
    """Whether a value of a list may hold several, with commas between them."""


FIELDS = {
    "model": Field(
        "string",
        "A name from /v1/models; OpenAI's names, and none, stand for the first model.",
        in_translations=True,
    ),
    "language": Field(
        "string",
        "Code or English name of the spoken language; of a tag such as en-US the language counts. "
        "Detected if it is left out.",
    ),
    "languages": Field(
        "list", "Languages among which it is detected; not together with `language`."
    ),
    "prompt": Field(
        "string", "Text on which the first window is conditioned.", in_translations=True
    ),
    "keywords": Field(
        "list", "Names and terms on which every window is conditioned.", commas=False
    ),
    "temperature": Field(
        "number",
        "0 means rising temperatures while the output is poor.",
        default="0",
        in_translations=True,
    ),
    "response_format": Field(
        "string", "Of the answer.", FORMATS, default="json", in_translations=True
    ),
    "timestamp_granularities": Field(
        "list", "Times in verbose_json; `segment` if it is left out.", GRANULARITIES
    ),
    "include": Field("list", "logprobs: the log-probability of every token, with json.", INCLUDED),
    "stream": Field(
        "boolean",
        f"Whether the answer comes as server-sent events; with {', '.join(STREAMED_FORMATS)}.",
        default="false",
    ),
    "chunking_strategy": Field(
        "string", "Leaves out pauses; `auto` and `server_vad` are the same.", ("auto", "server_vad")
    ),
    "chunking_strategy[type]": Field("string", "Leaves out pauses.", ("server_vad",)),
    "chunking_strategy[threshold]": Field(
        "number", "Probability of speech from which on something is speech."
    ),
    "chunking_strategy[prefix_padding_ms]": Field(
        "number", "Milliseconds that are kept before and after speech.", most=_LONGEST_TIME
    ),
    "chunking_strategy[silence_duration_ms]": Field(
        "number", "Milliseconds of silence that are a pause.", most=_LONGEST_TIME
    ),
}
"""By name; that of a list without the brackets that it can have."""


def fields_of(task: str) -> dict[str, Field]:
    """The fields of a request.

    Args:
        task: "transcribe", or "translate", for which there are fewer.
    """
    if task == "transcribe":
        return FIELDS
    return {name: field for name, field in FIELDS.items() if field.in_translations}
