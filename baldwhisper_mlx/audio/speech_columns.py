"""Which columns of labelled speech hold text and audio, and what they hold in a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baldwhisper_mlx.audio.speech_audio import (
    AUDIO_COLUMNS,
    Audio,
    audio_of,
    is_missing,
    plain,
)
from baldwhisper_mlx.audio.speech_lists import BadRow, Row

TEXT_COLUMNS = (
    "text", "sentence", "transcription", "transcript", "normalized_text", "raw_text",
    "raw_transcription", "transcriptions", "normalized_transcription", "utterance_text", "txt",
)  # fmt: skip
"""Names of the column of the transcripts that are found; `text` is preferred to the others."""


WITHOUT_TEXT = "without text"
"""`Item.fault` of a row whose audio can be used."""


@dataclass(frozen=True)
class Columns:
    """The columns that are read."""

    text: str | None
    """None if no text is read."""
    audio: tuple[str, ...]
    """The first of them that a row has is taken."""
    note: str = ""
    """What was chosen, for people; empty if nothing had to be."""


def find_columns(
    source: str, names: Sequence[str], text: str | None, audio: str, *, sampled: Row | None = None
) -> Columns:
    """Finds the columns of the text and the audio.

    Args:
        source: name of the data, for messages.
        names: of the columns that there are.
        text: the wanted column. `text`, which is the default of all commands, is the column of
            that name, or else the only other one of `TEXT_COLUMNS`. None to read no text.
        audio: the wanted column; for `audio`, one of `AUDIO_COLUMNS` is found.
        sampled: a row, by whose values an audio column of another name is found.

    Raises:
        ValueError: a column is not there, or several could be the text; names them.
    """
    there = f"it has {', '.join(names) or 'no columns'}"
    by_name = {name.lower(): name for name in reversed(names)}
    notes = []
    found_text = text
    if text is not None and text not in names:
        if text != TEXT_COLUMNS[0]:
            raise ValueError(f"{source}: no column {text!r}; {there}")
        found = [by_name[name] for name in TEXT_COLUMNS if name in by_name]
        if not found:
            raise ValueError(
                f"{source}: no column {', '.join(TEXT_COLUMNS[:4])} or the like; {there}. Name "
                "the column of the transcripts: --text-column, or text_column in a recipe"
            )
        if len(found) > 1 and by_name.get(TEXT_COLUMNS[0]) != found[0]:
            raise ValueError(
                f"{source}: the text may be in the columns {', '.join(found)}; name one: "
                "--text-column, or text_column in a recipe"
            )
        found_text = found[0]
        notes.append(f"text from the column {found_text!r}")
    elif text == TEXT_COLUMNS[0]:
        others = [by_name[name] for name in TEXT_COLUMNS[1:] if name in by_name]
        if others:
            notes.append(f"text from the column 'text', not from {', '.join(others)}")
    audio_names = _audio_columns(audio, names, by_name, sampled)
    if not audio_names:
        wanted = (
            "" if audio != AUDIO_COLUMNS[0] else f", {', '.join(AUDIO_COLUMNS[1:4])} or similar"
        )
        raise ValueError(
            f"{source}: no column {audio!r}{wanted} for the audio; {there}. Name it: "
            "--audio-column, or audio_column in a recipe"
        )
    if audio_names[0] not in AUDIO_COLUMNS[:4] and audio_names[0] != audio:
        notes.append(f"audio from the column {audio_names[0]!r}")
    return Columns(found_text, audio_names, f"{source}: {', '.join(notes)}" if notes else "")


def _audio_columns(
    wanted: str, names: Sequence[str], by_name: dict[str, str], sampled: Row | None
) -> tuple[str, ...]:
    if wanted != AUDIO_COLUMNS[0]:
        return (wanted,) if wanted in names else ()
    found = [by_name[name] for name in AUDIO_COLUMNS if name in by_name]
    return tuple(found) or tuple(
        name for name in names if sampled and isinstance(plain(sampled.get(name)), dict | bytes)
        and (not isinstance(sampled[name], dict) or {"bytes", "array"} & sampled[name].keys())
    )  # fmt: skip


@dataclass(frozen=True)
class Item:
    """What a row holds."""

    where: str
    """Source and number of the row, counted from 1."""
    row: Row
    audio: Audio | None
    text: str | None
    """Without surrounding white space; may be empty. None if no text is read, or in a bad row."""
    fault: str = ""
    """Why the row cannot be used; empty if it can."""

    @property
    def name(self) -> str:
        """File of the audio; without one, `where`."""
        return (
            self.where if self.audio is None or isinstance(self.audio, bytes) else str(self.audio)
        )


def read_item(row: Row, columns: Columns, base: Path | None, where: str) -> Item:
    """What a row holds, or why it cannot be used. Audio is not decoded.

    Args:
        row: of a source.
        columns: from `find_columns`.
        base: folder that paths are relative to; None for data of the Hub.
        where: source and number of the row.
    """
    if isinstance(row, BadRow):
        where = f"{where} ({row.name})" if row.name else where
        return Item(where, row, None, None, row.reason)
    audio, text, fault = None, None, ""
    try:
        audio = audio_of(row, columns.audio, base)
        if columns.text is not None:
            text = _text(row.get(columns.text))
    except ValueError as error:
        fault = str(error)
    if not fault and audio is None:
        fault = "without audio"
    if not fault and columns.text is not None and text is None:
        fault = WITHOUT_TEXT
    return Item(where, row, audio, text, fault)


def _text(value: Any) -> str | None:
    """The text of a cell; None if it has none.

    Raises:
        ValueError: a value of another type.
    """
    value = plain(value)
    if is_missing(value) and value != "":
        return None
    if not isinstance(value, str):
        raise ValueError(f"its text is {type(value).__name__} and not a string")
    return value.strip()


Say = Callable[[str], None]
"""Receives a line for people."""


def say_nothing(_: str) -> None:
    """Ignores a line."""
