"""`baldwhisper live` when something fails: what was said is kept, and the error says what to do."""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import random
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.cli import live_microphone, live_output
from baldwhisper_mlx.cli.live_output import UtteranceFile
from baldwhisper_mlx.cli.live_signals import interruption
from baldwhisper_mlx.transcription.live_final import FinalTranscriber
from tests.runtime.cli.test_live import TEXT, run, utterance
from tests.runtime.cli.test_main import PYTHON, ROOT
from tests.runtime.test_bundled import SAMPLE, words
from tests.support.microphone import FakeDevices

ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
SECOND = np.zeros(16_000, np.float32)


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    """Ctrl-C is Python's own, whatever tests before have set."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("ending", ["finished", "nothing"])
def test_a_microphone_that_is_unplugged_keeps_the_transcript(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ending: str
) -> None:
    monkeypatch.setattr(live_microphone, "_LONGEST_WAIT", 0.3)
    devices = FakeDevices(load_audio(SAMPLE), ending=ending)
    monkeypatch.setitem(sys.modules, "sounddevice", devices)  # type: ignore[arg-type]
    result = run("-o", tmp_path / "talk.jsonl")
    assert result.exit_code == 1
    assert "Error: the microphone stopped sending audio: is it still plugged in?" in result.stderr
    assert words(result.stdout) == TEXT
    (line,) = (tmp_path / "talk.jsonl").read_text().splitlines()
    assert words(json.loads(line)["text"]) == TEXT


def test_lost_audio_is_warned_of_once_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = FakeDevices(load_audio(SAMPLE)[:48_000], overflows=3)
    monkeypatch.setitem(sys.modules, "sounddevice", devices)  # type: ignore[arg-type]
    result = run()
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "warning: the microphone lost audio, because the machine is too busy",
        "warning: the microphone lost audio 3 times; words may be missing",
    ]


def test_a_microphone_that_cannot_start_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    devices = FakeDevices(SECOND, start_error=True)
    monkeypatch.setitem(sys.modules, "sounddevice", devices)  # type: ignore[arg-type]
    result = run("-o", tmp_path / "talk.txt")
    assert result.exit_code == 1
    assert "cannot record from the microphone: Device unavailable" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_input_that_cannot_be_read_leaves_no_output(tmp_path: Path) -> None:
    result = run("--input", tmp_path / "none.wav", "-o", tmp_path / "talk.vtt")
    assert result.exit_code == 1
    assert "none.wav" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_texts_that_are_too_long_are_warned_of_once(tmp_path: Path) -> None:
    import soundfile

    said = load_audio(SAMPLE)[:32_000]
    path = tmp_path / "twice.wav"
    soundfile.write(path, np.concatenate([said, SECOND, said, SECOND]), 16_000)
    result = run("--input", path, "--hotwords", "Ouagadougou " * 200, "-o", tmp_path / "x.jsonl")
    assert result.exit_code == 0
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("warning: hotwords: 223 of 1000 tokens are used")


def test_what_was_found_before_an_error_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import soundfile

    said = load_audio(SAMPLE)[:32_000]
    path = tmp_path / "twice.wav"
    # Half a second is fed at a time: the first utterance ends, and the second begins and ends.
    soundfile.write(path, np.concatenate([said, SECOND, said, SECOND]), 16_000)
    transcribe, calls = FinalTranscriber.transcribe, []

    def failing(self: FinalTranscriber, ended: Any) -> Any:
        calls.append(ended)
        if len(calls) == 2:
            raise FloatingPointError("NaN logits")
        return transcribe(self, ended)

    monkeypatch.setattr(FinalTranscriber, "transcribe", failing)
    monkeypatch.setattr("baldwhisper_mlx.cli.live_input._FILE_BLOCK", 10**6)
    result = run("--input", path, "-o", tmp_path / "talk.jsonl")
    assert result.exit_code == 1
    assert "Error: NaN logits" in result.stderr
    (line,) = (tmp_path / "talk.jsonl").read_text().splitlines()
    assert json.loads(line)["text"].strip() == result.stdout.strip() != ""


def test_raw_pcm_that_ends_within_a_number_is_transcribed_up_to_there(tmp_path: Path) -> None:
    numbers = (load_audio(SAMPLE)[:48_000] * 32767).astype("<i2")
    command = [*PYTHON, "live", "--input", "-", "-o", str(tmp_path / "talk.txt")]
    done = subprocess.run(
        command, input=numbers.tobytes() + b"1", capture_output=True, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 1
    assert b"ends within a 16-bit sample; what came before is transcribed" in done.stderr
    assert words(done.stdout.decode())[:3] == TEXT[:3]
    assert (tmp_path / "talk.txt").read_bytes() == done.stdout


def test_a_closed_standard_input_is_named(tmp_path: Path) -> None:
    command = " ".join([*map(repr, PYTHON), "live", "--input", "-", "<&-"])
    done = subprocess.run(command, shell=True, capture_output=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 1
    assert b"reads audio from standard input, which is closed" in done.stderr


@pytest.mark.parametrize("ending", ["txt", "srt", "vtt", "jsonl"])
def test_an_utterance_without_room_is_taken_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"talk.{ending}"
    with UtteranceFile(path, force=False) as file:
        file.write(utterance(1.0, " One"))
        before = path.read_text()
        write, calls = os.write, []

        def full(number: int, data: bytes) -> int:
            calls.append(data)
            if len(calls) > 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(number, data[:3])

        with monkeypatch.context() as patch:
            patch.setattr(live_output.os, "write", full)
            with pytest.raises(
                OSError, match=r"No space left.* ends before the utterance at 5\.0 s"
            ):
                file.write(utterance(5.0, " Two"))
        assert len(calls) == 2
        assert path.read_text() == before
        file.write(utterance(9.0, " Three"))
    text = path.read_text()
    assert text.startswith(before)
    assert "Two" not in text
    if ending == "srt":
        assert re.findall(r"^\d+$", text, re.MULTILINE) == ["1", "2"]


def test_a_full_disk_ends_the_command_with_the_text_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(live_output.os, "fsync", full)
    result = run("--input", SAMPLE, "-o", tmp_path / "talk.vtt")
    assert result.exit_code == 1
    assert words(result.stdout) == TEXT
    assert "talk.vtt: cannot be written (No space left on device)" in result.stderr
    assert (tmp_path / "talk.vtt").read_text() == "WEBVTT\n\n"


WRITER = """
import sys
from pathlib import Path
from baldwhisper_mlx.cli.live_output import UtteranceFile
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.transcription.live_events import Utterance

def utterance(start, text):
    rest = (text, (), 0.0, 0.0, 1.0, 0.0)
    segments = [Segment(i, 0, start + i, start + i + 1, *rest) for i in range(3)]
    return Utterance(start, start + 3, text, tuple(segments), "en")

file = UtteranceFile(Path(sys.argv[1]), force=False)
print(flush=True)
for i in range(10**6):
    file.write(utterance(10.0 * i, f" Utterance {i}, " + "and more of it " * 20))
"""


def cues(text: str) -> list[str]:
    assert text.endswith("\n\n")
    return text[:-2].split("\n\n")


def check_srt(text: str) -> int:
    for number, cue in enumerate(cues(text), 1):
        assert re.fullmatch(rf"{number}\n[\d:,]{{12}} --> [\d:,]{{12}}\nUtterance .* it", cue)
    return len(cues(text))


def check_vtt(text: str) -> int:
    header, *rest = cues(text)
    assert header == "WEBVTT"
    assert all(re.fullmatch(r"[\d:.]{9,} --> [\d:.]{9,}\nUtterance .* it", cue) for cue in rest)
    return len(rest)


def check_jsonl(text: str) -> int:
    assert text.endswith("\n")
    return sum(len(json.loads(line)["segments"]) for line in text.splitlines())


@pytest.mark.parametrize("check", [check_srt, check_vtt, check_jsonl])
def test_a_file_is_valid_whenever_the_process_is_killed(
    tmp_path: Path, check: Callable[[str], int]
) -> None:
    path = tmp_path / f"talk.{check.__name__.removeprefix('check_')}"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05 + 0.1 * random.random())
        process.kill()
    assert check(path.read_text()) % 3 == 0


def test_a_second_signal_ends_at_once_but_a_hang_up_does_not() -> None:
    with interruption() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert stop.is_set()
        assert stop.hung_up
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(SystemExit) as ending:
            signal.raise_signal(signal.SIGTERM)
        assert ending.value.code == 128 + signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruption() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.is_set()
    finally:
        signal.signal(signal.SIGHUP, before)


CONTROLLED = "import fcntl, os, sys, termios; fcntl.ioctl(1, termios.TIOCSCTTY, 0)\n"
"""Makes standard output the controlling terminal, and becomes the command."""


def test_a_terminal_that_is_closed_ends_the_recording_and_not_the_utterance(
    tmp_path: Path,
) -> None:
    path = tmp_path / "talk.jsonl"
    command = [*PYTHON, "live", "--input", "-", "-o", str(path)]
    wrapper = [sys.executable, "-c", CONTROLLED + f"os.execv({PYTHON[0]!r}, sys.argv[1:])"]
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [*wrapper, *command], stdin=subprocess.PIPE, stdout=theirs, stderr=theirs,
        env=ENVIRONMENT, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(theirs)
        assert process.stdin is not None
        process.stdin.write((load_audio(SAMPLE)[:48_000] * 32767).astype("<i2").tobytes())
        process.stdin.flush()
        while not os.read(ours, 4096):
            pass  # the first draft: all is set up
        waiting = array.array("i", [1])
        while waiting[0]:
            fcntl.ioctl(process.stdin, termios.FIONREAD, waiting)
            time.sleep(0.01)
        os.close(ours)
        assert process.wait(60) == 0
    (line,) = path.read_text().splitlines()
    assert words(json.loads(line)["text"])[:3] == TEXT[:3]
