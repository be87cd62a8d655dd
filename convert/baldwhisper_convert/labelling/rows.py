"""Rows of a source as clips to label, and the table of the labelled ones.

The table is one of Hugging Face `datasets`: the audio as content, the label as `text`, measures,
and the columns of the source. A column that has the name of one of ours gets `source_` before it.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import soundfile

from baldwhisper_convert.data.windows import WINDOW_SECONDS
from baldwhisper_convert.labelling.measures import Measures
from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.speech_audio import plain
from baldwhisper_mlx.audio.speech_columns import WITHOUT_TEXT, Item
from baldwhisper_mlx.audio.speech_dataset import Audio, SpeechData, decode_audio
from baldwhisper_mlx.config import SAMPLE_RATE

AUDIO, TEXT, ROW = "audio", "text", "source_row"
_MEASURES = ("compression_ratio", "avg_logprob", "wer", "disagreement")
_OWN = (AUDIO, TEXT, "second_text", *_MEASURES, "duration", ROW)


@dataclass(frozen=True)
class Clip:
    """A row that can be labelled."""

    number: int
    """Of the row in the source, from 0."""
    item: Item
    samples: Samples
    """At 16 kHz."""

    @property
    def given(self) -> str:
        """The text that the source has for it; empty if none."""
        return self.item.text or ""


def read_clip(data: SpeechData, number: int) -> Clip:
    """Reads and decodes a row.

    Raises:
        ValueError: it cannot be used; says why.
        FileNotFoundError: its audio is missing.
    """
    item = data[number]
    if item.audio is None or item.fault not in ("", WITHOUT_TEXT):
        raise ValueError(item.fault)
    samples = decode_audio(item.audio, item.name)
    seconds = len(samples) / SAMPLE_RATE
    if not 0 < seconds <= WINDOW_SECONDS:
        raise ValueError(f"{seconds:.2f} s long, not between 0 and {WINDOW_SECONDS:g} s")
    return Clip(number, item, samples)


class Table:
    """What the labelled rows of a source are written as.

    Args:
        data: the source.
        second: whether a second model labels, too.
    """

    def __init__(self, data: SpeechData, *, second: bool) -> None:
        self._second = second
        self._types = _types_of(data)
        names: dict[str, str] = {}
        for name in self._types:
            new = name
            while new in (*_OWN, *names.values()) or (new != name and new in self._types):
                new = f"source_{new}"
            names[name] = new
        self._names = names

    def features(self) -> Any:
        """The columns, as `Features` of `datasets`."""
        import datasets

        own = {AUDIO: datasets.Audio(), TEXT: datasets.Value("string")}
        if self._second:
            own["second_text"] = datasets.Value("string")
        own |= {name: datasets.Value("float32") for name in (*_MEASURES, "duration")}
        own[ROW] = datasets.Value("int64")
        kept = {
            self._names[name]: datasets.Value(kind) if isinstance(kind, str) else kind
            for name, kind in self._types.items()
        }
        return datasets.Features(own | kept)

    def row(self, clip: Clip, text: str, measures: Measures, second_text: str) -> dict[str, Any]:
        """A labelled row."""
        own = {
            AUDIO: _content(clip), TEXT: text, "duration": len(clip.samples) / SAMPLE_RATE,
            ROW: clip.number + 1, **asdict(measures),
        }  # fmt: skip
        if self._second:
            own["second_text"] = second_text
        kept = {
            self._names[name]: _value(clip.item.row.get(name), kind)
            for name, kind in self._types.items()
        }
        return own | kept


def _content(clip: Clip) -> dict[str, Any]:
    """The audio as it is; a part of a recording is cut out and encoded without loss."""
    audio: Audio | None = clip.item.audio
    if isinstance(audio, bytes):
        return {"bytes": audio, "path": None}
    if isinstance(audio, str):
        return {"bytes": Path(audio).read_bytes(), "path": Path(audio).name}
    file = io.BytesIO()
    soundfile.write(file, clip.samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return {"bytes": file.getvalue(), "path": None}


def _types_of(data: SpeechData) -> dict[str, Any]:
    """Columns of a source that are kept, with their types: all but those that hold audio."""
    features = getattr(data.rows, "features", None)
    if features is not None:
        return {
            name: feature
            for name, feature in features.items()
            if name not in data.columns.audio and type(feature).__name__ != "Audio"
        }
    # Only a list is in memory; of tar files, a few rows are read, and their values are text.
    rows = data.rows if data.is_list else [data.rows[i] for i in range(min(len(data), 100))]
    kinds: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.items():
            kinds.setdefault(name, set()).add(_kind(value))
    typed = {name: found - {"null"} for name, found in kinds.items()}
    return {
        name: _common(found) if data.is_list else "string"
        for name, found in typed.items()
        if name != AUDIO and "audio" not in found
    }


def _kind(value: Any) -> str:
    """Type of a value in `datasets`; `audio` for what may be audio."""
    value = plain(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if -(2**63) <= value < 2**63 else "string"
    if isinstance(value, float):
        return "float64"
    plain_text = isinstance(value, (str, list, tuple)) or (
        isinstance(value, dict) and not {"bytes", "array"} & value.keys()
    )
    return "string" if plain_text else "audio"


def _common(found: set[str]) -> str:
    """The type that all values of a column have; text if they differ."""
    if found == {"int64", "float64"}:
        return "float64"
    return found.pop() if len(found) == 1 else "string"


def _value(value: Any, kind: Any) -> Any:
    """A value in the type of its column; text of other values is JSON."""
    value = plain(value)
    if kind != "string" or value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
