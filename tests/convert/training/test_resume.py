"""Interrupted training runs resume: after a kill, a full disk, a loss that is not finite."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from baldwhisper_convert.data.batches import Batch
from baldwhisper_convert.data.prepared import Prepared
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training.checkpoints import PROGRESS_FILE
from baldwhisper_convert.training.loop import train
from baldwhisper_convert.training.objectives import Distillation, LossSettings, Terms
from baldwhisper_convert.training.settings import TrainingSettings
from tests.support.tiny_prepared import (
    GROUPS,
    tiny_prompts,
    tiny_student,
    tiny_teacher,
)
from tests.support.tiny_runs import (
    EVERYTHING,
    PLAIN,
    STEPS_BETWEEN,
    Watched,
    different,
    drift,
    lean,
    losses,
    run,
    same,
    tick,
)

ROOT = Path(__file__).parents[3]
LEARNED = LossSettings(hidden=1.0, learn_temperature=True)


@pytest.fixture(autouse=True)
def _lean(monkeypatch: pytest.MonkeyPatch) -> None:
    lean(monkeypatch.setattr)


# The runtime first, as in the tests: the BLAS it loads is then torch's too, down to the last bit.
CHILD = """
import baldwhisper_mlx
import sys, time
from pathlib import Path
from baldwhisper_convert.data.prepared import Prepared
from tests.support import tiny_runs
from tests.convert.training.test_resume import LEARNED

folder, data = Path(sys.argv[1]), Prepared(sys.argv[2])
variant, reads = sys.argv[3], int(sys.argv[4])
tiny_runs.lean()
tiny_runs.tick()

def wait_to_be_killed(count):
    if count > reads:
        (folder / "waiting").touch()
        time.sleep(600)

settings = {"epochs": 3, "checkpoint_minutes": tiny_runs.STEPS_BETWEEN}
evaluate = None
if variant == "everything":
    settings = tiny_runs.EVERYTHING | settings
    evaluate = tiny_runs.drift()
tiny_runs.run(
    folder, tiny_runs.Watched(data, wait_to_be_killed), loss=LEARNED, evaluate=evaluate, **settings
)
"""


def start_and_kill(script: Path, folder: Path, data: Prepared, variant: str, reads: int) -> None:
    """Trains in a process of its own, which is killed while it reads its next window."""
    script.write_text(CHILD)
    folder.mkdir()
    paths = os.pathsep.join([str(ROOT), str(ROOT / "convert")])
    # Another hash seed than ours: nothing may depend on it.
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONHASHSEED": "7"}
    command = [sys.executable, script, folder, data.folder, variant, reads]
    with (script.parent / "child.log").open("w") as output:
        child = subprocess.Popen(
            [str(part) for part in command], env=environment, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + 300
        while not (folder / "waiting").exists():
            assert child.poll() is None, (script.parent / "child.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize("variant", ["plain", "everything"])
def test_a_run_killed_and_resumed_ends_like_one_that_was_not(
    tmp_path: Path, data: Prepared, variant: str
) -> None:
    options: dict[str, Any] = {"epochs": 3, "loss": LEARNED}
    if variant == "everything":
        options = EVERYTHING | options | {"evaluate": drift()}
    whole, whole_results = run(tmp_path / "whole", data, **options)
    # Four windows a step: killed in the middle of the sixth.
    start_and_kill(tmp_path / "child.py", tmp_path / "killed", data, variant, reads=22)
    before = losses(tmp_path / "killed")
    kept = json.loads((tmp_path / "killed/checkpoint" / PROGRESS_FILE).read_text())
    assert 0 < kept["step"] < max(row["step"] for row in before) == 5
    resumed, results = run(tmp_path / "killed", data, **options)
    assert not different(whole, resumed)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert {k: v for k, v in results.items() if k != "seconds"} == {
        k: v for k, v in whole_results.items() if k != "seconds"
    }
    expected = 8 if variant == "everything" else 12
    steps = [row["step"] for row in losses(tmp_path / "killed") if "loss" in row]
    assert steps == list(range(1, expected + 1))
    assert float(resumed["log_temperature"]) != 0


def test_a_full_disk_leaves_the_former_checkpoint(
    tmp_path: Path, data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run(tmp_path / "whole", data, epochs=3)
    tick(monkeypatch.setattr)
    saved: list[int] = []
    original = Accelerator.save_state

    def save_state(self: Accelerator, folder: str) -> None:
        saved.append(1)
        if len(saved) == 2:
            (Path(folder) / "model.safetensors").write_bytes(b"half a fi")
            raise OSError(28, "No space left on device")
        original(self, folder)

    monkeypatch.setattr(Accelerator, "save_state", save_state)
    options: dict[str, Any] = {"epochs": 3, "checkpoint_minutes": STEPS_BETWEEN}
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path / "full", data, **options)
    assert losses(tmp_path / "full")[-1]["step"] == 6
    resumed, _ = run(tmp_path / "full", data, **options)
    assert same(whole, resumed)
    assert losses(tmp_path / "full") == losses(tmp_path / "whole")
    assert not list((tmp_path / "full").glob("checkpoint*"))


class Poisoned(Distillation):
    """Goes wrong in the fifth step, in its value or only in its gradient."""

    def __init__(self, poison: str | None) -> None:
        super().__init__(tiny_teacher(), GROUPS, LossSettings(hidden=1.0))
        self.poison, self.calls = poison, 0

    def forward(self, student: Whisper, batch: Batch) -> Terms:
        self.calls += 1
        terms = super().forward(student, batch)
        if self.calls == 5 and self.poison == "value":
            terms.losses["kl"] = terms.losses["kl"] * math.nan
        if self.calls == 5 and self.poison == "gradient":
            # sqrt is 0 here, and its slope infinite.
            terms.losses["kl"] = terms.losses["kl"] + (student.decoder.ln.weight.sum() * 0).sqrt()
        return terms


@pytest.mark.parametrize("poison", ["value", "gradient"])
def test_a_loss_that_is_not_finite_stops_the_run(
    tmp_path: Path, data: Prepared, monkeypatch: pytest.MonkeyPatch, poison: str
) -> None:
    tick(monkeypatch.setattr)
    settings = TrainingSettings(**(PLAIN | {"checkpoint_minutes": STEPS_BETWEEN}))
    student = tiny_student()
    with pytest.raises(ValueError, match=r"not finite at step 5; lower learning_rate"):
        train(student, Poisoned(poison), data, tiny_prompts(), settings, tmp_path)
    assert all(bool(p.isfinite().all()) for p in student.parameters())
    kept = json.loads((tmp_path / "checkpoint" / PROGRESS_FILE).read_text())
    assert kept["step"] == 3
    again = tiny_student()
    results = train(again, Poisoned(None), data, tiny_prompts(), settings, tmp_path)
    assert results["steps"] == len(losses(tmp_path)) == 12
    assert all(bool(p.isfinite().all()) for p in again.parameters())


def test_a_finished_run_is_only_loaded(tmp_path: Path, data: Prepared) -> None:
    def refuse(_: Any) -> Any:
        raise AssertionError("trained again")

    end, results = run(tmp_path, data, epochs=1)
    log = losses(tmp_path)
    again, results_again = run(tmp_path, Watched(data, refuse), epochs=1, evaluate=refuse)
    assert same(end, again)
    assert results_again == results
    assert losses(tmp_path) == log


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path, data: Prepared) -> None:
    """The first locks it until it ends; then another may train there."""
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from baldwhisper_convert.training.checkpoints import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).lock():\n"
        "    print('locked', flush=True)\n    time.sleep(600)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(BlockingIOError, match=r"another process .* trains here"):
            run(tmp_path, data, epochs=1)
    finally:
        other.kill()
        other.wait()
        assert other.stdout is not None
        other.stdout.close()
    run(tmp_path, data, epochs=1)
