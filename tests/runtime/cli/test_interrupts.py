"""Ctrl-C and SIGTERM while audio is read: the program ends at once and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import soundfile

from tests.runtime.conftest import RATE, tone

PYTHON = [sys.executable, "-c", "from baldwhisper_mlx.cli.main import main; main()"]
ROOT = Path(__file__).parents[3]
LIMIT = 30
"""Seconds after which a program hangs; it takes less than one."""


@contextmanager
def started(folder: Path, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    """The program, with a temporary folder of its own."""
    (folder / "temporary").mkdir()
    process = subprocess.Popen(
        [*PYTHON, "transcribe", *args],
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "temporary")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # a shell's background jobs ignore Ctrl-C, and tests may run in one
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[bytes], number: signal.Signals, folder: Path) -> None:
    process.send_signal(number)
    assert process.wait(LIMIT) == 128 + number
    assert process.stderr is not None
    assert b"Traceback" not in (errors := process.stderr.read())
    assert (b"Interrupted" in errors) == (number == signal.SIGINT)
    assert [path for path in (folder / "temporary").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("pcm", [True, False])
def test_standard_input_that_does_not_end(
    tmp_path: Path, model_folder: Path, number: signal.Signals, pcm: bool
) -> None:
    soundfile.write(tmp_path / "a.wav", tone(60.0), RATE)
    options = ["--pcm-rate", "16000"] if pcm else []
    with started(tmp_path, "-m", str(model_folder), "-", *options) as process:
        assert process.stdin is not None
        # More than a pipe holds, so that it is being read after that.
        process.stdin.write((tmp_path / "a.wav").read_bytes())
        process.stdin.flush()
        ended(process, number, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_pipe_without_data(tmp_path: Path, model_folder: Path, number: signal.Signals) -> None:
    """Nothing can end the thread that waits in the system for it."""
    os.mkfifo(tmp_path / "pipe")
    with started(tmp_path, "-m", str(model_folder), str(tmp_path / "pipe")) as process:
        deadline = time.monotonic() + 60
        while True:
            try:
                writer = os.open(tmp_path / "pipe", os.O_WRONLY | os.O_NONBLOCK)
                break
            except OSError:  # nobody reads yet
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        ended(process, number, tmp_path)
        os.close(writer)


def test_a_long_decode(tmp_path: Path, model_folder: Path) -> None:
    """The first file is done; the second, read ahead, is long."""
    soundfile.write(tmp_path / "a.wav", tone(), RATE)
    with soundfile.SoundFile(tmp_path / "b.flac", "w", 8000, 1) as file:
        for _ in range(600):
            file.write(0 * tone(60.0, 8000))
    args = ["-m", str(model_folder), "-o", str(tmp_path / "out")]
    with started(tmp_path, *args, str(tmp_path / "a.wav"), str(tmp_path / "b.flac")) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "out" / "a.txt").exists():
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 130
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.txt"]
