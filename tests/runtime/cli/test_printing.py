"""What `baldwhisper transcribe` prints on a terminal: segments as they come, in colours."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from baldwhisper_mlx import Segment, Transcript, Word
from baldwhisper_mlx.cli.main import cli
from baldwhisper_mlx.cli.printing import Printer, colored
from baldwhisper_mlx.cli.progress import beside_bars, progress_bar
from baldwhisper_mlx.cli.runner import transcribe_files
from baldwhisper_mlx.output.subtitles import PLAIN
from baldwhisper_mlx.transcription.sequential import Transcription
from tests.runtime.conftest import RATE
from tests.support.pages import ROOT

SAMPLE = ROOT / "examples" / "sample.wav"
COLOR = re.compile(r"\x1b\[[0-9;]*m")


class Terminal(io.TextIOWrapper):
    """A stream that says that it is a terminal, and keeps what is written."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        raw = self.buffer.getvalue()  # type: ignore[attr-defined]
        assert isinstance(raw, bytes)
        return raw.decode()


def segment(number: int, text: str, *words: tuple[str, float], **fields: Any) -> Segment:
    timed = tuple(Word(0.0, 1.0, word, probability) for word, probability in words) or None
    return Segment(number, 0, 0.0, 1.0, text, (1,), 0.0, -0.1, 1.0, 0.0, timed, **fields)


def terminal_as(monkeypatch: pytest.MonkeyPatch, *names: str) -> Terminal:
    """A terminal as one or more standard streams; not a fixture, which pytest would undo."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    for name in names:
        monkeypatch.setattr(sys, name, stream)
    return stream


def transcript(*segments: Segment) -> Transcript:
    return Transcript("".join(s.text for s in segments), segments, "en", 2.0)


def test_segments_are_printed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_as(monkeypatch, "stdout")
    printer = Printer("txt", PLAIN, headers=True, colors=False)
    first, second, third = (segment(i, text) for i, text in enumerate((" One", " ", " Two")))
    assert printer.takes_segments
    printer.segment("a.wav", first)
    assert terminal.text() == "==> a.wav <==\nOne\n"
    printer.segment("a.wav", second)
    printer.transcript("a.wav", transcript(first, second, third))
    printer.transcript("b.wav", transcript())
    printer.transcript("c.wav", transcript(first))
    assert terminal.text() == ("==> a.wav <==\nOne\nTwo\n\n==> b.wav <==\n\n==> c.wav <==\nOne\n")


def test_other_formats_and_streams_wait_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal_as(monkeypatch, "stdout")
    assert not Printer("srt", PLAIN, headers=False, colors=False).takes_segments
    pipe = io.TextIOWrapper(io.BytesIO(), write_through=True)
    monkeypatch.setattr(sys, "stdout", pipe)
    assert not Printer("txt", PLAIN, headers=False, colors=False).takes_segments


SURE = segment(0, " One two, three", (" One", 0.95), (" two,", 0.8), (" three", 0.2))


def test_words_have_the_colour_of_their_confidence() -> None:
    red, yellow, green = (click.style("|", fg=name).split("|")[0] for name in
                          ("red", "yellow", "green"))  # fmt: skip
    end = "\x1b[0m"
    assert colored(SURE) == f"{green}One{end}{yellow} two,{end}{red} three{end}\n"
    assert colored(segment(0, " One two")) == f"{green}One two{end}\n"  # exp(-0.1) is 0.9
    assert colored(segment(0, " One", (" One", float("nan")))) == f"{red}One{end}\n"


@pytest.mark.parametrize(
    "line",
    [
        SURE,
        segment(0, " One\n two", (" One\n", 0.9), (" two", 0.9)),
        segment(0, " Other text", (" words", 0.9)),
        segment(0, " Hello", (" Hello", 0.9), channel=2),
        segment(0, "日本", ("日", 0.9), ("本", 0.1)),
        segment(0, "  "),
        segment(0, " evil \x1b[2J", (" evil", 0.9), (" \x1b[2J", 0.9)),
    ],
)
def test_without_its_colours_a_line_is_the_plain_one(
    line: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = terminal_as(monkeypatch, "stdout")
    Printer("txt", PLAIN, headers=False, colors=False).segment("a", line)
    assert COLOR.sub("", colored(line)) == terminal.text()


@pytest.mark.parametrize(
    ("no_color", "is_terminal", "expected"),
    [(None, True, True), ("", True, True), ("1", True, False), (None, False, False)],
)
def test_colours_are_for_terminals_and_can_be_switched_off(
    monkeypatch: pytest.MonkeyPatch, no_color: str | None, is_terminal: bool, expected: bool
) -> None:
    if no_color is None:
        monkeypatch.delenv("NO_COLOR", raising=False)
    else:
        monkeypatch.setenv("NO_COLOR", no_color)
    stream = Terminal()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stdout", stream)
    Printer("txt", PLAIN, headers=False, colors=True).transcript("a", transcript(SURE))
    assert bool(COLOR.search(stream.text())) is expected
    assert COLOR.sub("", stream.text()) == "One two, three\n"


@pytest.mark.parametrize("options", [["-o", "out"], ["-f", "srt"]])
def test_colours_need_text_that_is_printed(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["transcribe", str(SAMPLE), "--print-colors", *options])
    assert result.exit_code == 2
    assert "--print-colors is for text that is printed" in result.stderr
    assert list(tmp_path.iterdir()) == []


def on_screen(raw: str) -> list[str]:
    """The lines that a terminal shows: carriage returns go back, and what is there is replaced."""
    lines = []
    for line in COLOR.sub("", raw).replace("\r\n", "\n").split("\n"):
        shown: list[str] = []
        for part in line.split("\r"):
            shown[: len(part)] = part
        lines.append("".join(shown).rstrip())
    return lines


def test_a_bar_and_lines_do_not_destroy_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_as(monkeypatch, "stdout", "stderr")
    printer = Printer("txt", PLAIN, headers=False, colors=False)
    with progress_bar("a.wav") as on_progress:
        assert on_progress is not None
        for i in range(3):
            on_progress(10.0 * i, 30.0)
            printer.segment("a.wav", segment(i, f" Line {i}"))
        with beside_bars(sys.stderr):
            click.echo("warning: odd", err=True)
        on_progress(30.0, 30.0)
        assert "a.wav" in on_screen(terminal.text())[-1]
    assert "%|" in terminal.text().replace("% |", "%|")
    assert on_screen(terminal.text()) == ["Line 0", "Line 1", "Line 2", "warning: odd", ""]


def run_on_terminal(command: list[str]) -> tuple[int, str]:
    """Runs a program whose output and errors are one terminal; its exit code and what it wrote."""
    mine, theirs = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "200"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    raw = b""
    with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
        while select.select([mine], [], [], 120)[0] and (block := os.read(mine, 65536)):
            raw += block
    os.close(mine)
    return process.wait(120), raw.decode()


Transcribe = Callable[..., tuple[int, str]]


@pytest.fixture
def transcribe_on_terminal(model_folder: Path) -> Transcribe:
    def transcribe(*arguments: str) -> tuple[int, str]:
        program = "from baldwhisper_mlx.cli.main import main; main()"
        start = [sys.executable, "-c", program, "transcribe", "-m", str(model_folder)]
        return run_on_terminal([*start, "--temperature", "0", *arguments])

    return transcribe


@pytest.mark.parametrize("options", [[], ["--channels", "split"]])
def test_a_run_on_a_terminal(
    transcribe_on_terminal: Transcribe, model_folder: Path, tmp_path: Path, options: list[str]
) -> None:
    speech, rate = soundfile.read(SAMPLE, dtype="float32")
    assert rate == RATE
    path = tmp_path / "talk.wav"
    long = np.tile(speech, 3)
    soundfile.write(path, np.stack([long, long[::-1]], axis=1), RATE)
    command = ["transcribe", "-m", str(model_folder), "--temperature", "0", str(path), *options]
    plain = CliRunner().invoke(cli, command, catch_exceptions=False).stdout
    code, raw = transcribe_on_terminal(str(path), "--print-colors", *options)
    assert code == 0
    assert COLOR.search(raw)
    lines = on_screen(raw)
    (summary,) = (line for line in lines if "s of audio in" in line)
    lines.remove(summary)
    assert lines.pop() == ""
    printed = [line for line in lines if line.isprintable()]
    assert len(printed) > 2
    assert [line for line in plain.splitlines() if line.isprintable()] == printed


def test_a_file_that_fails_in_the_middle(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was printed stays, the error is reported, and the next file has its own header."""
    speech, _ = soundfile.read(SAMPLE, dtype="float32")
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", np.tile(speech, 3), RATE)
    monkeypatch.chdir(tmp_path)
    calls: list[int] = []
    transcribe_window = Transcription.transcribe_window

    def failing(run: Transcription, shared: Any = None) -> None:
        calls.append(0)
        if len(calls) == 2:
            raise FloatingPointError("NaN in the logits")
        transcribe_window(run, shared)

    monkeypatch.setattr(Transcription, "transcribe_window", failing)
    terminal, errors = terminal_as(monkeypatch, "stdout"), io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    failed = transcribe_files(
        ["a.wav", "b.wav"], str(model_folder), None, layout=PLAIN, plan=None, force=False,
        printer=Printer("txt", PLAIN, headers=True, colors=False), pcm_rate=None,
        audio_context=None, audio_options={},
        options={"language": None, "task": "transcribe", "temperature": 0.0},
    )  # fmt: skip
    assert failed == ["a.wav"]
    assert "error: a.wav: NaN in the logits\n" in errors.getvalue()
    first, second = terminal.text().split("\n\n==> b.wav <==\n")
    assert first.startswith("==> a.wav <==\n")
    assert len(first.splitlines()) > 1
    assert second.startswith(first.removeprefix("==> a.wav <==\n"))
