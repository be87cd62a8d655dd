"""Progress bars: the stage's name, and the time that is left of the run."""

from __future__ import annotations

import pytest

from baldwhisper_convert import progress
from baldwhisper_convert.progress import (
    PeakMemory,
    duration,
    progress_bar,
    without_bars,
    working_on,
)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "DELAY", 0)


def test_bars_begin_with_the_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with working_on("stage 2 of 5: merge, data train"), progress_bar(3, "compare", "choice") as bar:
        bar.update(3)
    assert "stage 2 of 5: merge, data train: compare" in capsys.readouterr().err
    with progress_bar(3, "compare", "choice") as bar:
        bar.update(3)
    assert "stage" not in capsys.readouterr().err


def test_bars_show_the_time_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with working_on("stage 1 of 2: finetune", after=2.0):
        bar = progress_bar(10, "train", "step", initial=2)
        bar.update(2)
        bar.start_t = bar._time() - 8.0  # so 4 s a step: 6 steps left, and twice the 10 after them
        left = bar.format_dict["postfix"]
        bar.close()
    assert left == "run: about 1 min 44 s left"


def test_no_bars_in_a_quiet_block(capsys: pytest.CaptureFixture[str]) -> None:
    with without_bars(), working_on("stage 1"), progress_bar(3, "train", "step") as bar:
        bar.update(3)
    assert capsys.readouterr().err == ""


def test_durations() -> None:
    assert [duration(s) for s in (0.4, 59.6, 3600, 3599, 90_000)] == [
        "0.4 s", "1 min", "1 h", "59 min 59 s", "1 d 1 h",
    ]  # fmt: skip


def test_peak_memory_sees_a_large_block() -> None:
    with PeakMemory() as before:
        pass
    with PeakMemory() as memory:
        block = bytearray(200_000_000)
        block[::4096] = b"x" * len(block[::4096])
        memory._stop.wait(0.1)
    assert memory.peak > before.peak + 150_000_000


def test_a_part_of_the_work_does_not_show_the_time_of_the_run() -> None:
    """It would take the rest of the run for a multiple of the part."""
    with working_on("stage 1 of 2: finetune", after=2.0), progress_bar(10, "train", "step") as bar:
        with progress_bar(4, "evaluate", "batch", part=True) as part:
            part.update(2)
            assert "run:" not in str(part)
        bar.update(5)
        assert "run: about" in str(bar)
