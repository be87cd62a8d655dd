"""What `baldwhisper live` shows and writes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import click

from baldwhisper_mlx.files import write_files
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.output.writers import write_srt, write_txt, write_vtt
from baldwhisper_mlx.terminal import message_of, printable
from baldwhisper_mlx.transcription.live_events import Draft, LiveEvent, Utterance

if TYPE_CHECKING:
    from types import TracebackType

FORMATS = ("txt", "srt", "vtt", "jsonl")
_CLEAR = "\r\x1b[K"
_VTT_HEADER = "WEBVTT\n\n"


class LivePrinter:
    """Utterances as lines on standard output; on a terminal also the draft, on the last line.

    A draft takes one line, which it never fills, so that nothing wraps. Unless the environment has
    NO_COLOR, the words that may still change are dimmed.
    """

    def __init__(self) -> None:
        self.shows_drafts = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        """Whether standard output is a terminal that can erase a line."""
        self._dims = not os.environ.get("NO_COLOR")
        self._has_draft = False

    def show(self, event: LiveEvent) -> None:
        """Shows a draft in one line, or prints an utterance.

        Raises:
            OSError: standard output is closed.
        """
        if isinstance(event, Utterance):
            text = printable(event.text.strip())
            click.echo(f"{self._clear()}{text}", nl=bool(text))
        elif isinstance(event, Draft) and self.shows_drafts:
            columns = shutil.get_terminal_size().columns
            line = draft_line(event, columns - 1, dims=self._dims)
            sys.stdout.write(self._clear() + line)
            self._has_draft = bool(line)
        sys.stdout.flush()

    def warn(self, message: str) -> None:
        """Prints a warning on standard error, below no draft."""
        with contextlib.suppress(OSError):
            self.clear()
        click.echo(f"warning: {printable(message)}", err=True)

    def clear(self) -> None:
        """Erases the draft, if one is shown.

        Raises:
            OSError: standard output is closed.
        """
        sys.stdout.write(self._clear())
        sys.stdout.flush()

    def _clear(self) -> str:
        had, self._has_draft = self._has_draft, False
        return _CLEAR if had else ""


def draft_line(draft: Draft, columns: int, *, dims: bool = True) -> str:
    """The end of a draft that fits into some columns.

    Args:
        draft: the newest one.
        columns: of the terminal.
        dims: whether its unconfirmed part is dimmed.
    """
    confirmed = printable(draft.confirmed.lstrip())
    rest = printable(draft.unconfirmed if confirmed else draft.unconfirmed.lstrip())
    shown, width = len(confirmed + rest), 0
    for character in reversed(confirmed + rest):
        width += _columns(character)
        if width > columns:
            break
        shown -= 1
    confirmed, rest = confirmed[shown:], rest[max(0, shown - len(confirmed)) :]
    return confirmed + (click.style(rest, dim=True) if rest and dims else rest)


def _columns(character: str) -> int:
    """How many columns of a terminal a character takes."""
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def check_output(path: Path, *, force: bool) -> None:
    """Makes sure that `UtteranceFile` can begin, before any work is done.

    Args:
        path: as there.
        force: as there.

    Raises:
        ValueError: another ending, no such folder, or the file exists.
    """
    if path.suffix[1:].lower() not in FORMATS:
        raise ValueError(f"{path}: the name must end with .{', .'.join(FORMATS)}")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}: create it")
    if not force and os.path.lexists(path):
        raise ValueError(f"{path} exists: give another name, or --force")


class UtteranceFile:
    """A transcript that grows by utterances, each on disk before the next one begins.

    It is a valid file at any moment: an utterance is written at once, and taken back if there is no
    room for all of it.

    Args:
        path: ends with one of `FORMATS`.
        force: replace the file if it exists.

    Raises:
        ValueError: as `check_output`. OSError: it cannot be written.
    """

    def __init__(self, path: Path, *, force: bool) -> None:
        check_output(path, force=force)
        self._path, self._format = path, path.suffix[1:].lower()
        header = _VTT_HEADER if self._format == "vtt" else ""
        write_files({path: header}, force=force)
        self._file = path.open("ab", buffering=0)
        self._size, self._n_segments = len(header), 0

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
        if not isinstance(event, Utterance) or not event.text.strip():
            return
        try:
            self._append(self._text_of(event).encode())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
            reason = error.strerror or message_of(error)
            raise OSError(
                f"{self._path}: cannot be written ({reason}); it ends before the utterance at "
                f"{event.start:.1f} s"
            ) from None
        self._n_segments += len(_with_text(event))

    def _text_of(self, utterance: Utterance) -> str:
        segments = _with_text(utterance)
        if self._format == "srt":
            return write_srt(segments, first=self._n_segments + 1)
        if self._format == "vtt":
            return write_vtt(segments).removeprefix(_VTT_HEADER)
        if self._format == "txt":
            return write_txt(segments)
        return json.dumps(dataclasses.asdict(utterance), ensure_ascii=False) + "\n"

    def _append(self, data: bytes) -> None:
        written = 0
        while written < len(data):
            written += os.write(self._file.fileno(), data[written:])
        os.fsync(self._file.fileno())
        self._size += len(data)


def _with_text(utterance: Utterance) -> list[Segment]:
    return [segment for segment in utterance.segments if segment.text.strip()]
