"""The stage `factorize`: replaces the dense token embedding by a factorized one.

The paper calls this shearing the embedding (Sy et al., arXiv 2510.08599). Its initialization (here
`svd`) takes no account of how the matrix is used and loses almost everything. `joint` weighs tokens
by their frequency and directions by the decoder's use of them, calibrated on some speech. The
result is measured on other speech, with input and output factorized alone and together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.checkpoint.state import EMBEDDING, State
from baldwhisper_convert.compression.agreement import Agreement, Reference
from baldwhisper_convert.compression.calibration import Calibration, calibrate
from baldwhisper_convert.compression.embedding_factors import (
    Factors,
    check_rank,
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
from baldwhisper_convert.progress import progress_bar
from baldwhisper_mlx.config import EmbeddingProjections

Init = Literal["joint", "svd", "random"]

WEIGHT_EXPONENT = 0.25
"""A row's weight is its token's frequency to this power; squared errors get its square."""


@dataclass(frozen=True, kw_only=True)
class FactorizeSettings:
    """The form and the initialization of the factorized embedding.

    Raises:
        ValueError: a value out of range.
    """

    rank: int = 96
    """Rank of the factors."""
    init: Init = "joint"
    """`svd` as in the paper, `joint`, which is calibrated, or `random`, as a baseline."""
    projections: EmbeddingProjections | None = None
    """`shared`, one projection for input and output, or `separate`, one each; by default
    separate for `joint` and shared for the others."""
    mean: bool | None = None
    """Whether the mean row is stored separately; by default for `joint` only."""
    dense_rows: int = 0
    """Number of tokens, the most frequent ones, whose rows are stored unfactorized."""
    focus: float = 0.0
    """Weight of the error of a token's logit at the states where the token is to be written,
    relative to all other states; for `joint`. It improves the output a lot, at the expense of the
    input, which has the same factors. With dense rows, the model may write half a character."""
    seed: int = 0
    """Of the tokens sampled in calibration, and of a random initialization."""

    def __post_init__(self) -> None:
        if self.init not in get_args(Init):
            raise ValueError(f"init must be one of {get_args(Init)}, not {self.init!r}")
        if self.projections is not None and self.projections not in get_args(EmbeddingProjections):
            raise ValueError(f"projections must be shared or separate, not {self.projections!r}")
        if self.rank < 1 or self.dense_rows < 0:
            raise ValueError("rank must be at least 1 and dense_rows not negative")
        if self.focus < 0 or (self.focus and self.init != "joint"):
            raise ValueError('focus must not be negative, and works with init = "joint" only')


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
        settings: form and initialization.
        calibration: about a hundred clips of speech.
        held_out: other clips, to measure on; nothing is measured if there are none.
        counts: of each token (V,) in other text than that of the clips.

    Returns:
        The student, and metrics: `parameters_before` and `parameters_after`, `energy` and
        `energy_weighted`, and `top1_*` and `kl_*` for `output`, `input` and `both`.

    Raises:
        ValueError: the embedding is factorized already, or the settings do not fit it.
    """
    check_form(checkpoint, settings)
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


def check_form(checkpoint: Checkpoint, settings: FactorizeSettings) -> None:
    """Checks that a checkpoint's embedding can be factorized like that.

    Raises:
        ValueError: the embedding is factorized already, or the settings do not fit it.
    """
    if checkpoint.embedding.rank is not None:
        raise ValueError(
            f"{checkpoint.source}: the token embedding is factorized already; give the teacher, to "
            "start again from its embedding"
        )
    if settings.dense_rows > checkpoint.dims.n_vocab:
        raise ValueError(
            f"{settings.dense_rows} dense rows, but a vocabulary of {checkpoint.dims.n_vocab}; "
            "lower dense_rows"
        )
    check_rank(checkpoint.dims.n_text_state, settings.rank)


def rough_factors(checkpoint: Checkpoint, settings: FactorizeSettings) -> Checkpoint:
    """A student of the form that `factorize` makes, with random factors; needs no speech.

    Raises:
        ValueError: as `check_form`.
    """
    check_form(checkpoint, settings)
    dense = checkpoint.state[f"{EMBEDDING}.weight"].float()
    joint = settings.init == "joint"
    mean = dense.mean(0) if (joint if settings.mean is None else settings.mean) else None
    factors = random_factors(dense, settings.rank, mean=mean, seed=settings.seed)
    if (settings.projections or ("separate" if joint else "shared")) == "separate":
        factors = separate(factors)
    factors = with_dense_rows(factors, dense, torch.arange(settings.dense_rows))
    return with_factors(checkpoint, factors)


def calibratable(checkpoint: Checkpoint) -> Whisper:
    """The model in the form `calibrate` needs: only its token embedding requires gradients."""
    model = Whisper.from_checkpoint(checkpoint).requires_grad_(False)
    model.decoder.token_embedding.requires_grad_(True)
    return model


def with_embedding_of(student: Checkpoint, teacher: Checkpoint) -> Checkpoint:
    """Gives a student the dense token embedding of its teacher again, to factorize it anew.

    Training leaves dense rows at the teacher's, if they are frozen, or close to them, so a student
    can get more of them later.

    Raises:
        ValueError: the teacher's embedding is factorized too, or of another shape.
    """
    name = f"{EMBEDDING}.weight"
    if teacher.embedding.rank is not None:
        raise ValueError(f"{teacher.source}: the teacher's token embedding is factorized too")
    return _with_embedding(student, {name: teacher.state[name]})


def start(
    embedding: Tensor, settings: FactorizeSettings, statistics: Calibration
) -> tuple[Factors, dict[str, float]]:
    """Initializes the factorized embedding; returns it and the share of the energy it keeps.

    Args:
        embedding: E (V, d).
        settings: form and initialization.
        statistics: how the model uses the embedding.
    """
    dense = embedding.float()
    frequent = statistics.frequencies.topk(settings.dense_rows).indices.sort().values
    joint = settings.init == "joint"
    weights = statistics.frequencies**WEIGHT_EXPONENT
    mean = dense.mean(0) if (joint if settings.mean is None else settings.mean) else None
    moment, identity = statistics.moment, torch.eye(dense.shape[1], dtype=torch.float64)
    metric = joint_metric(dense, mean, weights, identity, moment)
    if joint:
        # Tokens with dense rows must not influence the factors.
        factored = weights.index_fill(0, frequent, 0.0)
        factors = joint_factors(dense, settings.rank, weights=factored, metric=metric, mean=mean)
    elif settings.init == "svd":
        factors = svd_factors(dense, settings.rank, mean=mean)
    else:
        factors = random_factors(dense, settings.rank, mean=mean, seed=settings.seed)
    if settings.focus:
        # The unit by which joint_metric divides the second moment of the states.
        centred = (dense if mean is None else dense - mean).double() * weights[:, None]
        unit = float((moment * (centred.T @ centred)).sum())
        likeliest = _likeliest(dense, statistics.states)
        states = expected_states(dense, statistics.states, likeliest)
        factors = focused(factors, dense, states, metric=metric, weight=settings.focus / unit)
    if (settings.projections or ("separate" if joint else "shared")) == "separate":
        factors = separate(factors)
        factors = refitted_input(factors, dense, factored) if settings.focus else factors
    factors = with_dense_rows(factors, dense, frequent)
    energy = {
        "energy": energy_kept(dense, factors),
        "energy_weighted": energy_kept(dense, factors, weights, metric),
    }
    # The last digits of sums depend on the number of threads on some processors.
    return factors, {name: round(share, 12) for name, share in energy.items()}


def _likeliest(embedding: Tensor, states: Tensor) -> Tensor:
    """The token with the largest logit at each state (N, d), as ids (N,)."""
    return torch.cat([(part @ embedding.T).argmax(-1) for part in states.split(512)])


def with_factors(checkpoint: Checkpoint, factors: Factors) -> Checkpoint:
    """Replaces the token embedding of a checkpoint by a factorized one."""
    return _with_embedding(checkpoint, factors.state())


def _with_embedding(checkpoint: Checkpoint, embedding: State) -> Checkpoint:
    """Replaces all tensors of the token embedding."""
    prefix = f"{EMBEDDING}."
    rest = {name: t for name, t in checkpoint.state.items() if not name.startswith(prefix)}
    return dataclasses.replace(checkpoint, state=rest | embedding)


def measure(model: Whisper, student: Checkpoint, batches: Sequence[Batch]) -> dict[str, Any]:
    """Measures the agreement with the dense model, with output, input and both factorized.

    Args:
        model: with the dense embedding.
        student: the same model with a factorized embedding.
        batches: speech that calibration did not use.
    """
    reference = Reference(model, batches)
    factorized = Whisper.from_checkpoint(student).requires_grad_(False)
    embedding, factors = model.decoder.token_embedding, factorized.decoder.token_embedding
    pairs = {
        "output": (model, factors),
        "input": (factorized, embedding),
        "both": (factorized, factors),
    }
    agreements = {}
    with progress_bar(len(pairs), "measure", "embedding") as bar:
        for end, (other, output) in pairs.items():
            agreements[end] = reference.compare(other, output)
            bar.update()
    metrics: dict[str, Any] = {"held_out_positions": reference.positions}
    for end, agreement in agreements.items():
        metrics |= {f"top1_{end}": agreement.top1, f"kl_{end}": agreement.kl}
    return metrics


def measurements_table(metrics: dict[str, Any]) -> str:
    """Formats the agreements of `measure` as lines of text; empty if there are none."""
    return "\n".join(
        f"{end:<6} {Agreement(metrics[f'kl_{end}'], metrics[f'top1_{end}'])}"
        for end in ("output", "input", "both")
        if f"kl_{end}" in metrics
    )


def count_parameters(checkpoint: Checkpoint) -> int:
    """Number of parameters in a checkpoint; token ids do not count."""
    return sum(t.numel() for t in checkpoint.state.values() if t.is_floating_point())
