"""How a model is trained: the settings, the learning rate, and which parameters learn."""

from __future__ import annotations

import fnmatch
import importlib.util
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import nn

from baldwhisper_convert.data.batches import Mix
from baldwhisper_convert.data.spec_augment import SpecAugment
from baldwhisper_convert.training.trackers import AUTO, check_trackers

Schedule = Literal["cosine", "linear", "constant"]
Precision = Literal["no", "fp16", "bf16"]

ADDED = {"added": True}
"""Metadata of a settings field that earlier versions did not have. At its default it is left out
of manifests and keys, so that the work of those versions still matches."""

AS_DEFAULT = {"as_default": True}
"""Metadata of a settings field that changes no result. Manifests and keys always have its default,
so that a run resumes when it is changed."""
LORA_MARK = ".lora_"
"""In the names that peft gives to the parameters of adapters."""

HOW = {"identity": False}
"""Metadata of a settings field that says how a result is computed or shown, not which result. It is
left out of manifests and keys, so changing it neither repeats a stage nor starts a run again."""


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters of linear layers (LoRA, Hu et al., arXiv 2106.09685).

    Raises:
        ValueError: a value out of range.
    """

    rank: int = 16
    """Rank r of the adapters: a layer becomes W + alpha / r B A."""
    alpha: float = 32.0
    """Scale of the adapters, before it is divided by the rank."""
    dropout: float = 0.0
    """Of the adapters' inputs."""
    targets: tuple[str, ...] = ("*.query", "*.value")
    """Linear layers that get adapters (shell patterns on canonical names without `.weight`)."""

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                "lora: rank must be at least 1, alpha above 0, and dropout at least 0 and below 1; "
                f"not {self.rank}, {self.alpha}, {self.dropout}"
            )
        if importlib.util.find_spec("peft") is None:
            raise ModuleNotFoundError(
                "lora: the package peft is not installed; install it with: pip install "
                "'baldwhisper-mlx[lora]'"
            )
        object.__setattr__(self, "targets", tuple(self.targets))


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
    """Of AdamW, after the warm-up."""
    schedule: Schedule = "cosine"
    """How the learning rate falls from its height to 0; `constant` does not fall."""
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
    lora: LoraSettings | None = field(default=None, metadata=ADDED)
    """Train low-rank adapters instead of the weights that `freeze` leaves; they become part of the
    weights when the training ends."""
    late: tuple[str, ...] = ()
    """Parameters whose training starts later than that of the others (shell patterns)."""
    late_start: float = 0.3
    """Share of the steps after which the late ones start."""
    mix: Mix = field(default_factory=Mix)
    """Forms in which the labels are given, see below."""
    spec_augment: SpecAugment = field(default=SpecAugment(), metadata=ADDED)
    """Parts of log-mel that are hidden in training, for data with `features = "mel"`."""
    mixed_precision: Precision = "no"
    """Type that layers compute in; weights, their updates and sensitive operations stay float32."""
    evaluate_every: int = 0
    """Steps between two evaluations on the development data; 0 for one at the end only."""
    patience: int = 0
    """Evaluations without a better result after which training stops; 0 for never."""
    checkpoint_minutes: float = field(default=5.0, metadata=AS_DEFAULT)
    """Minutes between two checkpoints, from which an interrupted run resumes."""
    trackers: tuple[str, ...] = field(default=(AUTO,), metadata=HOW)
    """Where the log is sent besides its file: `tensorboard`, `wandb` or another tracker of
    Accelerate; `auto` is TensorBoard if it is installed."""
    gradient_checkpointing: bool = field(default=False, metadata=HOW)
    """Compute layers again in the backward pass instead of keeping what the gradient needs: less
    memory, more time, the same gradient."""
    seed: int = 0
    """Of the order of the windows, the forms of the labels, dropout and adapters."""

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
        object.__setattr__(self, "trackers", tuple(self.trackers))
        check_trackers(self.trackers)

    def steps(self, per_epoch: int) -> int:
        """Number of steps of a training with so many batches an epoch."""
        return max(1, round(self.epochs * per_epoch))


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
        trained = settings.lora is None or LORA_MARK in name
        parameter.requires_grad_(trained and not matches(name, settings.freeze))
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
