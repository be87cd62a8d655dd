"""The files of a training run: checkpoints to resume from, best and final weights, results.

A new checkpoint is written beside the last one and then renamed into its place, so an interrupted
run always leaves a complete one. On resume, the training log is cut back to the checkpoint's step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from baldwhisper_convert.locks import lock_folder
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training.ema import Average
from baldwhisper_mlx.files import atomic_file, read_json, write_atomically

BEST_FILE, FINAL_FILE, AVERAGE_FILE = "best.safetensors", "final.safetensors", "average.safetensors"
PROGRESS_FILE, FINISHED_FILE = "progress.json", "finished.json"


_ALWAYS = (PROGRESS_FILE, "model.safetensors", "optimizer.bin")
"""Files of every checkpoint, the last two Accelerate's."""


@dataclass
class Progress:
    """How far a run has got; stored in every checkpoint."""

    step: int = 0
    seconds: float = 0.0
    best: dict[str, Any] = field(default_factory=dict)
    """The best development results, and their step."""
    evals_since_best: int = 0
    """Evaluations on the development data since the best one."""
    stopped: bool = False
    """Whether training stopped early because `patience` ran out."""
    latest: dict[str, Any] = field(default_factory=dict)
    """The development results of the last evaluation."""

    @classmethod
    def from_file(cls, path: Path) -> Progress:
        """Reads the progress stored in a checkpoint.

        `evals_since_best` was called `looks_without_gain` in earlier versions; their runs resume.

        Raises:
            FileNotFoundError: there is none.
            ValueError: damaged; names the file.
        """
        stored = read_json(path)
        if isinstance(stored, dict) and "looks_without_gain" in stored:
            stored["evals_since_best"] = stored.pop("looks_without_gain")
        kinds = {item.name: type(getattr(cls(), item.name)) for item in dataclasses.fields(cls)}
        if not isinstance(stored, dict) or any(
            name not in kinds or not isinstance(value, _ALSO.get(kinds[name], kinds[name]))
            for name, value in stored.items()
        ):
            raise ValueError(f"{path}: not the progress of a training")
        return cls(**stored)


_ALSO: dict[type, tuple[type, ...]] = {float: (float, int)}
"""Types of JSON values that stand for another."""


def interrupted_at(folder: Path) -> int:
    """The step after which an interrupted training in a folder resumes; 0 if there is none.

    Raises:
        ValueError: its progress is damaged.
    """
    for name in ("checkpoint", "checkpoint.old"):
        path = folder / name / PROGRESS_FILE
        if path.is_file():
            return Progress.from_file(path).step
    return 0


class RunFolder:
    """The folder of one training run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint"
        self.partial, self.old = path / "checkpoint.partial", path / "checkpoint.old"
        path.mkdir(parents=True, exist_ok=True)

    def lock(self) -> AbstractContextManager[None]:
        """Locks the folder for this process inside the block.

        Raises:
            BlockingIOError: another process is training in this folder.
        """
        return lock_folder(self.path, "trains")

    def save(self, accelerator: Accelerator, progress: Progress, average: Average | None) -> None:
        """Writes a checkpoint, then replaces the last one by it."""
        partial, old = self.partial, self.old
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
        accelerator.wait_for_everyone()
        accelerator.save_state(str(partial))
        accelerator.wait_for_everyone()  # every process writes a file of its own there
        if accelerator.is_main_process:
            if average:
                _save(average.weights, partial / AVERAGE_FILE)
            text = json.dumps(dataclasses.asdict(progress))
            (partial / PROGRESS_FILE).write_text(text, encoding="utf-8")
            shutil.rmtree(old, ignore_errors=True)
            if self.checkpoint.exists():
                self.checkpoint.rename(old)
            partial.rename(self.checkpoint)
            shutil.rmtree(old, ignore_errors=True)
        accelerator.wait_for_everyone()

    def resume(self, accelerator: Accelerator, average: Average | None) -> Progress | None:
        """Loads the last checkpoint and returns its progress; None if there is no checkpoint.

        Raises:
            ValueError: it is damaged; the message names the file and what to delete.
        """
        if accelerator.is_main_process and not self.checkpoint.exists() and self.old.exists():
            self.old.rename(self.checkpoint)  # interrupted between the two renames
        accelerator.wait_for_everyone()
        if not self.checkpoint.exists():
            return None
        advice = f"delete {self.checkpoint} to start the training again"
        with _damage(self.checkpoint, advice):
            progress = Progress.from_file(self.checkpoint / PROGRESS_FILE)
            accelerator.load_state(str(self.checkpoint))
            if average:
                average.load(load_file(self.checkpoint / AVERAGE_FILE))
        return progress

    def save_best(self, model: Whisper) -> None:
        """Stores the weights as the best so far."""
        with atomic_file(self.path / BEST_FILE) as temporary:
            _save(model.canonical_state(), temporary)

    def load_best(self, model: Whisper) -> None:
        """Loads the best weights into the model."""
        with _damage(self.path / BEST_FILE, f"delete {self.path} to start the training again"):
            model.load_state_dict(load_file(self.path / BEST_FILE))

    def finish(self, accelerator: Accelerator, model: Whisper, metrics: dict[str, Any]) -> None:
        """Stores the final weights and results, and removes what only a resume needs."""
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            _save(model.canonical_state(), self.path / FINAL_FILE)
            write_atomically(self.path / FINISHED_FILE, json.dumps(metrics, indent=2) + "\n")
            for leftover in (self.checkpoint, self.partial, self.old):
                shutil.rmtree(leftover, ignore_errors=True)
            (self.path / BEST_FILE).unlink(missing_ok=True)
        accelerator.wait_for_everyone()

    @property
    def is_finished(self) -> bool:
        """Whether the run is finished, and its weights are still here."""
        return (self.path / FINISHED_FILE).is_file()

    def discard(self) -> None:
        """Removes the final weights of a finished run, which are stored elsewhere by now.

        The results go first: what is left of an interrupted removal is a run that starts again.
        """
        for name in (FINISHED_FILE, FINAL_FILE):
            (self.path / name).unlink(missing_ok=True)

    def finished(self, model: Whisper) -> dict[str, Any]:
        """Loads a finished run's final weights into the model and returns its results.

        Raises:
            ValueError: a file is damaged; the message says what to delete.
        """
        path = self.path / FINISHED_FILE
        with _damage(path, f"delete {self.path} to start the training again"):
            results: dict[str, Any] = read_json(path)
            if not isinstance(results, dict):
                raise ValueError("no results")
        with _damage(self.path / FINAL_FILE, f"delete {self.path} to start the training again"):
            model.load_state_dict(load_file(self.path / FINAL_FILE))
        return results


@contextlib.contextmanager
def _damage(path: Path, advice: str) -> Iterator[None]:
    """Turns whatever reading a file of a run raises into an error that says what to do.

    Args:
        path: the file, or a checkpoint, in which the damaged file is looked for.
        advice: what to delete.

    Raises:
        ValueError: the block raised.
        MemoryError, torch.OutOfMemoryError: there is too little memory; the file may be sound.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    # All exceptions: Accelerate, torch, safetensors and the optimizer each raise their own.
    except Exception as error:
        damaged = _first_damaged(path) or path
        reason = " ".join(str(error).split()).removeprefix(f"{damaged}: ")
        raise ValueError(
            f"{damaged}: damaged or of another training ({reason[:200]}); {advice}"
        ) from None


def _first_damaged(checkpoint: Path) -> Path | None:
    """The first file of a checkpoint that is missing or unreadable; None if all are sound."""
    if not checkpoint.is_dir():
        return None
    for path in [*(checkpoint / name for name in _ALWAYS), *sorted(checkpoint.iterdir())]:
        try:
            if not path.exists():
                return path
            if path.name == PROGRESS_FILE:
                Progress.from_file(path)
            elif path.suffix == ".safetensors":
                load_file(path)
            elif path.suffix == ".bin":
                torch.load(path, map_location="cpu", weights_only=True)
        except Exception:
            return path
    return None


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
