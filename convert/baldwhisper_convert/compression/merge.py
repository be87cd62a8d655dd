"""The stage `merge`: a decoder with fewer layers, by merging neighbours or keeping some.

Before any training, the choices can be ranked by their KL to the teacher on some speech; the method
`search` ranks every way to keep some of the layers. The ranking after training may differ, because
a merged layer contains something of both layers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

from tqdm import tqdm

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.compression.agreement import Agreement, Reference
from baldwhisper_convert.compression.layer_similarity import (
    can_draw,
    draw_similarity,
    layer_similarity,
)
from baldwhisper_convert.compression.layers import (
    LayerPlan,
    apply_plan,
    evenly_spaced,
    group_layers,
    keep_plan,
    merge_plan,
    random_layers,
)
from baldwhisper_convert.data.batches import Batch
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training.objectives import Groups
from baldwhisper_mlx.files import write_atomically

Method = Literal["merge", "upper", "lower", "even", "random", "keep", "search"]

SIMILARITY_FILE, CHOICES_FILE = "layer_similarity.json", "layer_choices.json"

MOST_CHOICES = 1000
"""Largest number of choices that a search tries; Whisper base has 20 for three layers."""


@dataclass(frozen=True, kw_only=True)
class MergeSettings:
    """How the student's decoder layers are made.

    Raises:
        ValueError: an unknown method, or bad weights.
    """

    method: Method = "merge"
    """`merge` merges each group; `upper` and `lower` keep one layer of each group; `even` keeps
    evenly spaced layers (Distil-Whisper), `random` random ones and `keep` those listed in `keep`;
    `search` keeps those that are closest to the teacher before training, and needs speech."""
    groups: tuple[int, ...] = ()
    """Sizes of the groups of neighbouring layers; pairs if empty."""
    alpha: float = 0.1
    """Weight of the lower layer of a group (of all but the last)."""
    beta: float = 1.0
    """Weight of the upper layer (of the last)."""
    weights: tuple[tuple[float, float], ...] = ()
    """(alpha, beta) of each group, instead of one pair for all."""
    layers: int = 0
    """Number of layers kept by `even`, `random` and `search`; half of them if 0."""
    keep: tuple[int, ...] = ()
    """Layers kept by `keep`, numbered from 0."""
    seed: int = 0
    """Of the choice by `random`."""

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(f"method must be one of {get_args(Method)}, not {self.method!r}")
        # TOML has lists only.
        object.__setattr__(self, "groups", tuple(self.groups))
        object.__setattr__(self, "keep", tuple(self.keep))
        object.__setattr__(self, "weights", tuple((a, b) for a, b in self.weights))
        for alpha, beta in self.weights or ((self.alpha, self.beta),):
            merge_plan(((0, 1),), [(alpha, beta)])
        if bool(self.keep) != (self.method == "keep"):
            raise ValueError('list the layers to keep with method = "keep", and only with that')
        if self.layers < 0:
            raise ValueError(f"layers must be at least 1, or 0 for half, not {self.layers}")

    def plan(self, n_layers: int, method: Method | None = None) -> LayerPlan:
        """Plans the student's layers.

        Args:
            n_layers: number of the teacher's decoder layers.
            method: instead of the settings', to compare with; not `search`.

        Raises:
            ValueError: the settings do not fit that many layers.
        """
        method, n_kept = method or self.method, self.n_kept(n_layers)
        if method == "even":
            return keep_plan(n_layers, evenly_spaced(n_layers, n_kept))
        if method == "random":
            return keep_plan(n_layers, random_layers(n_layers, n_kept, self.seed))
        if method == "keep":
            return keep_plan(n_layers, self.keep)
        groups = group_layers(n_layers, self.groups)
        if method == "upper":
            return keep_plan(n_layers, [group[-1] for group in groups])
        if method == "lower":
            return keep_plan(n_layers, [group[0] for group in groups])
        if method == "merge":
            return merge_plan(groups, self.weights or [(self.alpha, self.beta)])
        raise ValueError(
            f"method {method!r} needs speech to choose the layers with; give some data"
        )

    def n_kept(self, n_layers: int) -> int:
        """Number of layers that `even`, `random` and `search` keep of `n_layers`."""
        return self.layers or -(-n_layers // 2)


def merge(
    checkpoint: Checkpoint,
    settings: MergeSettings,
    batches: Sequence[Batch] | None = None,
    report_folder: Path | None = None,
) -> tuple[Checkpoint, Groups, dict[str, Any]]:
    """Makes the student and, given speech, measures it and other choices before training.

    Args:
        checkpoint: the teacher.
        settings: method and weights.
        batches: speech to measure with; a few dozen clips are enough.
        report_folder: for the similarity matrix and the choices, as JSON and PNG.

    Returns:
        The student; for each of its layers, the teacher layers it replaces; and metrics:
        `choices`, best first, each with `plan`, `kl` and `top1`; `similarity`; and `plan`, `kl`
        and `top1` of the student. Without speech there are no metrics.

    Raises:
        ValueError: settings that do not fit the decoder, or a search without speech.
    """
    n_layers = checkpoint.dims.n_text_layer
    # Without speech there is nothing to compare with: the settings decide alone.
    if batches is None:
        plan = settings.plan(n_layers)
        return apply_plan(checkpoint, plan), plan.groups, {}
    # The candidates: all choices for a search, else the settings' plan and the other methods.
    if settings.method == "search":
        plans = all_choices(n_layers, settings.n_kept(n_layers))
    else:
        plans = _baselines(settings, n_layers)
    # The teacher runs once; every candidate's decoder runs on its encoder states.
    teacher = Whisper.from_checkpoint(checkpoint)
    reference = Reference(teacher, batches)
    ranking = rank(checkpoint, plans, reference)
    # A search takes the best one; otherwise the ranking is only reported.
    plan = ranking[0][0] if settings.method == "search" else plans[0]
    agreement = next(measured for candidate, measured in ranking if candidate == plan)
    metrics = {
        "plan": str(plan),
        "kl": agreement.kl,
        "top1": agreement.top1,
        "positions": reference.positions,
        "choices": [{"plan": str(p), "kl": a.kl, "top1": a.top1} for p, a in ranking],
        "similarity": layer_similarity(teacher, reference).tolist(),
    }
    if report_folder is not None:
        _report(metrics, report_folder)
    return apply_plan(checkpoint, plan), plan.groups, metrics


def all_choices(n_layers: int, n_kept: int) -> list[LayerPlan]:
    """Plans every way to keep `n_kept` of the layers.

    Raises:
        ValueError: there are more than `MOST_CHOICES` ways, or none.
    """
    number = math.comb(n_layers, n_kept)
    if not 0 < number <= MOST_CHOICES:
        raise ValueError(
            f"there are {number} ways to keep {n_kept} of {n_layers} layers; a search tries 1 to "
            f"{MOST_CHOICES}, so change `layers`"
        )
    return [keep_plan(n_layers, kept) for kept in combinations(range(n_layers), n_kept)]


def rank(
    checkpoint: Checkpoint, plans: Sequence[LayerPlan], reference: Reference
) -> list[tuple[LayerPlan, Agreement]]:
    """Ranks the students of a teacher by their KL to it before training, smallest first."""
    measured = [
        (plan, reference.compare(Whisper.from_checkpoint(apply_plan(checkpoint, plan))))
        for plan in tqdm(plans, desc="layers", unit="choice", disable=len(plans) < 2)
    ]
    return sorted(measured, key=lambda pair: pair[1].kl)


def choices_table(metrics: dict[str, Any], most: int = 30) -> str:
    """Formats the ranking as lines of text; the student's plan is marked with >."""
    rows = [
        f"{'>' if choice['plan'] == metrics['plan'] else ' '} {choice['plan']:<24} "
        f"{Agreement(choice['kl'], choice['top1'])}"
        for choice in metrics.get("choices", [])
    ]
    hidden = [f"  and {len(rows) - most} worse"] if len(rows) > most else []
    return "\n".join(rows[:most] + hidden)


def _baselines(settings: MergeSettings, n_layers: int) -> list[LayerPlan]:
    """The settings' plan first, then those of the other methods, without repetitions."""
    plans = [settings.plan(n_layers)]
    others: tuple[Method, ...] = ("merge", "upper", "lower", "even", "random")
    for method in others:
        plan = settings.plan(n_layers, method)
        if plan not in plans:
            plans.append(plan)
    return plans


def _report(metrics: dict[str, Any], folder: Path) -> None:
    """Writes the similarity matrix and the choices as JSON, and the matrix as a PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    similarity = metrics["similarity"]
    write_atomically(folder / SIMILARITY_FILE, json.dumps(similarity, indent=2) + "\n")
    choices = json.dumps(metrics["choices"], indent=2) + "\n"
    write_atomically(folder / CHOICES_FILE, choices)
    if can_draw():
        draw_similarity(similarity, (folder / SIMILARITY_FILE).with_suffix(".png"))
