"""How a model is trained: the settings, the learning rate, and which parameters learn."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import nn

from baldwhisper_convert.data.batches import Mix

Schedule = Literal["cosine", "linear", "constant"]
Precision = Literal["no", "fp16", "bf16"]

ADDED = {"added": True}
"""Metadata of a settings field that earlier versions did not have. At its default it is left out
of manifests and keys, so that the work of those versions still matches."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a model is trained.

    Raises:
        ValueError: a value out of range.
    """

    epochs: float = 3.0
    """Passes over the data; parts of one are allowed."""
    batch_size: int = 8
    """Windows per step, over all processes and accumulated batches."""
    accumulate: int = 1
    """Batches whose gradients are accumulated into one step, in each process."""
    learning_rate: float = 3e-4
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: float = 0.01
    """AdamW's, on matrices only."""
    clip: float = 1.0
    """Largest norm of the gradient; larger ones are scaled down."""
    dropout: float = 0.0
    """Of the decoder's residual branches; 0.05 already ruins a trained Whisper (docs/log.md)."""
    ema: float = 0.0
    """Decay of the moving average of the weights; 0 for none. The average becomes the result."""
    start_share: float = field(default=0.0, metadata=ADDED)
    """Share s of the start in the result, s start + (1 - s) trained: weights between a model and
    what a further training made of it are often better than both (Wortsman et al., arXiv
    2109.01903)."""
    freeze: tuple[str, ...] = ("encoder.*",)
    """Parameters that are not trained (shell patterns on canonical names)."""
    late: tuple[str, ...] = ()
    """Parameters whose training starts later than that of the others (shell patterns)."""
    late_start: float = 0.3
    """Share of the steps after which the late ones start."""
    mix: Mix = field(default_factory=Mix)
    mixed_precision: Precision = "no"
    evaluate_every: int = 0
    """Steps between two evaluations on the development data; 0 for one at the end only."""
    patience: int = 0
    """Evaluations without a better result after which training stops; 0 for never."""
    checkpoint_minutes: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        positive = ("epochs", "batch_size", "accumulate", "learning_rate", "clip")
        for name in (*positive, "checkpoint_minutes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("weight_decay", "evaluate_every", "patience"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        for name in ("warmup", "dropout", "ema", "start_share", "late_start"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 0 and below 1, not {getattr(self, name)}"
                )
        if self.schedule not in get_args(Schedule):
            raise ValueError(f"schedule must be one of {get_args(Schedule)}, not {self.schedule!r}")
        if self.mixed_precision not in get_args(Precision):
            raise ValueError(
                f"mixed_precision must be one of {get_args(Precision)}, "
                f"not {self.mixed_precision!r}"
            )
        object.__setattr__(self, "freeze", tuple(self.freeze))
        object.__setattr__(self, "late", tuple(self.late))

    def steps(self, windows: int) -> int:
        """Number of steps of a training on so many windows."""
        return max(1, round(self.epochs * max(1, windows // self.batch_size)))


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a parameter's canonical name fits one of the shell patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def rate(step: int, steps: int, settings: TrainingSettings, *, late: bool = False) -> float:
    """The factor of the learning rate at a step: linear warm-up times the schedule.

    Args:
        step: from 0.
        steps: of the whole run.
        settings: schedule, warm-up, and when the late parameters start.
        late: for the late parameters: their warm-up begins when they start, and their schedule
            is that of the others.
    """
    start = math.ceil(settings.late_start * steps) if late else 0
    warmup = max(1, math.ceil(settings.warmup * steps))
    rise = min(1.0, max(0.0, (step - start + 1) / warmup))
    done = min(1.0, step / max(1, steps))
    fall = {
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
        "linear": 1 - done,
        "constant": 1.0,
    }[settings.schedule]
    return rise * fall


def parameter_groups(
    model: nn.Module, objective: nn.Module, settings: TrainingSettings
) -> list[dict[str, Any]]:
    """Freezes parameters and groups the rest for AdamW, by weight decay and start.

    Args:
        model: `requires_grad` of its parameters is set by `settings.freeze`.
        objective: its parameters that require gradients are trained too, without weight decay.
        settings: which parameters are frozen or late, and the weight decay.

    Returns:
        Parameter groups, with a key "late" that AdamW does not know.

    Raises:
        ValueError: a pattern fits no parameter, or nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in (*settings.freeze, *settings.late):
        if not any(matches(name, [pattern]) for name in names):
            raise ValueError(f"no parameter is called {pattern!r}; a valid name is {names[-1]!r}")
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not matches(name, settings.freeze))
        if parameter.requires_grad:
            key = (matches(name, settings.late), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    if not groups:
        raise ValueError("`freeze` names every parameter, so there is nothing to train")
    of_objective = [p for p in objective.parameters() if p.requires_grad]
    if of_objective:
        groups.setdefault((False, False), []).extend(of_objective)
    return [
        {
            "params": parameters,
            "weight_decay": settings.weight_decay if is_matrix else 0.0,
            "late": late,
        }
        for (late, is_matrix), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
