"""The files of a run: a complete checkpoint at any moment, averages, best and final weights."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training import checkpoints
from baldwhisper_convert.training.checkpoints import (
    AVERAGE_FILE,
    BEST_FILE,
    FINAL_FILE,
    PROGRESS_FILE,
    Progress,
    RunFolder,
)
from baldwhisper_convert.training.ema import Average
from tests.support.tiny_prepared import teacher_checkpoint, tiny_student
from tests.support.tiny_runs import same

NAME = "decoder.blocks.0.mlp.0.weight"


class Killed(BaseException):
    """What a SIGKILL leaves behind: nothing below is cleaned up."""


class Run:
    """A student with an optimizer, as the loop prepares them."""

    def __init__(self, folder: Path, *, average: bool = True) -> None:
        self.student = tiny_student()
        self.student.encoder.requires_grad_(False)
        learning = [p for p in self.student.parameters() if p.requires_grad]
        self.accelerator = Accelerator()
        optimizer = torch.optim.AdamW(learning, lr=0.1)
        self.learner, self.optimizer = self.accelerator.prepare(self.student, optimizer)
        self.average = Average(self.student, 0.9) if average else None
        self.folder = RunFolder(folder)
        self.progress = Progress()

    def step(self) -> None:
        generator = torch.Generator().manual_seed(self.progress.step)
        for parameter in self.student.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        self.optimizer.step()
        if self.average:
            self.average.update(self.student, self.progress.step)
        self.progress.step += 1

    def save(self) -> None:
        self.folder.save(self.accelerator, self.progress, self.average)

    def resume(self) -> Progress | None:
        found = self.folder.resume(self.accelerator, self.average)
        self.progress = found or self.progress
        return found

    def state(self) -> dict[str, Tensor]:
        averages = self.average.weights if self.average else {}
        return self.student.canonical_state() | {f"average.{n}": averages[n] for n in averages}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run with a checkpoint after the second step."""
    run = Run(tmp_path / "run")
    run.step()
    run.save()
    run.step()
    run.save()
    return run


def check_resume(run: Run, steps: int) -> None:
    """A new process loads the checkpoint of that step and ends as an uninterrupted run."""
    whole = Run(run.folder.path.with_name("whole"))
    for _ in range(steps):
        whole.step()
    again = Run(run.folder.path)
    assert again.resume() == Progress(step=steps)
    assert same(again.state(), whole.state())
    again.step()
    whole.step()
    assert same(again.state(), whole.state())


def test_a_checkpoint_holds_everything(run: Run) -> None:
    check_resume(run, 2)


class SlowProcess:
    """One of two processes, of which the second takes longer to write its file."""

    def __init__(self, rank: int, together: threading.Barrier) -> None:
        self.is_main_process, self.rank, self.together = rank == 0, rank, together

    def wait_for_everyone(self) -> None:
        self.together.wait(10)

    def save_state(self, folder: str) -> None:
        time.sleep(0.2 * self.rank)
        Path(folder, f"state_{self.rank}").write_text("saved")


def test_a_checkpoint_waits_for_every_process(tmp_path: Path) -> None:
    folder, together = RunFolder(tmp_path / "run"), threading.Barrier(2)
    with ThreadPoolExecutor(2) as processes:
        waits = [
            processes.submit(folder.save, cast("Accelerator", process), Progress(), None)
            for process in (SlowProcess(0, together), SlowProcess(1, together))
        ]
        for wait in waits:
            wait.result()
    names = {path.name for path in folder.checkpoint.iterdir()}
    assert names == {"state_0", "state_1", PROGRESS_FILE}


def test_progress_comes_back_as_it_was(tmp_path: Path) -> None:
    run = Run(tmp_path, average=False)
    run.progress = Progress(7, 1 / 3, {"score": 0.1 + 0.2, "best_step": 5}, 2, True)
    run.save()
    assert Run(tmp_path, average=False).resume() == run.progress


def test_a_run_of_an_earlier_version_resumes(tmp_path: Path) -> None:
    run = Run(tmp_path, average=False)
    run.progress = Progress(7, 1.5, {"score": 0.3, "best_step": 5}, 2, False)
    run.save()
    path = run.folder.checkpoint / PROGRESS_FILE
    stored = json.loads(path.read_text())
    # As versions before the rename of `evals_since_best` wrote it.
    stored["looks_without_gain"] = stored.pop("evals_since_best")
    del stored["latest"]  # which they did not have
    assert stored.keys() == {"step", "seconds", "best", "looks_without_gain", "stopped"}
    path.write_text(json.dumps(stored))
    assert Run(tmp_path, average=False).resume() == run.progress


def test_without_a_checkpoint_there_is_nothing_to_resume(tmp_path: Path) -> None:
    run = Run(tmp_path / "deep" / "run")
    before = run.state()
    assert run.resume() is None
    assert same(run.state(), before)


def test_a_failed_write_leaves_the_former_checkpoint(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_state(_: Accelerator, folder: str) -> None:
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    run.step()
    with monkeypatch.context() as patch:
        patch.setattr(Accelerator, "save_state", save_state)
        with pytest.raises(OSError, match="No space"):
            run.save()
    assert run.folder.partial.exists()
    check_resume(run, 2)
    # And the next one is whole, whatever the failed one left.
    run.save()
    assert {path.name for path in run.folder.path.iterdir()} == {"checkpoint"}
    check_resume(run, 3)


@pytest.mark.parametrize(
    ("killed_at", "left", "step"),
    [
        (0, {"checkpoint", "checkpoint.partial"}, 2),
        (1, {"checkpoint.old", "checkpoint.partial"}, 2),
        (2, {"checkpoint.old", "checkpoint"}, 3),
    ],
    ids=["before the renames", "between the renames", "after the renames"],
)
def test_killed_around_the_renames(
    run: Run, monkeypatch: pytest.MonkeyPatch, killed_at: int, left: set[str], step: int
) -> None:
    renames: list[Path] = []
    original = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if len(renames) == killed_at:
            raise Killed
        renames.append(self)
        return original(self, target)

    def rmtree(path: Path, **options: Any) -> None:
        if len(renames) == 2:
            raise Killed
        shutil_rmtree(path, **options)

    shutil_rmtree = shutil.rmtree
    run.step()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        patch.setattr(shutil, "rmtree", rmtree)
        with pytest.raises(Killed):
            run.save()
    assert {path.name for path in run.folder.path.iterdir()} == left
    check_resume(run, step)
    # The next checkpoint clears up.
    again = Run(run.folder.path)
    again.resume()
    again.save()
    assert {path.name for path in run.folder.path.iterdir()} == {"checkpoint"}


def test_a_checkpoint_has_no_unknown_files(run: Run) -> None:
    names = {path.name for path in run.folder.checkpoint.iterdir()}
    assert {PROGRESS_FILE, AVERAGE_FILE, "model.safetensors", "optimizer.bin"} <= names
    assert json.loads((run.folder.checkpoint / PROGRESS_FILE).read_text())["step"] == 2


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def poison(path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(path.with_name("owned")),)

    path.write_bytes(pickle.dumps(Payload()))


@pytest.mark.parametrize("name", [AVERAGE_FILE, "model.safetensors", "optimizer.bin"])
@pytest.mark.parametrize("damage", [cut, Path.unlink, poison])
def test_damaged_weights_of_a_checkpoint(
    name: str, damage: Callable[[Path], None], run: Run
) -> None:
    damage(run.folder.checkpoint / name)
    with pytest.raises(ValueError, match=r"damaged.*; delete .*run/checkpoint to start") as error:
        Run(run.folder.path).resume()
    assert name in str(error.value)
    assert not (run.folder.checkpoint / "owned").exists()


@pytest.mark.parametrize(
    "content", ["", "[1]", '{"step": "5"}', '{"step": 5, "more": 1}', '{"best": 1}', "[" * 10**5]
)
def test_damaged_progress_of_a_checkpoint(content: str, run: Run) -> None:
    (run.folder.checkpoint / PROGRESS_FILE).write_text(content)
    with pytest.raises(ValueError, match=r"checkpoint/progress\.json: damaged.*; delete .*run/"):
        Run(run.folder.path).resume()


def test_a_checkpoint_of_another_model(run: Run) -> None:
    other = Run(run.folder.path.with_name("other"), average=False)
    other.student = Whisper.from_checkpoint(teacher_checkpoint())
    other.learner = other.accelerator.prepare(other.student)
    with pytest.raises(ValueError, match="or of another training"):
        run.folder.resume(other.accelerator, None)


@pytest.mark.parametrize("name", [FINAL_FILE, "finished.json", BEST_FILE])
@pytest.mark.parametrize("damage", [cut, poison])
def test_damaged_results(name: str, damage: Callable[[Path], None], run: Run) -> None:
    run.folder.finish(run.accelerator, run.student, {"steps": 2})
    run.folder.save_best(run.student)
    damage(run.folder.path / name)
    with pytest.raises(ValueError, match=rf"run/{name}: damaged.*; delete .*run to start"):
        run.folder.load_best(run.student) if name == BEST_FILE else run.folder.finished(run.student)


def test_the_best_weights_come_back(run: Run) -> None:
    best = run.student.canonical_state()
    run.folder.save_best(run.student)
    run.step()
    assert not same(run.student.canonical_state(), best)
    run.folder.load_best(run.student)
    assert same(run.student.canonical_state(), best)


@contextlib.contextmanager
def killed_while_writing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A kill in the middle of a file of weights."""

    def save_file(_: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", save_file)
        with pytest.raises(Killed):
            yield


def test_best_weights_are_whole_or_the_former_ones(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = run.student.canonical_state()
    run.folder.save_best(run.student)
    run.step()

    with killed_while_writing(monkeypatch):
        run.folder.save_best(run.student)
    run.folder.load_best(run.student)
    assert same(run.student.canonical_state(), best)


def test_a_finished_run_keeps_its_weights_and_results_only(run: Run) -> None:
    run.folder.save_best(run.student)
    run.folder.old.mkdir()
    run.folder.partial.mkdir()
    assert not run.folder.is_finished
    final = run.student.canonical_state()
    run.folder.finish(run.accelerator, run.student, {"steps": 2, "wer": 0.25})
    names = {path.name for path in run.folder.path.iterdir()}
    assert names == {FINAL_FILE, "finished.json"}
    assert BEST_FILE not in names
    run.step()
    assert run.folder.finished(run.student) == {"steps": 2, "wer": 0.25}
    assert same(run.student.canonical_state(), final)


def test_killed_while_finishing_the_checkpoint_is_still_there(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed_while_writing(monkeypatch):
        run.folder.finish(run.accelerator, run.student, {})
    assert not run.folder.is_finished
    check_resume(run, 2)


@pytest.fixture
def student() -> Iterator[Whisper]:
    student = tiny_student()
    student.encoder.requires_grad_(False)
    return student


def test_the_average_follows_its_formula(student: Whisper) -> None:
    average = Average(student, 0.4)
    parameter = student.get_parameter(NAME)
    expected = float(parameter.detach()[0, 0])
    for step in range(12):
        parameter.data += 0.5 + step
        average.update(student, step)
        decay = min(0.4, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * float(parameter.detach()[0, 0])
        assert float(average.weights[NAME][0, 0]) == pytest.approx(expected, rel=1e-5)


def test_only_what_learns_is_averaged(student: Whisper) -> None:
    names = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert Average(student, 0.9).weights.keys() == names
    assert not any(name.startswith("encoder.") for name in names)


def test_averaged_weights_are_lent(student: Whisper) -> None:
    average = Average(student, 0.9)
    averaged = average.weights[NAME].clone()
    student.get_parameter(NAME).data += 1
    own = student.canonical_state()
    with contextlib.suppress(KeyError), Average.applied(student, average):
        assert torch.equal(student.get_parameter(NAME), averaged)
        raise KeyError("evaluation failed")
    assert same(student.canonical_state(), own)
    with Average.applied(student, None):
        assert same(student.canonical_state(), own)


def test_a_saved_average_is_loaded_into_the_tensors_that_are_there(student: Whisper) -> None:
    # They may be on another device than the file's.
    average = Average(student, 0.9)
    places = {name: tensor.data_ptr() for name, tensor in average.weights.items()}
    average.load({name: torch.full_like(t, 0.5) for name, t in average.weights.items()})
    assert {name: tensor.data_ptr() for name, tensor in average.weights.items()} == places
    assert all(bool((tensor == 0.5).all()) for tensor in average.weights.values())


def test_too_little_memory_is_no_damage(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(checkpoints, "load_file", full)
    with pytest.raises(MemoryError):
        Run(run.folder.path).resume()
