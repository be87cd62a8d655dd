"""The stage `merge`: a decoder or encoder with fewer layers, by merging neighbours or keeping some.

Before any training, the choices can be ranked by their distance from the teacher on some speech;
the method `search` ranks every way to keep some of the layers. The ranking after training may
differ, because a merged layer contains something of both layers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, get_args

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.compression.layer_similarity import can_draw, draw_similarity
from baldwhisper_convert.compression.layers import (
    LayerPlan,
    Part,
    apply_plan,
    evenly_spaced,
    group_layers,
    keep_plan,
    merge_plan,
    n_layers_of,
    random_layers,
)
from baldwhisper_convert.compression.ranking import figures_of, measure_plans
from baldwhisper_convert.compression.refit import refit_encoder
from baldwhisper_convert.data.batches import Batch
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training.settings import ADDED
from baldwhisper_convert.training.sharing import Groups
from baldwhisper_mlx.files import write_atomically

Method = Literal["merge", "upper", "lower", "even", "random", "keep", "search"]

SIMILARITY_FILE, CHOICES_FILE = "layer_similarity.json", "layer_choices.json"

MOST_CHOICES = 1000
"""Largest number of choices that a search tries; Whisper base has 20 for three layers."""


@dataclass(frozen=True, kw_only=True)
class MergeSettings:
    """How the student's layers are made.

    Raises:
        ValueError: an unknown part or method, or bad weights.
    """

    part: Part = field(default="decoder", metadata=ADDED)
    """The part of the model whose layers become fewer: `decoder` or `encoder`."""

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
    refit: float = field(default=0.0, metadata=ADDED)
    """For the encoder: fit the layers to the teacher's states on speech by ridge regression, with
    a ridge of this size (such as 0.1; see `refit_encoder`). 0 for none."""

    def __post_init__(self) -> None:
        if self.part not in get_args(Part):
            raise ValueError(f"part must be one of {get_args(Part)}, not {self.part!r}")
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
        if not self.refit >= 0:
            raise ValueError(f"refit must not be negative, not {self.refit}")
        if self.refit and self.part != "encoder":
            raise ValueError('refit is for the encoder; set part = "encoder" or leave refit out')

    def plan(self, n_layers: int, method: Method | None = None) -> LayerPlan:
        """Plans the student's layers.

        Args:
            n_layers: number of the teacher's layers.
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
    *,
    has_text: bool = True,
    calibration: Sequence[Batch] | None = None,
) -> tuple[Checkpoint, Groups, dict[str, Any]]:
    """Makes the student and, given speech, measures it and other choices before training.

    Args:
        checkpoint: the teacher.
        settings: part, method and weights.
        batches: speech to measure with; a few dozen clips are enough. For the encoder, log-mel.
        report_folder: for the similarity matrix and the choices, as JSON and PNG.
        has_text: whether the speech has text. Without it, the encoder alone can be measured.
        calibration: other speech, to refit the encoder's layers to.

    Returns:
        The student; for each layer of the part, the teacher layers it replaces; and metrics:
        `choices`, best first, each with `plan`, `kl` and `top1`; `similarity`; and `plan`, `kl`
        and `top1` of the student. For the encoder there is `error`, too: the relative squared
        error of the final states; without text there is nothing else. With `refit` there are the
        same figures after it, such as `refit_error`. Without speech there are no metrics.

    Raises:
        ValueError: settings that do not fit the model, a search without speech, or speech that
            the part cannot be measured with.
    """
    n_layers = n_layers_of(checkpoint, settings.part)
    # Without speech there is nothing to compare with: the settings decide alone.
    if batches is None:
        check_without_speech(settings)
        plan = settings.plan(n_layers)
        return apply_plan(checkpoint, plan, settings.part), plan.groups, {}
    plans = candidates(settings, n_layers)
    ranking, compare, metrics = measure_plans(checkpoint, plans, settings.part, batches, has_text)
    # A search takes the best one; otherwise the ranking is only reported.
    plan = ranking[0] if settings.method == "search" else plans[0]
    metrics = next(c for c in metrics["choices"] if c["plan"] == str(plan)) | metrics
    if report_folder is not None:
        _report(metrics, report_folder, settings.part)
    student = apply_plan(checkpoint, plan, settings.part)
    if settings.refit:
        if not calibration:
            raise ValueError("refit needs more windows of speech than are measured; prepare more")
        teacher = Whisper.from_checkpoint(checkpoint)
        student = refit_encoder(teacher, student, plan.groups, calibration, settings.refit)
        figures = figures_of(compare(Whisper.from_checkpoint(student)))
        metrics |= {f"refit_{name}": value for name, value in figures.items()}
    return student, plan.groups, metrics


def check_without_speech(settings: MergeSettings) -> None:
    """Raises ValueError if the settings need speech."""
    if settings.refit:
        raise ValueError("refit needs speech; give some data")


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


def choices_table(metrics: dict[str, Any], most: int = 30) -> str:
    """Formats the ranking as lines of text; the student's plan is marked with >."""
    titles = {"error": "error", "kl": "KL", "top1": "top-1"}
    rows = [
        f"{'>' if choice['plan'] == metrics['plan'] else ' '} {choice['plan']:<24} "
        + "  ".join(f"{titles[key]} {choice[key]:6.3f}" for key in titles if key in choice)
        for choice in metrics.get("choices", [])
    ]
    hidden = [f"  and {len(rows) - most} worse"] if len(rows) > most else []
    return "\n".join(rows[:most] + hidden)


def candidates(settings: MergeSettings, n_layers: int) -> list[LayerPlan]:
    """The plans that are compared on speech: all choices for a search, else those of all methods.

    The settings' plan comes first, then those of the other methods, without repetitions.

    Raises:
        ValueError: settings that do not fit the model.
    """
    if settings.method == "search":
        return all_choices(n_layers, settings.n_kept(n_layers))
    plans = [settings.plan(n_layers)]
    others: tuple[Method, ...] = ("merge", "upper", "lower", "even", "random")
    for method in others:
        plan = settings.plan(n_layers, method)
        if plan not in plans:
            plans.append(plan)
    return plans


def _report(metrics: dict[str, Any], folder: Path, part: Part) -> None:
    """Writes the similarity matrix and the choices as JSON, and the matrix as a PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    similarity = metrics["similarity"]
    write_atomically(folder / SIMILARITY_FILE, json.dumps(similarity, indent=2) + "\n")
    choices = json.dumps(metrics["choices"], indent=2) + "\n"
    write_atomically(folder / CHOICES_FILE, choices)
    if can_draw():
        draw_similarity(similarity, (folder / SIMILARITY_FILE).with_suffix(".png"), part)
