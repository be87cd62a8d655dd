"""What a terminal shows of a live transcription, by a small terminal of our own."""

from __future__ import annotations

import io
import os
import re
import unicodedata
from typing import Any

import numpy as np
import pytest

from baldwhisper_mlx.cli import live_output
from baldwhisper_mlx.cli.live_output import LivePrinter, draft_line
from baldwhisper_mlx.transcription.live_events import Draft, LiveEvent, SpeechStarted, Utterance


class Terminal(io.StringIO):
    """A screen that obeys line ends, wraps at its width, erases lines, and knows no other code."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns = columns
        self.rows: list[list[str]] = [[]]
        """Cells of every row; the second one of a wide character is empty."""
        self.column = 0
        self.dimmed = False
        self.n_wrapped = 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for part in re.findall(r"\x1b\[\d*[A-Za-z]|.|\n", text):
            self._obey(part) if part.startswith("\x1b") else self._put(part)
        return super().write(text)

    def _obey(self, code: str) -> None:
        if code == "\x1b[K":
            del self.rows[-1][self.column :]
        elif code in ("\x1b[2m", "\x1b[0m"):
            self.dimmed = code == "\x1b[2m"
        else:
            raise AssertionError(f"unknown escape code {code!r}")

    def _put(self, character: str) -> None:
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self.rows.append([])
            self.column = 0
        else:
            width = 2 if unicodedata.east_asian_width(character) in "WF" else 1
            width = 0 if unicodedata.combining(character) else width
            if self.column + width > self.columns:
                self.n_wrapped += 1
                self.rows.append([])
                self.column = 0
            cells = self.rows[-1]
            cells[self.column :] = [character] + [""] * (width - 1)
            self.column += width

    @property
    def lines(self) -> list[str]:
        return ["".join(row) for row in self.rows]


def draft(confirmed: str, unconfirmed: str) -> Draft:
    return Draft(0.0, 1.0, confirmed, unconfirmed, "en")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without what the machine says about its terminal."""
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return monkeypatch


def shown(patch: pytest.MonkeyPatch, columns: int, events: list[LiveEvent]) -> Terminal:
    """The terminal after some events."""
    terminal = Terminal(columns)
    patch.setattr(live_output.sys, "stdout", terminal)
    size = os.terminal_size((columns, 24))
    patch.setattr(live_output.shutil, "get_terminal_size", lambda: size)
    printer = LivePrinter()
    for event in events:
        printer.show(event)
    return terminal


ALPHABETS = ["abc de ", "日本語の音声 ", "é̈a\u0301b "]


@pytest.mark.parametrize("columns", [1, 2, 3, 10, 60, 200])
@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_drafts_of_any_length_leave_nothing_behind(
    environment: pytest.MonkeyPatch, columns: int, alphabet: str
) -> None:
    rng = np.random.default_rng(columns)
    events: list[LiveEvent] = []
    for _ in range(3):
        events.append(SpeechStarted(0.0))
        for length in rng.integers(0, 300, 5).tolist():
            text = (alphabet * 300)[: 2 * length]
            events.append(draft(text[:length], text[length:]))
        events.append(Utterance(0.0, 1.0, " x", (), "en"))
    terminal = shown(environment, columns, events)
    assert terminal.n_wrapped == 0
    assert terminal.lines == ["x", "x", "x", ""]
    assert not terminal.dimmed


def test_a_long_utterance_wraps_and_stays(environment: pytest.MonkeyPatch) -> None:
    text = "we keep the parts that carry the meaning"
    events = [draft("", f" {text}"), Utterance(0.0, 1.0, text, (), "en"), draft(" and", " so")]
    terminal = shown(environment, 12, events)
    assert "".join(terminal.lines[:-1]) == text
    assert terminal.lines[-1] == "and so"


def test_an_utterance_without_text_erases_its_draft(environment: pytest.MonkeyPatch) -> None:
    events = [draft(" a", " b"), Utterance(0.0, 1.0, "", (), "en")]
    assert shown(environment, 12, events).lines == [""]


def test_a_warning_stands_below_no_draft(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal(40)
    environment.setattr(live_output.sys, "stdout", terminal)
    printer = LivePrinter()
    printer.show(draft(" a", " b"))
    assert terminal.lines == ["a b"]
    printer.warn("look\x1b[2J")
    assert terminal.lines == [""]
    assert capsys.readouterr().err == "warning: look\\x1b[2J\n"


def test_colours_can_be_switched_off(environment: pytest.MonkeyPatch) -> None:
    events: list[LiveEvent] = [draft(" we", " keep")]
    assert "\x1b[2m keep\x1b[0m" in shown(environment, 40, events).getvalue()
    environment.setenv("NO_COLOR", "1")
    terminal = shown(environment, 40, events)
    assert terminal.getvalue() == "we keep"


@pytest.mark.parametrize("kind", ["dumb", "pipe"])
def test_other_outputs_get_final_lines_only(environment: pytest.MonkeyPatch, kind: str) -> None:
    if kind == "dumb":
        environment.setenv("TERM", "dumb")
    else:
        environment.setattr(Terminal, "isatty", lambda self: False)
    events: list[Any] = [draft(" a", " b"), Utterance(0.0, 1.0, " a c", (), "en")]
    assert shown(environment, 40, events).getvalue() == "a c\n"


@pytest.mark.parametrize(
    ("columns", "shown"), [(99, "we keep the parts"), (9, "the parts"), (3, "rts"), (0, "")]
)
def test_the_end_of_a_draft_fits_into_a_line(columns: int, shown: str) -> None:
    line = draft_line(draft(" we keep", " the parts"), columns)
    assert re.sub(r"\x1b\[\d+m", "", line) == shown
    dimmed = re.findall(r"\x1b\[2m(.*?)\x1b\[0m", line)
    assert "".join(dimmed) == shown[-len(" the parts") :]


def test_wide_and_combining_characters_take_their_columns() -> None:
    assert draft_line(draft("", "日本語"), 5) == "\x1b[2m本語\x1b[0m"
    assert draft_line(draft("", "xa\u0301b"), 2) == "\x1b[2ma\u0301b\x1b[0m"


def test_a_draft_cannot_control_the_terminal() -> None:
    assert draft_line(draft(" a\x1b[2Jb", ""), 80) == "a\\x1b[2Jb"
