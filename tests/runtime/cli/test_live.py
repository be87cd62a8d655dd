"""`baldwhisper live`: its inputs, what it shows, and what is on disk when it is killed."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner, Result

from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.cli import live_input
from baldwhisper_mlx.cli.live_output import UtteranceFile
from baldwhisper_mlx.cli.live_signals import StopSignal, interruption
from baldwhisper_mlx.cli.main import cli
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.transcription.live_events import SpeechStarted, Utterance
from tests.runtime.cli.test_main import PYTHON, ROOT
from tests.runtime.test_bundled import SAMPLE, words
from tests.support.microphone import FakeDevices

TEXT = words(SAMPLE.with_suffix(".txt").read_text())


SILENCE = np.zeros(1600, np.float32)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["live", *map(str, arguments)])


def utterance(start: float, text: str, *, n_segments: int = 1) -> Utterance:
    segments = tuple(
        Segment(i, 0, start + i, start + i + 1, text, (), 0.0, 0.0, 1.0, 0.0)
        for i in range(n_segments)
    )
    return Utterance(start, start + n_segments, text, segments, "en")


def test_a_file_is_printed_by_utterances(tmp_path: Path) -> None:
    result = run("--input", SAMPLE, "-o", tmp_path / "talk.jsonl")
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    assert words(line) == TEXT
    (document,) = map(json.loads, (tmp_path / "talk.jsonl").read_text().splitlines())
    assert words(document["text"]) == TEXT
    assert document["segments"][-1]["end"] == pytest.approx(document["end"], abs=0.1)


def test_a_terminal_shows_drafts_and_then_the_line() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "60"}
    ours, theirs = os.openpty()
    command = [*PYTHON, "live", "--input", str(SAMPLE), "--interval", "2"]
    with subprocess.Popen(command, stdout=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # Linux says so at the end
            while data := os.read(ours, 4096):
                shown += data
        os.close(ours)
    assert process.returncode == 0
    *drafts, last = shown.decode().split("\r\x1b[K")[1:]
    assert len(drafts) >= 2  # fewer on a slow machine
    assert any(re.fullmatch(r"[^\x1b]+\x1b\[2m[^\x1b]+\x1b\[0m", draft) for draft in drafts)
    assert max(len(re.sub(r"\x1b\[\d+m", "", draft)) for draft in drafts) <= 59
    assert words(last) == TEXT


def test_raw_pcm_is_read_from_standard_input() -> None:
    numbers = (load_audio(SAMPLE) * 32767).astype("<i2")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [*PYTHON, "live", "--input", "-"]
    done = subprocess.run(
        command, input=numbers.tobytes(), capture_output=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert words(done.stdout.decode()) == TEXT


def test_a_file_in_real_time_is_never_ahead_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    clock = SimpleNamespace(monotonic=lambda: now, sleep=sleep)
    monkeypatch.setattr(live_input, "time", clock)
    samples, received = load_audio(SAMPLE), 0
    sizes = []
    for block in live_input.file_blocks(SAMPLE, StopSignal(), realtime=True):
        np.testing.assert_array_equal(block, samples[received : received + len(block)])
        received += len(block)
        sizes.append(len(block))
        assert received <= (now - 100) * 16_000 + 1
        if len(sizes) == 5:
            now += 3  # whoever is late gets all that has arrived
    assert received == len(samples)
    assert sizes[0] == pytest.approx(1600, abs=1)
    assert sizes[5] == pytest.approx(3 * 16_000, abs=1)


@pytest.mark.parametrize(
    ("rate", "number"),
    [(16_000, signal.SIGINT), (48_000, signal.SIGTERM), (16_000, signal.SIGHUP)],
)
def test_the_microphone_is_transcribed_until_a_signal(
    monkeypatch: pytest.MonkeyPatch, rate: int, number: signal.Signals
) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)}
    devices = FakeDevices(load_audio(SAMPLE), rate, ending=number)
    monkeypatch.setitem(sys.modules, "sounddevice", devices)  # type: ignore[arg-type]
    result = run("--device", "1")
    assert result.exit_code == 0, result.output
    assert words(result.stdout) == TEXT
    assert result.stderr == ""
    assert devices.asked == [1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert {each: signal.getsignal(each) for each in before} == before


def test_microphones_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", FakeDevices(SILENCE, 48_000))  # type: ignore[arg-type]
    result = run("--list-devices")
    assert (result.exit_code, result.stdout) == (0, "1: Desk (1 channels, 48000 Hz)\n")
    result = run("--device", "Kitchen")
    assert result.exit_code == 1
    assert "cannot record from Kitchen: No input device" in result.stderr


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    result = run()
    assert result.exit_code == 1
    assert "pip install 'baldwhisper-mlx[live]'" in result.stderr
    monkeypatch.delitem(sys.modules, "sounddevice")
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.syspath_prepend(tmp_path)
    result = run("--list-devices")
    assert result.exit_code == 1
    assert "PortAudio library not found; install PortAudio" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--realtime"], "--realtime is for a file"),
        (["--input", "-", "--realtime"], "--realtime is for a file"),
        (["--input", "x.wav", "--device", "1"], "--device is for the microphone"),
        (["--pcm-rate", "8000"], "--pcm-rate is for raw PCM"),
        (["--pcm-rate", "8000", "--input", "x.wav"], "give --input -"),
        (["--language", "en", "--languages", "en,fr"], "leave out --language, or --languages"),
        (["--interval", "0"], "--interval"),
        (["--policy", "local-agreement", "--frame-threshold", "3"], "is for --policy alignatt"),
    ],
)
def test_options_that_exclude_each_other(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


def test_ctrl_c_keeps_what_has_arrived_and_again_ends_at_once() -> None:
    arrivals: live_input.Arrivals = queue.Queue()
    with interruption() as stop:
        blocks = live_input.arrived(arrivals, stop)
        arrivals.put(np.ones(1, np.float32))
        assert next(blocks).tolist() == [1]
        arrivals.put(np.full(1, 2, np.float32))
        arrivals.put(np.full(1, 3, np.float32))
        signal.raise_signal(signal.SIGINT)
        assert [block.tolist() for block in blocks] == [[2, 3]]
        file = live_input.file_blocks(SAMPLE, stop, realtime=False)
        assert list(file) == []
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


EXPECTED = {
    "txt": "One\nTwo\nTwo\n",
    "srt": "1\n00:00:01,000 --> 00:00:02,000\nOne\n\n"
    "2\n00:00:05,000 --> 00:00:06,000\nTwo\n\n3\n00:00:06,000 --> 00:00:07,000\nTwo\n\n",
    "vtt": "WEBVTT\n\n00:01.000 --> 00:02.000\nOne\n\n"
    "00:05.000 --> 00:06.000\nTwo\n\n00:06.000 --> 00:07.000\nTwo\n\n",
}


@pytest.mark.parametrize("ending", EXPECTED)
def test_every_utterance_is_on_disk_at_once(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"talk.{ending}"
    with UtteranceFile(path, force=False) as file:
        file.write(SpeechStarted(1.0))
        file.write(utterance(1.0, " One"))
        first = path.read_text()
        file.write(utterance(4.0, ""))
        file.write(utterance(5.0, " Two", n_segments=2))
        assert path.read_text() == EXPECTED[ending]
    assert "One" in first
    assert EXPECTED[ending].startswith(first)


def test_files_are_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "talk.txt"
    path.write_text("mine")
    result = run("--input", SAMPLE, "-o", path)
    assert result.exit_code == 1
    assert "talk.txt exists: give another name, or --force" in result.stderr
    assert path.read_text() == "mine"
    with UtteranceFile(path, force=True):
        assert path.read_text() == ""
    for name, message in (
        ("talk.doc", "talk.doc: the name must end with .txt, .srt, .vtt, .jsonl"),
        ("none/talk.srt", "none: create it"),
    ):
        result = run("--input", SAMPLE, "-o", tmp_path / name)
        assert result.exit_code == 1
        assert message in result.stderr


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    """Ctrl-C is Python's own, whatever tests before have set."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
