"""The stage that makes a decoder of fewer layers, by merging neighbours or keeping some.

Which way starts best can be told before any training, by the KL to the teacher on some
speech; `method = "search"` ranks every choice of layers by it. What training makes of a start
is another matter: a merged pair keeps something of both layers.
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
from baldwhisper_convert.files import write_atomically
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training.objectives import Groups

Method = Literal["merge", "upper", "lower", "even", "random", "keep", "search"]

SIMILARITY_FILE, CHOICES_FILE = "layer_similarity.json", "layer_choices.json"

MOST_CHOICES = 1000
"""Largest number of choices that a search tries; Whisper base has 20 of three layers."""


@dataclass(frozen=True, kw_only=True)
class MergeSettings:
    """How the student's decoder layers are made.

    Raises:
        ValueError: an unknown method, or bad weights.
    """

    method: Method = "merge"
    """`merge` groups; keep the `upper` or `lower` layer of each group, `even`ly spaced ones
    (Distil-Whisper), `random` ones or those listed in `keep`; or `search` for the choice that
    starts closest to the teacher, which needs speech."""
    groups: tuple[int, ...] = ()
    """Sizes of the groups of neighbouring layers; pairs if empty."""
    alpha: float = 0.1
    """Weight of the lower layer of a group (of all but the last)."""
    beta: float = 1.0
    """Weight of the upper layer (of the last)."""
    weights: tuple[tuple[float, float], ...] = ()
    """(alpha, beta) of each group, instead of one for all."""
    layers: int = 0
    """Layers kept by `even`, `random` and `search`; half of them if 0."""
    keep: tuple[int, ...] = ()
    """Layers kept by `keep`, numbered from 0."""
    seed: int = 0
    """Of `random`."""

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(f"method must be one of {get_args(Method)}, not {self.method!r}")
        # From TOML they are lists.
        object.__setattr__(self, "groups", tuple(self.groups))
        object.__setattr__(self, "keep", tuple(self.keep))
        object.__setattr__(self, "weights", tuple((a, b) for a, b in self.weights))
        for alpha, beta in self.weights or ((self.alpha, self.beta),):
            merge_plan(((0, 1),), [(alpha, beta)])
        if bool(self.keep) != (self.method == "keep"):
            raise ValueError('the layers to keep go with method = "keep", and only with it')
        if self.layers < 0:
            raise ValueError(f"layers must be at least 1, or 0 for half, not {self.layers}")

    def plan(self, n_layers: int, method: Method | None = None) -> LayerPlan:
        """The student's layers, for a decoder of `n_layers`.

        Args:
            n_layers: the teacher's.
            method: another than the settings', to compare with; not `search`.

        Raises:
            ValueError: the settings do not fit that many layers.
        """
        method, half = method or self.method, self.layers or -(-n_layers // 2)
        if method == "even":
            return keep_plan(n_layers, evenly_spaced(n_layers, half))
        if method == "random":
            return keep_plan(n_layers, random_layers(n_layers, half, self.seed))
        if method == "keep":
            return keep_plan(n_layers, self.keep)
        groups = group_layers(n_layers, self.groups)
        if method == "upper":
            return keep_plan(n_layers, [group[-1] for group in groups])
        if method == "lower":
            return keep_plan(n_layers, [group[0] for group in groups])
        if method == "merge":
            return merge_plan(groups, self.weights or [(self.alpha, self.beta)])
        raise ValueError(f"method {method!r} needs speech to choose the layers by")


def merge(
    checkpoint: Checkpoint,
    settings: MergeSettings,
    batches: Sequence[Batch] | None = None,
    report_folder: Path | None = None,
) -> tuple[Checkpoint, Groups, dict[str, Any]]:
    """Makes the student and, given speech, says how it and the other choices start.

    Args:
        checkpoint: the teacher.
        settings: how.
        batches: speech to measure with; a few dozen clips are enough.
        report_folder: where the similarity map and the choices go, as JSON and PNG.

    Returns:
        The student; for each of its layers, the teacher layers it stands for; and metrics:
        `choices`, best first, each with `plan`, `kl` and `top1`, `similarity`, and `kl` and
        `top1` of the student. Without speech there are none.

    Raises:
        ValueError: settings that do not fit the decoder, or a search without speech.
    """
    n_layers = checkpoint.dims.n_text_layer
    if batches is None:
        plan = settings.plan(n_layers)
        return apply_plan(checkpoint, plan), plan.groups, {}
    if settings.method == "search":
        plans = all_choices(n_layers, settings.layers or -(-n_layers // 2))
    else:
        plans = _baselines(settings, n_layers)
    teacher = Whisper.from_checkpoint(checkpoint)
    reference = Reference(teacher, batches)
    ranking = rank(checkpoint, plans, reference)
    plan, found = ranking[0] if settings.method == "search" else ranking[_index(ranking, plans[0])]
    metrics = {
        "plan": str(plan),
        "kl": found.kl,
        "top1": found.top1,
        "positions": reference.positions,
        "choices": [{"plan": str(p), "kl": a.kl, "top1": a.top1} for p, a in ranking],
        "similarity": layer_similarity(teacher, reference).tolist(),
    }
    if report_folder is not None:
        _report(metrics, report_folder)
    return apply_plan(checkpoint, plan), plan.groups, metrics


def all_choices(n_layers: int, n_kept: int) -> list[LayerPlan]:
    """Every way to keep some of the layers.

    Raises:
        ValueError: more than `MOST_CHOICES`, or none.
    """
    number = math.comb(n_layers, n_kept)
    if not 0 < number <= MOST_CHOICES:
        raise ValueError(
            f"there are {number} ways to keep {n_kept} of {n_layers} layers; a search tries 1 to "
            f"{MOST_CHOICES}"
        )
    return [keep_plan(n_layers, kept) for kept in combinations(range(n_layers), n_kept)]


def rank(
    checkpoint: Checkpoint, plans: Sequence[LayerPlan], reference: Reference
) -> list[tuple[LayerPlan, Agreement]]:
    """Students of a teacher by their KL to it, smallest first, before any training."""
    measured = [
        (plan, reference.compare(Whisper.from_checkpoint(apply_plan(checkpoint, plan))))
        for plan in tqdm(plans, desc="layers", unit="choice", disable=len(plans) < 2)
    ]
    return sorted(measured, key=lambda pair: pair[1].kl)


def choices_table(metrics: dict[str, Any], most: int = 30) -> str:
    """The ranking as lines of text, the student's own marked."""
    rows = [
        f"{'>' if choice['plan'] == metrics['plan'] else ' '} {choice['plan']:<24} "
        f"{Agreement(choice['kl'], choice['top1'])}"
        for choice in metrics.get("choices", [])
    ]
    hidden = [f"  and {len(rows) - most} worse"] if len(rows) > most else []
    return "\n".join(rows[:most] + hidden)


def _baselines(settings: MergeSettings, n_layers: int) -> list[LayerPlan]:
    """The settings' own plan first, then what else could be done with as many layers."""
    own = settings.plan(n_layers)
    plans = [own]
    others: tuple[Method, ...] = ("merge", "upper", "lower", "even", "random")
    for method in others:
        plan = settings.plan(n_layers, method)
        if plan not in plans:
            plans.append(plan)
    return plans


def _index(ranking: Sequence[tuple[LayerPlan, Agreement]], plan: LayerPlan) -> int:
    return [candidate for candidate, _ in ranking].index(plan)


def _report(metrics: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    similarity = metrics["similarity"]
    write_atomically(folder / SIMILARITY_FILE, json.dumps(similarity, indent=2) + "\n")
    choices = json.dumps(metrics["choices"], indent=2) + "\n"
    write_atomically(folder / CHOICES_FILE, choices)
    if can_draw():
        draw_similarity(similarity, (folder / SIMILARITY_FILE).with_suffix(".png"))
