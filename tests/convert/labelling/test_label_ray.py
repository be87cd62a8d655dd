"""`label` on Ray itself, on this machine: workers and runs that are killed lose no row.

Run by `make test-ray`: Ray is a large package, and starts a dozen processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import soundfile

from baldwhisper_convert.data.utterances import read_utterances
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.config import SAMPLE_RATE

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parents[3]
MODEL = ROOT / "baldwhisper_mlx" / "assets" / "tiny-en"
ROWS, SHARD_ROWS = 60, 3
WORKER = "ray::MapWorker(Map(RayWorker))"
PATIENCE = 600


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """Clips of one to two seconds, cut from the sample."""
    folder = tmp_path / "speech"
    folder.mkdir()
    samples = load_audio(ROOT / "examples" / "sample.wav")
    lines = []
    for i in range(ROWS):
        length = SAMPLE_RATE + SAMPLE_RATE * i // ROWS
        start = i * (len(samples) - length) // ROWS
        soundfile.write(folder / f"{i:03}.wav", samples[start : start + length], SAMPLE_RATE)
        lines.append(json.dumps({"file_name": f"{i:03}.wav", "text": "words"}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def start(speech: Path, folder: Path, *options: str) -> subprocess.Popen[str]:
    """Labels with two workers; returns when one of them is there.

    Ray gives up starting when that takes half a minute, as on a very busy machine; then it is
    started again.
    """
    command = [sys.executable, "-m", "baldwhisper_convert.cli", "label", str(speech), str(folder)]
    command += ["--model", str(MODEL), "--workers", "2", "--shard-rows", str(SHARD_ROWS), *options]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "convert")])
    end = time.monotonic() + PATIENCE
    while True:
        run = subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        while run.poll() is None and not workers_of(run):
            time.sleep(0.1)
        if run.poll() is None:
            return run
        _, errors = run.communicate()
        assert "Ray does not start" in errors, errors
        assert time.monotonic() < end, errors


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Runs that are ended with the test."""
    runs: list[subprocess.Popen[str]] = []
    yield runs
    for run in runs:
        if run.poll() is None:
            run.kill()
            run.wait()


def wait_for_shards(folder: Path, count: int, run: subprocess.Popen[str]) -> None:
    """Waits until so many shards are written."""
    end = time.monotonic() + PATIENCE
    while len(list((folder / ".unfinished").glob("*.parquet"))) < count:
        assert run.poll() is None, run.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.02)


def workers_of(run: subprocess.Popen[str]) -> list[psutil.Process]:
    """The worker processes that a run has started."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in psutil.Process(run.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if "".join(process.cmdline()).startswith(WORKER):
                    found.append(process)
    return found


def finished(run: subprocess.Popen[str]) -> str:
    """What a run that succeeds prints."""
    output, errors = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, errors
    return output


def check_complete(folder: Path) -> None:
    """Every row is kept or dropped, and none twice."""
    kept: list[dict[str, Any]] = []
    for file in (folder / "train").glob("*.parquet"):
        kept += pq.read_table(file).to_pylist()
    lines = (folder / "dropped.jsonl").read_text(encoding="utf-8").splitlines()
    numbers = [row["source_row"] for row in kept] + [json.loads(line)["row"] for line in lines]
    assert sorted(numbers) == list(range(1, ROWS + 1))
    assert [one.text for one in read_utterances(str(folder))]


def test_a_killed_worker_loses_nothing(
    tmp_path: Path, speech: Path, started: list[subprocess.Popen[str]]
) -> None:
    folder = tmp_path / "set"
    started.append(run := start(speech, folder))
    wait_for_shards(folder, 1, run)
    workers = workers_of(run)
    assert len(workers) == 2
    for worker in workers:
        # Both: the one that is at work, and the one that may wait for the rest.
        worker.send_signal(signal.SIGKILL)
    output = finished(run)
    assert f"{ROWS} clips kept" in output
    check_complete(folder)


def test_a_killed_run_resumes(
    tmp_path: Path, speech: Path, started: list[subprocess.Popen[str]]
) -> None:
    folder = tmp_path / "set"
    started.append(run := start(speech, folder))
    wait_for_shards(folder, 2, run)
    left = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    run.wait()
    psutil.wait_procs(left, timeout=60)
    assert not (folder / "train").exists()
    before = {file.name: file.stat().st_mtime_ns for file in (folder / ".unfinished").iterdir()}
    started.append(again := start(speech, folder))
    assert "resumes; " in finished(again)
    after = {file.name: file.stat().st_mtime_ns for file in (folder / "train").iterdir()}
    assert {name: after[name] for name in before if name.endswith(".parquet")} == {
        name: time for name, time in before.items() if name.endswith(".parquet")
    }
    check_complete(folder)


def test_what_a_worker_cannot_do_is_one_line(
    tmp_path: Path, speech: Path, started: list[subprocess.Popen[str]]
) -> None:
    started.append(run := start(speech, tmp_path / "set", "--language", "fr"))
    _, errors = run.communicate(timeout=PATIENCE)
    assert run.returncode == 1
    assert errors.splitlines()[-1].startswith("Error: this model does not know fr (french)")
