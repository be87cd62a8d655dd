"""Closed forms for the factorized token embedding. V vocabulary, d width, r rank, K dense rows.

E (V, d) becomes mean + E1 E2, with E1 (V, r) and E2 (r, d). Both ends use it: inputs are its
rows, and logits are h E^T for the decoder's final states h. `svd_factors` is the paper's start
(Sy et al., arXiv 2510.08599, section 3); `joint_factors` minimizes what both ends lose of it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from baldwhisper_convert.checkpoint.state import EMBEDDING, State

RIDGE = 0.03
"""Of the regression of states on rows, as a share of the mean square of its inputs."""


@dataclass(frozen=True)
class Factors:
    """A factorized embedding; tensors of one floating-point type."""

    factors: Tensor
    """E1 (V, r)."""
    input_projection: Tensor
    """E2 (r, d)."""
    output_projection: Tensor | None = None
    """E2 of the output (r, d), if it has one of its own."""
    mean: Tensor | None = None
    """(d,)"""
    dense_ids: Tensor | None = None
    """Tokens (K,) int64 whose rows are kept; None if there are none."""
    dense_rows: Tensor | None = None
    """Their rows (K, d)."""

    def rows(self, *, output: bool = False) -> Tensor:
        """The embedding multiplied out (V, d), as the input, or the output, sees it."""
        own = self.output_projection if output else None
        rows = self.factors @ (self.input_projection if own is None else own)
        if self.mean is not None:
            rows = rows + self.mean
        if self.dense_ids is not None and self.dense_rows is not None:
            rows[self.dense_ids] = self.dense_rows
        return rows

    def state(self) -> State:
        """The canonical tensors, float32."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            f"{EMBEDDING}.{name}": value.clone() if name == "dense_ids" else value.float().clone()
            for name, value in fields.items()
            if value is not None
        }


def svd_factors(embedding: Tensor, rank: int, *, mean: Tensor | None = None) -> Factors:
    """Truncated SVD of the matrix as it is: E1 = U sqrt(S), E2 = sqrt(S) V^T.

    Args:
        embedding: E (V, d).
        rank: r, at most d.
        mean: (d,) taken off the rows first; None for the paper's form.

    Raises:
        ValueError: a rank that d does not allow.
    """
    identity = torch.eye(embedding.shape[1], dtype=torch.float64)
    weights = torch.ones(len(embedding), dtype=torch.float64)
    return joint_factors(embedding, rank, weights=weights, metric=identity, mean=mean)


def random_factors(
    embedding: Tensor, rank: int, *, mean: Tensor | None = None, seed: int = 0
) -> Factors:
    """Normal numbers whose product has the variance of the rows, about their mean if it is kept.

    Args:
        embedding: E (V, d).
        rank: r, at most d.
        mean: (d,) kept apart, or None.
        seed: of the numbers.

    Raises:
        ValueError: a rank that d does not allow.
    """
    _check_rank(embedding, rank)
    generator = torch.Generator().manual_seed(seed)
    scale = float(_centred(embedding, mean).std() / rank**0.5) ** 0.5
    shapes = ((len(embedding), rank), (rank, embedding.shape[1]))
    first, second = (
        scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes
    )
    return Factors(first, second, mean=mean)


def joint_factors(
    embedding: Tensor, rank: int, *, weights: Tensor, metric: Tensor, mean: Tensor | None
) -> Factors:
    """Minimizes sum_t w_t^2 e_t^T G e_t over E1 and E2, for the errors e_t of E's rows.

    With G = L L, it is the truncated SVD of W (E - mean) L, whose right singular vectors are
    the eigenvectors of L (E - mean)^T W^2 (E - mean) L: a d x d problem. Given E1, the best E2
    does not depend on G, so one projection is best for both ends as long as they weigh the
    tokens alike.

    Args:
        embedding: E (V, d).
        rank: r, at most d.
        weights: w (V,), not negative; a row of weight 0 gets its best E1 for the E2 of others.
        metric: G (d, d), positive definite.
        mean: (d,), or None to leave the rows as they are.

    Returns:
        Factors in float64, each column of E1 of the same length as its row of E2.

    Raises:
        ValueError: a rank that d does not allow.
    """
    _check_rank(embedding, rank)
    centred = _centred(embedding, mean)
    values, vectors = torch.linalg.eigh(metric.double())
    root = (vectors * values.sqrt()) @ vectors.T
    inverse = (vectors / values.sqrt()) @ vectors.T
    weighted = centred * weights.double()[:, None]
    _, right = torch.linalg.eigh(root @ (weighted.T @ weighted) @ root)
    basis = right[:, -rank:].flip(1)
    factors, projection = centred @ (root @ basis), basis.T @ inverse
    scale = (factors.norm(dim=0) / projection.norm(dim=1)).clamp(min=1e-12).sqrt()
    return Factors(factors / scale, projection * scale[:, None], mean=mean)


def joint_metric(
    embedding: Tensor, mean: Tensor | None, weights: Tensor, *metrics: Tensor
) -> Tensor:
    """A metric to which every use of the embedding adds as much.

    Args:
        embedding: E (V, d).
        mean: (d,), or None.
        weights: w (V,).
        metrics: of each use (d, d): at the output the second moment of the final states, at the
            input the identity or what the decoder is sensitive to.

    Returns:
        The sum of the metrics, each divided by the energy sum_t w_t^2 e_t^T G e_t of the whole
        embedding, and a thousandth of the identity's share for what none of them knows.
    """
    centred = _centred(embedding, mean)
    weighted = centred * weights.double()[:, None]
    moment = weighted.T @ weighted
    identity = torch.eye(len(moment), dtype=torch.float64)
    total = 1e-3 * identity / moment.trace()
    for metric in metrics:
        total = total + metric.double() / (metric.double() * moment).sum()
    return total


def expected_states(embedding: Tensor, states: Tensor, chosen: Tensor) -> Tensor:
    """The final state from which the decoder would write each token (V, d), float64.

    Most tokens are written nowhere in some hours of speech. But the state a token is written
    from is close to a linear function of its row, which ridge regression learns from those that
    are.

    Args:
        embedding: E (V, d).
        states: final states (N, d).
        chosen: the likeliest token of each (N,).
    """
    rows, known = embedding.double(), states.double()
    inputs = rows[chosen]
    middle, mean = inputs.mean(0), known.mean(0)
    inputs = inputs - middle
    moment = inputs.T @ inputs
    ridge = RIDGE * moment.trace() / len(moment)
    identity = torch.eye(len(moment), dtype=moment.dtype)
    slope = torch.linalg.solve(moment + ridge * identity, inputs.T @ (known - mean))
    found: Tensor = (rows - middle) @ slope + mean
    return found


def focused(
    factors: Factors, embedding: Tensor, own: Tensor, *, metric: Tensor, weight: float
) -> Factors:
    """Moves each row of E1 so that its token's logit is right where the token is to be written.

    The closed forms above weigh all states alike, and a token's own are few of them: its logit
    is right where it does not matter, and far too low where it does. Here row t minimizes
    e^T G e + weight (e . s_t)^2, e being its error and s_t its own state; E2 stays.

    Args:
        factors: with one projection, or two that are the same.
        embedding: E (V, d).
        own: `expected_states` (V, d).
        metric: G (d, d).
        weight: in the metric's unit; 0 changes nothing that `joint_factors` made.
    """
    basis, metric = factors.input_projection.double(), metric.double()
    rows = (
        embedding.double() if factors.mean is None else embedding.double() - factors.mean.double()
    )
    inverse = torch.linalg.inv(basis @ metric @ basis.T)
    found = rows @ metric @ basis.T @ inverse
    seen = own.double() @ basis.T
    missing = (rows * own.double()).sum(1) - (found * seen).sum(1)
    direction = seen @ inverse
    step = weight * missing / (1 + weight * (seen * direction).sum(1))
    return dataclasses.replace(factors, factors=found + step[:, None] * direction)


def refitted_input(factors: Factors, embedding: Tensor, weights: Tensor) -> Factors:
    """The same factors with the input projection that is best for their E1.

    Args:
        factors: with an output projection of its own.
        embedding: E (V, d).
        weights: w (V,); rows of weight 0 do not count.
    """
    rows = (
        embedding.double() if factors.mean is None else embedding.double() - factors.mean.double()
    )
    scaled = factors.factors.double() * weights.double()[:, None]
    solved = torch.linalg.lstsq(scaled, rows * weights.double()[:, None]).solution
    return dataclasses.replace(factors, input_projection=solved)


def with_dense_rows(factors: Factors, embedding: Tensor, ids: Tensor) -> Factors:
    """The same factors, with the rows of some tokens kept as they are."""
    if not len(ids):
        return factors
    return dataclasses.replace(
        factors, dense_ids=ids, dense_rows=embedding[ids].to(factors.factors.dtype)
    )


def separate(factors: Factors) -> Factors:
    """The same factors, with an output projection of its own to be trained apart."""
    return dataclasses.replace(factors, output_projection=factors.input_projection.clone())


def _check_rank(embedding: Tensor, rank: int) -> None:
    if not 0 < rank <= embedding.shape[1]:
        raise ValueError(
            f"a rank of {rank} does not fit an embedding of width {embedding.shape[1]}; "
            f"give 1 to {embedding.shape[1]}"
        )


def _centred(embedding: Tensor, mean: Tensor | None) -> Tensor:
    """The rows without their mean, if there is one, float64."""
    return embedding.double() if mean is None else embedding.double() - mean.double()


def energy_kept(
    embedding: Tensor, factors: Factors, weights: Tensor | None = None, metric: Tensor | None = None
) -> float:
    """1 - |W (E - E') L|^2 / |W (E - mean) L|^2, for E' that the factors stand for.

    Args:
        embedding: E (V, d).
        factors: its approximation; without a mean, that of E's rows is taken.
        weights: w (V,), by default all 1.
        metric: G = L L (d, d), by default the identity.
    """
    rows = embedding.double()
    error = rows - factors.rows().double()
    if weights is not None:
        rows, error = rows * weights.double()[:, None], error * weights.double()[:, None]
    mean = embedding.double().mean(0) if factors.mean is None else factors.mean.double()
    centred = embedding.double() - mean
    if weights is not None:
        centred = centred * weights.double()[:, None]
    g = torch.eye(rows.shape[1], dtype=torch.float64) if metric is None else metric.double()
    return 1 - float(((error @ g) * error).sum() / ((centred @ g) * centred).sum())
