"""The encoder or decoder layers of a student, and how each is computed from its teacher's.

Merging a group of layers and keeping one of them differ in the weights only, so a `LayerPlan` lists
groups of teacher layers and weights over each group. Merging follows Sy et al., arXiv 2510.08599,
section 3; evenly spaced layers follow Distil-Whisper (Gandhi et al., arXiv 2311.00430).
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.checkpoint.state import Heads, State
from baldwhisper_convert.training.sharing import Groups

Part = Literal["encoder", "decoder"]
"""The half of the model whose layers a plan is for."""


@dataclass(frozen=True)
class LayerPlan:
    """For each student layer, the teacher layers it replaces and their weights.

    Raises:
        ValueError: groups that are empty or not consecutive from layer 0 on, or weights that
            do not match them.
    """

    groups: Groups
    weights: tuple[tuple[float, ...], ...]
    """Weights over each group, not negative, with a sum of 1."""

    def __post_init__(self) -> None:
        flat = [layer for group in self.groups for layer in group]
        if not all(self.groups) or flat != list(range(len(flat))):
            raise ValueError(f"groups must hold consecutive layers from 0 on, not {self.groups}")
        for group, weights in zip(self.groups, self.weights, strict=True):
            if len(group) != len(weights) or min(weights) < 0 or abs(sum(weights) - 1) > 1e-9:
                raise ValueError(
                    f"weights {weights} do not match the layers {group}; their sum must be 1"
                )

    @property
    def kept(self) -> tuple[int | None, ...]:
        """For each student layer, the teacher layer it copies; None if it is merged."""
        return tuple(
            group[weights.index(1.0)] if 1.0 in weights else None
            for group, weights in zip(self.groups, self.weights, strict=True)
        )

    def __str__(self) -> str:
        """Such as `keep 0,3,5` or `merge 0+1,2+3,4+5`."""
        if None not in self.kept:
            return f"keep {','.join(map(str, self.kept))}"
        names = [
            "+".join(map(str, group)) if layer is None else str(layer)
            for group, layer in zip(self.groups, self.kept, strict=True)
        ]
        return f"merge {','.join(names)}"


def group_layers(n_layers: int, sizes: Sequence[int] = ()) -> Groups:
    """Groups neighbouring layers in the given sizes, by default in pairs.

    With an odd number of layers, the last one has a group of its own.

    Raises:
        ValueError: the sizes do not add up to the number of layers.

    Example:
        >>> group_layers(5)
        ((0, 1), (2, 3), (4,))
        >>> group_layers(4, [1, 3])
        ((0,), (1, 2, 3))
    """
    sizes = tuple(sizes) or (2,) * (n_layers // 2) + (1,) * (n_layers % 2)
    if min(sizes) < 1 or sum(sizes) != n_layers:
        raise ValueError(f"groups of {list(sizes)} layers must add up to the model's {n_layers}")
    ends = list(accumulate(sizes))
    return tuple(tuple(range(end - size, end)) for size, end in zip(sizes, ends, strict=True))


def merge_plan(groups: Groups, weights: Sequence[tuple[float, float]]) -> LayerPlan:
    """Plans weighted means: (alpha lower + beta upper) / (alpha + beta).

    Args:
        groups: from `group_layers`.
        weights: (alpha, beta) of each group, or one pair for all. In a group of more than two,
            alpha is the weight of every layer but the last.

    Raises:
        ValueError: a negative or not finite weight, alpha + beta = 0, or weights for another
            number of groups.
    """
    pairs = list(weights) * len(groups) if len(weights) == 1 else list(weights)
    if len(pairs) != len(groups):
        raise ValueError(
            f"{len(pairs)} pairs of alpha and beta for {len(groups)} groups; give one or one each"
        )
    rows = []
    for group, (alpha, beta) in zip(groups, pairs, strict=True):
        if not (0 <= alpha < float("inf") and 0 <= beta < float("inf") and alpha + beta > 0):
            raise ValueError(
                f"alpha = {alpha:g}, beta = {beta:g}: they must be finite, must not be negative, "
                "nor both 0"
            )
        # A group of one layer is kept as it is, even if beta is 0.
        raw = [alpha] * (len(group) - 1) + [beta] if len(group) > 1 else [1.0]
        rows.append(tuple(weight / sum(raw) for weight in raw))
    return LayerPlan(groups, tuple(rows))


def keep_plan(n_layers: int, kept: Sequence[int]) -> LayerPlan:
    """Plans to keep some layers unchanged.

    Each replaces itself and the dropped layers below it, so that its training target is its own
    output in the teacher. The last one also replaces the layers above it, because the final layer
    norm that follows it expects the output of the teacher's last layer.

    Raises:
        ValueError: no layers, or not increasing numbers of the model's layers.

    Example:
        >>> keep_plan(6, [0, 3, 5]).groups
        ((0,), (1, 2, 3), (4, 5))
        >>> keep_plan(6, [1, 4]).groups
        ((0, 1), (2, 3, 4, 5))
    """
    numbers = list(kept)
    inside = all(0 <= layer < n_layers for layer in numbers)
    if not numbers or not inside or numbers != sorted(set(numbers)):
        raise ValueError(
            f"cannot keep the layers {numbers}: give increasing numbers from 0 to {n_layers - 1}"
        )
    ends = [layer + 1 for layer in numbers[:-1]] + [n_layers]
    groups = tuple(
        tuple(range(start, end)) for start, end in zip([0, *ends[:-1]], ends, strict=True)
    )
    weights = tuple(
        tuple(float(layer == number) for layer in group)
        for group, number in zip(groups, numbers, strict=True)
    )
    return LayerPlan(groups, weights)


def evenly_spaced(n_layers: int, n_kept: int) -> list[int]:
    """Distil-Whisper's choice: the first and last layer and evenly spaced ones, rounded down.

    Example:
        >>> evenly_spaced(6, 3), evenly_spaced(32, 2), evenly_spaced(6, 1)
        ([0, 2, 5], [0, 31], [5])
    """
    _check_count(n_layers, n_kept)
    if n_kept == 1:
        return [n_layers - 1]
    return [i * (n_layers - 1) // (n_kept - 1) for i in range(n_kept)]


def random_layers(n_layers: int, n_kept: int, seed: int) -> list[int]:
    """Draws layers without replacement, in increasing order."""
    _check_count(n_layers, n_kept)
    return sorted(random.Random(seed).sample(range(n_layers), n_kept))


def n_layers_of(checkpoint: Checkpoint, part: Part) -> int:
    """Number of layers of the encoder or the decoder."""
    return checkpoint.dims.n_audio_layer if part == "encoder" else checkpoint.dims.n_text_layer


def apply_plan(checkpoint: Checkpoint, plan: LayerPlan, part: Part = "decoder") -> Checkpoint:
    """Makes the student of a plan: each parameter of a layer is its group's weighted mean.

    A kept layer is copied bit by bit. A kept decoder layer keeps its alignment heads; a merged
    one has none. If no heads are left, the student has the default ones.

    Args:
        checkpoint: the teacher.
        plan: for all layers of the part.
        part: which layers are replaced; the others stay as they are.

    Raises:
        ValueError: the plan is for another number of layers.
    """
    n_layers, prefix = n_layers_of(checkpoint, part), f"{part}.blocks."
    if plan.groups[-1][-1] != n_layers - 1:
        raise ValueError(
            f"{checkpoint.source}: {n_layers} {part} layers, but the plan is for {plan.groups}"
        )
    state: State = {
        name: tensor for name, tensor in checkpoint.state.items() if not name.startswith(prefix)
    }
    parts = [
        name.removeprefix(f"{prefix}0.")
        for name in checkpoint.state
        if name.startswith(f"{prefix}0.")
    ]
    for new, (group, weights) in enumerate(zip(plan.groups, plan.weights, strict=True)):
        for name in parts:
            tensors = [checkpoint.state[f"{prefix}{layer}.{name}"] for layer in group]
            state[f"{prefix}{new}.{name}"] = _mean(tensors, weights)
    count = len(plan.groups)
    if part == "encoder":
        dims = dataclasses.replace(checkpoint.dims, n_audio_layer=count)
        return dataclasses.replace(checkpoint, dims=dims, state=state)
    return dataclasses.replace(
        checkpoint,
        dims=dataclasses.replace(checkpoint.dims, n_text_layer=count),
        state=state,
        alignment_heads=_surviving(checkpoint.alignment_heads, plan.kept),
    )


def _mean(tensors: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """The weighted mean, added in float64; a tensor of weight 1 is returned as it is."""
    if 1.0 in weights:
        return tensors[weights.index(1.0)]
    terms = [weight * tensor.double() for tensor, weight in zip(tensors, weights, strict=True)]
    return torch.stack(terms).sum(0).float()


def _surviving(heads: Heads | None, kept: Sequence[int | None]) -> Heads | None:
    """The alignment heads of kept layers, by the student's layer numbers; None if none is left."""
    new = [(kept.index(layer), head) for layer, head in heads or () if layer in kept]
    return tuple(new) or None


def _check_count(n_layers: int, n_kept: int) -> None:
    if not 0 < n_kept <= n_layers:
        raise ValueError(f"cannot keep {n_kept} of {n_layers} layers; give 1 to {n_layers}")
