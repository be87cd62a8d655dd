"""The stage that shears the vocabulary matrix: a dense token embedding becomes factorized.

`init = "svd"` is the paper's start (Sy et al., arXiv 2510.08599), which knows nothing of how the
matrix is used and throws almost everything away; `joint` weighs tokens by how often they are
met and directions by what the decoder does with them, calibrated on some speech. What is left of
the model is measured on other speech, each end alone and both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.checkpoint.state import EMBEDDING
from baldwhisper_convert.compression.agreement import Agreement, Reference
from baldwhisper_convert.compression.calibration import Calibration, calibrate
from baldwhisper_convert.compression.embedding_factors import (
    Factors,
    energy_kept,
    expected_states,
    focused,
    joint_factors,
    joint_metric,
    random_factors,
    refitted_input,
    separate,
    svd_factors,
    with_dense_rows,
)
from baldwhisper_convert.data.batches import Batch
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_mlx.config import EmbeddingProjections

Init = Literal["joint", "svd", "random"]

WEIGHT_EXPONENT = 0.25
"""Rows are weighted by their tokens' frequency to this power (squared errors by its square)."""


@dataclass(frozen=True, kw_only=True)
class FactorizeSettings:
    """The form of the factorized embedding and how it starts.

    Raises:
        ValueError: a value out of range.
    """

    rank: int = 96
    init: Init = "joint"
    """`svd`, the paper's, `joint`, calibrated for both ends, or `random`, to compare with."""
    projections: EmbeddingProjections | None = None
    """One projection for both ends, `shared`, or one each, `separate`; by default separate for
    `joint` and shared for the others."""
    mean: bool | None = None
    """Whether the mean row is kept apart; by default for `joint` only."""
    dense_rows: int = 0
    """Tokens, the most frequent ones, that keep their rows."""
    focus: float = 0.0
    """Weight of a token's logit where the token is to be written, as a share of all other places;
    for `joint`. It helps the output much and costs the input, which has the same factors, and
    beside dense rows it now and then writes half a character."""
    seed: int = 0
    """Of the tokens sampled in calibration, and of a random start."""

    def __post_init__(self) -> None:
        if self.init not in get_args(Init):
            raise ValueError(f"init must be one of {get_args(Init)}, not {self.init!r}")
        if self.projections is not None and self.projections not in get_args(EmbeddingProjections):
            raise ValueError(f"projections must be shared or separate, not {self.projections!r}")
        if self.rank < 1 or self.dense_rows < 0:
            raise ValueError("rank must be at least 1 and dense_rows not negative")
        if self.focus < 0 or (self.focus and self.init != "joint"):
            raise ValueError("focus must not be negative, and is a matter of joint only")


def factorize(
    checkpoint: Checkpoint,
    settings: FactorizeSettings,
    calibration: Sequence[Batch],
    held_out: Sequence[Batch],
    counts: Tensor | None = None,
) -> tuple[Checkpoint, dict[str, Any]]:
    """Factorizes the token embedding of a checkpoint.

    Args:
        checkpoint: with a dense embedding.
        settings: form and start.
        calibration: about a hundred clips of speech.
        held_out: other clips, to measure on; nothing is measured if there are none.
        counts: of each token (V,) in more text than that of the clips.

    Returns:
        The student, and metrics: `parameters_before` and `parameters_after`, `energy` and
        `energy_weighted`, and for `output`, `input` and `both` ends `top1_*` and `kl_*`.

    Raises:
        ValueError: an embedding that is factorized already, or settings that do not fit it.
    """
    if checkpoint.embedding.rank is not None:
        raise ValueError(
            f"{checkpoint.source}: the token embedding is factorized already; name the teacher to "
            "start again from its embedding"
        )
    if settings.dense_rows > checkpoint.dims.n_vocab:
        raise ValueError(
            f"{settings.dense_rows} dense rows, but a vocabulary of {checkpoint.dims.n_vocab}"
        )
    model = calibratable(checkpoint)
    statistics = calibrate(model, calibration, counts, seed=settings.seed)
    embedding = checkpoint.state[f"{EMBEDDING}.weight"]
    factors, energy = start(embedding, settings, statistics)
    student = with_factors(checkpoint, factors)
    metrics: dict[str, Any] = {
        "parameters_before": count_parameters(checkpoint),
        "parameters_after": count_parameters(student),
        "calibration_positions": len(statistics.states),
    }
    return student, metrics | energy | (measure(model, student, held_out) if held_out else {})


def calibratable(checkpoint: Checkpoint) -> Whisper:
    """The model as `calibrate` wants it: only its token embedding requires gradients."""
    model = Whisper.from_checkpoint(checkpoint).requires_grad_(False)
    model.decoder.token_embedding.requires_grad_(True)
    return model


def with_embedding_of(student: Checkpoint, teacher: Checkpoint) -> Checkpoint:
    """A student with the dense token embedding of its teacher again, to be factorized anew.

    Training leaves dense rows close to the teacher's or, frozen, at them, so that a student can
    have more of them later.

    Raises:
        ValueError: the teacher's embedding is factorized too, or of another shape.
    """
    name = f"{EMBEDDING}.weight"
    if teacher.embedding.rank is not None:
        raise ValueError(f"{teacher.source}: the teacher's token embedding is factorized too")
    own = f"{EMBEDDING}."
    state = {key: t for key, t in student.state.items() if not key.startswith(own)}
    return dataclasses.replace(student, state=state | {name: teacher.state[name]})


def start(
    embedding: Tensor, settings: FactorizeSettings, statistics: Calibration
) -> tuple[Factors, dict[str, float]]:
    """The factorized embedding before any training, and the energy it keeps.

    Args:
        embedding: E (V, d).
        settings: form and start.
        statistics: how the model uses it.
    """
    dense = embedding.float()
    frequent = statistics.frequencies.topk(settings.dense_rows).indices.sort().values
    joint = settings.init == "joint"
    weights = statistics.frequencies**WEIGHT_EXPONENT
    mean = dense.mean(0) if (joint if settings.mean is None else settings.mean) else None
    moment, identity = statistics.moment, torch.eye(dense.shape[1], dtype=torch.float64)
    metric = joint_metric(dense, mean, weights, identity, moment)
    if joint:
        spent = weights.index_fill(0, frequent, 0.0)
        factors = joint_factors(dense, settings.rank, weights=spent, metric=metric, mean=mean)
    elif settings.init == "svd":
        factors = svd_factors(dense, settings.rank, mean=mean)
    else:
        factors = random_factors(dense, settings.rank, mean=mean, seed=settings.seed)
    if settings.focus:
        centred = (dense if mean is None else dense - mean).double() * weights[:, None]
        unit = (moment * (centred.T @ centred)).sum()  # as joint_metric divides the moment
        own = expected_states(dense, statistics.states, _likeliest(dense, statistics.states))
        factors = focused(factors, dense, own, metric=metric, weight=settings.focus / float(unit))
    if (settings.projections or ("separate" if joint else "shared")) == "separate":
        factors = separate(factors)
        factors = refitted_input(factors, dense, spent) if settings.focus else factors
    factors = with_dense_rows(factors, dense, frequent)
    energy = {
        "energy": energy_kept(dense, factors),
        "energy_weighted": energy_kept(dense, factors, weights, metric),
    }
    return factors, energy


def _likeliest(embedding: Tensor, states: Tensor) -> Tensor:
    """The token that each state (N, d) gives the largest logit (N,)."""
    return torch.cat([(part @ embedding.T).argmax(-1) for part in states.split(512)])


def with_factors(checkpoint: Checkpoint, factors: Factors) -> Checkpoint:
    """The checkpoint with a factorized embedding instead of its own."""
    own = f"{EMBEDDING}."
    state = {name: t for name, t in checkpoint.state.items() if not name.startswith(own)}
    return dataclasses.replace(checkpoint, state=state | factors.state())


def measure(model: Whisper, student: Checkpoint, batches: Sequence[Batch]) -> dict[str, Any]:
    """Agreement with the dense model, of each end factorized alone and of both.

    Args:
        model: the dense one.
        student: the same with a factorized embedding.
        batches: speech that was not calibrated on.
    """
    reference = Reference(model, batches)
    sheared = Whisper.from_checkpoint(student).requires_grad_(False)
    found = {
        "output": reference.compare(model, sheared.decoder.token_embedding),
        "input": reference.compare(sheared, model.decoder.token_embedding),
        "both": reference.compare(sheared),
    }
    metrics: dict[str, Any] = {"held_out_positions": reference.positions}
    for end, agreement in found.items():
        metrics |= {f"top1_{end}": agreement.top1, f"kl_{end}": agreement.kl}
    return metrics


def measurements_table(metrics: dict[str, Any]) -> str:
    """The measurements of the ends as lines of text; empty if there are none."""
    return "\n".join(
        f"{end:<6} {Agreement(metrics[f'kl_{end}'], metrics[f'top1_{end}'])}"
        for end in ("output", "input", "both")
        if f"kl_{end}" in metrics
    )


def count_parameters(checkpoint: Checkpoint) -> int:
    """Numbers in a checkpoint, ids apart."""
    return sum(t.numel() for t in checkpoint.state.values() if t.is_floating_point())
