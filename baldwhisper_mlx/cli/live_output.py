"""What `baldwhisper live` shows and writes."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import click

from baldwhisper_mlx.output.writers import write_srt, write_txt, write_vtt
from baldwhisper_mlx.terminal import printable
from baldwhisper_mlx.transcription.live_events import Draft, LiveEvent, Utterance

if TYPE_CHECKING:
    from types import TracebackType

FORMATS = ("txt", "srt", "vtt", "jsonl")
_CLEAR = "\r\x1b[K"
_VTT_HEADER = "WEBVTT\n\n"


class LivePrinter:
    """Utterances as lines on standard output; on a terminal also the draft, on the last line."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()

    def show(self, event: LiveEvent) -> None:
        """Shows a draft in one line, or prints an utterance."""
        if isinstance(event, Utterance):
            text = printable(event.text.strip())
            clear = _CLEAR if self._is_terminal else ""
            click.echo(f"{clear}{text}", nl=bool(text))
        elif isinstance(event, Draft) and self._is_terminal:
            columns = shutil.get_terminal_size().columns
            sys.stdout.write(_CLEAR + draft_line(event, columns - 1))
        sys.stdout.flush()


def draft_line(draft: Draft, columns: int) -> str:
    """The end of a draft that fits into some columns, its unconfirmed part dimmed.

    Args:
        draft: the newest one.
        columns: of the terminal.
    """
    confirmed = printable(draft.confirmed.lstrip())
    rest = printable(draft.unconfirmed if confirmed else draft.unconfirmed.lstrip())
    shown, width = len(confirmed + rest), 0
    for character in reversed(confirmed + rest):
        width += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if width > columns:
            break
        shown -= 1
    confirmed, rest = confirmed[shown:], rest[max(0, shown - len(confirmed)) :]
    return confirmed + (click.style(rest, dim=True) if rest else "")


class UtteranceFile:
    """A transcript that grows by utterances, each on disk before the next one begins.

    Args:
        path: ends with one of `FORMATS`.
        force: replace the file if it exists.

    Raises:
        ValueError: another ending, or the file exists.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path, *, force: bool) -> None:
        self._format = path.suffix[1:].lower()
        if self._format not in FORMATS:
            raise ValueError(f"{path}: the name must end with .{', .'.join(FORMATS)}")
        try:
            self._file = path.open("w" if force else "x", encoding="utf-8", newline="\n")
        except FileExistsError:
            raise ValueError(f"{path} exists: give another name, or --force") from None
        self._n_written = 0
        if self._format == "vtt":
            self._append(_VTT_HEADER)

    def __enter__(self) -> UtteranceFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, event: LiveEvent) -> None:
        """Appends an utterance that has text; other events are nothing to write.

        Raises:
            OSError: it cannot be written.
        """
        if isinstance(event, Utterance) and event.text.strip():
            self._append(self._text_of(event))

    def _text_of(self, utterance: Utterance) -> str:
        segments = [segment for segment in utterance.segments if segment.text.strip()]
        if self._format == "srt":
            first, self._n_written = self._n_written + 1, self._n_written + len(segments)
            return write_srt(segments, first=first)
        if self._format == "vtt":
            return write_vtt(segments).removeprefix(_VTT_HEADER)
        if self._format == "txt":
            return write_txt(segments)
        return json.dumps(dataclasses.asdict(utterance), ensure_ascii=False) + "\n"

    def _append(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()
        os.fsync(self._file.fileno())
