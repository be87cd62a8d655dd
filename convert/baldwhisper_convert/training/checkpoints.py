"""The files of a training run: checkpoints to resume from, best and final weights, results.

A new checkpoint is written beside the last one and then renamed into its place, so an interrupted
run always leaves a complete one. On resume, the training log is cut back to the checkpoint's step.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training.ema import Average
from baldwhisper_mlx.files import atomic_file, write_atomically

BEST_FILE, FINAL_FILE, AVERAGE_FILE = "best.safetensors", "final.safetensors", "average.safetensors"
PROGRESS_FILE, FINISHED_FILE = "progress.json", "finished.json"


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

    @classmethod
    def from_file(cls, path: Path) -> Progress:
        """Reads the progress stored in a checkpoint.

        `evals_since_best` was called `looks_without_gain` in earlier versions; their runs resume.
        """
        stored = json.loads(path.read_text(encoding="utf-8"))
        if "looks_without_gain" in stored:
            stored["evals_since_best"] = stored.pop("looks_without_gain")
        return cls(**stored)


class RunFolder:
    """The folder of one training run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint"
        self.partial, self.old = path / "checkpoint.partial", path / "checkpoint.old"
        path.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Locks the folder for this process inside the block.

        The operating system releases the lock when the process ends, even if it is killed.

        Raises:
            BlockingIOError: another process is training in this folder.
        """
        folder = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(
                    f"{self.path}: another process trains here; wait for it or give another folder"
                ) from None
            yield
        finally:
            os.close(folder)

    def save(self, accelerator: Accelerator, progress: Progress, average: Average | None) -> None:
        """Writes a checkpoint, then replaces the last one by it."""
        partial, old = self.partial, self.old
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
        accelerator.wait_for_everyone()
        accelerator.save_state(str(partial))
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
        """Loads the last checkpoint and returns its progress; None if there is no checkpoint."""
        if accelerator.is_main_process and not self.checkpoint.exists() and self.old.exists():
            self.old.rename(self.checkpoint)  # interrupted between the two renames
        accelerator.wait_for_everyone()
        if not (self.checkpoint / PROGRESS_FILE).is_file():
            return None
        accelerator.load_state(str(self.checkpoint))
        if average:
            average.load(_load(self.checkpoint / AVERAGE_FILE))
        return Progress.from_file(self.checkpoint / PROGRESS_FILE)

    def save_best(self, model: Whisper) -> None:
        """Stores the weights as the best so far."""
        with atomic_file(self.path / BEST_FILE) as temporary:
            _save(model.canonical_state(), temporary)

    def load_best(self, model: Whisper) -> None:
        """Loads the best weights into the model."""
        model.load_state_dict(_load(self.path / BEST_FILE))

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

    def finished(self, model: Whisper) -> dict[str, Any] | None:
        """Loads a finished run's final weights into the model and returns its results.

        Returns:
            None if the run is not finished; the model is then unchanged.
        """
        path = self.path / FINISHED_FILE
        if not path.is_file():
            return None
        model.load_state_dict(_load(self.path / FINAL_FILE))
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return results


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def _load(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)
