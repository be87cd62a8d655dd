"""Small training runs, the same in a test and in a process that a test starts and kills."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from baldwhisper_convert.data.prepared import PreparedWindow, Windows
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training import log, loop, trackers
from baldwhisper_convert.training.loop import Evaluate, train
from baldwhisper_convert.training.objectives import Distillation, LossSettings
from baldwhisper_convert.training.settings import TrainingSettings
from tests.support.tiny_prepared import GROUPS, tiny_prompts, tiny_student, tiny_teacher

NEVER = 1e6
"""`checkpoint_minutes` of a run that keeps none."""

PLAIN: dict[str, Any] = {"batch_size": 4, "learning_rate": 3e-3, "checkpoint_minutes": NEVER}

EVERYTHING: dict[str, Any] = PLAIN | {
    "accumulate": 2,
    "dropout": 0.1,
    "ema": 0.9,
    "late": ("decoder.token_embedding.*",),
    "evaluate_every": 2,
    "patience": 3,
}
"""All that has a state which a resume must find again."""

Set = Callable[[Any, str, Any], None]


def lean(setter: Set = setattr) -> None:
    """No pictures, no TensorBoard and one thread, so that runs are fast and exactly alike.

    Args:
        setter: such as a monkeypatch's `setattr`.
    """
    torch.set_num_threads(1)
    nothing = SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None))
    setter(log, "importlib", nothing)
    setter(trackers, "importlib", nothing)


def tick(setter: Set = setattr, seconds: float = 1.0) -> None:
    """A clock that advances whenever the loop reads it, twice a step."""
    now = [0.0]

    def monotonic() -> float:
        now[0] += seconds
        return now[0]

    setter(loop, "time", SimpleNamespace(monotonic=monotonic))


STEPS_BETWEEN = 5 / 60
"""`checkpoint_minutes` that are over every third step, by `tick`'s clock."""


class Watched:
    """Data that calls a function before the features of each window are read."""

    def __init__(self, data: Windows, call: Callable[[int], None]) -> None:
        self.data, self.call, self.reads = data, call, 0
        self.windows: list[PreparedWindow] = list(data.windows)
        self.is_mel, self.language = data.is_mel, data.language
        self.languages = list(data.languages)
        self.audio_context, self.labelled = data.audio_context, data.labelled

    def features(self, index: int) -> torch.Tensor:
        """As `Prepared.features`."""
        self.reads += 1
        self.call(self.reads)
        return self.data.features(index)


def drift() -> Evaluate:
    """A score that only gets worse: how far a student is from where it started."""
    start = {name: tensor.clone() for name, tensor in tiny_student().state_dict().items()}

    def evaluate(model: Whisper) -> dict[str, float]:
        moved = [
            (tensor - start[name]).square().sum() for name, tensor in model.state_dict().items()
        ]
        return {"score": float(torch.stack(moved).sum())}

    return evaluate


def run(
    folder: Path,
    data: Windows,
    *,
    loss: LossSettings | None = None,
    evaluate: Evaluate | None = None,
    **settings: Any,
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Trains a tiny student; its weights with the objective's own, and what `train` returns."""
    student = tiny_student()
    objective = Distillation(tiny_teacher(), GROUPS, loss or LossSettings(hidden=1.0))
    results = train(
        student,
        objective,
        data,
        tiny_prompts(),
        TrainingSettings(**(PLAIN | settings)),
        folder,
        evaluate=evaluate,
    )
    return student.canonical_state() | objective.state_dict(), results


def losses(folder: Path) -> list[dict[str, Any]]:
    """A run's log without what the clock says."""
    rows = log.read_log(folder / log.LOG_FILE)
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def different(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> set[str]:
    """Names of the tensors that are not the same to the last bit."""
    assert a.keys() == b.keys()
    return {name for name in a if not torch.equal(a[name], b[name])}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether all tensors are the same to the last bit."""
    return not different(a, b)
