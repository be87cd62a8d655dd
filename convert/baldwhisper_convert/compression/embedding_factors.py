"""Closed-form factorizations of the token embedding. V vocabulary, d width, r rank, K dense rows.

E (V, d) becomes mean + E1 E2, with E1 (V, r) and E2 (r, d). The embedding has two uses: its rows
are the decoder's inputs, and the logits are h E^T for the final states h. `svd_factors` is the
paper's initialization (Sy et al., arXiv 2510.08599, section 3); `joint_factors` minimizes an error
that takes both uses into account. All of it is computed in float64.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from baldwhisper_convert.checkpoint.state import EMBEDDING, State

RIDGE = 0.03
"""Ridge parameter of `expected_states`, as a share of the mean square of its inputs."""


@dataclass(frozen=True)
class Factors:
    """A factorized embedding; all its tensors have the same floating-point type."""

    factors: Tensor
    """E1 (V, r)."""
    input_projection: Tensor
    """E2 (r, d)."""
    output_projection: Tensor | None = None
    """E2 of the output (r, d); None if input and output share one."""
    mean: Tensor | None = None
    """Mean row (d,) that is added to every row; None if there is none."""
    dense_ids: Tensor | None = None
    """Tokens (K,) int64 whose rows are stored unfactorized; None if there are none."""
    dense_rows: Tensor | None = None
    """Their rows (K, d)."""

    def rows(self, *, output: bool = False) -> Tensor:
        """The approximated embedding (V, d) that the input, or the output, uses."""
        projection = self.output_projection if output else None
        rows = self.factors @ (self.input_projection if projection is None else projection)
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
    """Truncated SVD of the unweighted matrix: E1 = U sqrt(S), E2 = sqrt(S) V^T.

    Args:
        embedding: E (V, d).
        rank: r, at most d.
        mean: (d,) subtracted from the rows first; None for the paper's form.

    Raises:
        ValueError: a rank above d or below 1.
    """
    identity = torch.eye(embedding.shape[1], dtype=torch.float64)
    weights = torch.ones(len(embedding), dtype=torch.float64)
    return joint_factors(embedding, rank, weights=weights, metric=identity, mean=mean)


def random_factors(
    embedding: Tensor, rank: int, *, mean: Tensor | None = None, seed: int = 0
) -> Factors:
    """Random normal factors whose product has the variance of the rows.

    Args:
        embedding: E (V, d).
        rank: r, at most d.
        mean: (d,) stored separately, which the variance is then about; or None.
        seed: of the random numbers.

    Raises:
        ValueError: a rank above d or below 1.
    """
    check_rank(embedding.shape[1], rank)
    generator = torch.Generator().manual_seed(seed)
    # A sum of r products of two normal numbers of standard deviation s has variance r s^4.
    scale = float(_centred(embedding, mean).std() / rank**0.5) ** 0.5
    shapes = ((len(embedding), rank), (rank, embedding.shape[1]))
    first, second = (
        scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes
    )
    return Factors(first, second, mean=mean)


def joint_factors(
    embedding: Tensor, rank: int, *, weights: Tensor, metric: Tensor, mean: Tensor | None
) -> Factors:
    """Minimizes sum_t w_t^2 e_t^T G e_t over E1 and E2, where e_t is the error of row t of E.

    With G = L L, this is the truncated SVD of W (E - mean) L. Its right singular vectors are the
    eigenvectors of L (E - mean)^T W^2 (E - mean) L, a d x d problem. For a given E1, the best E2
    does not depend on G. So a single projection is optimal for both uses of the embedding, as
    long as they have the same token weights.

    Args:
        embedding: E (V, d).
        rank: r, at most d.
        weights: w (V,), not negative; a row of weight 0 gets the best E1 for the resulting E2.
        metric: G (d, d), positive definite.
        mean: (d,), or None to factorize the rows without subtracting a mean.

    Returns:
        Factors in float64; each column of E1 has the same norm as its row of E2.

    Raises:
        ValueError: a rank above d or below 1.
    """
    check_rank(embedding.shape[1], rank)
    centred = _centred(embedding, mean)
    # The symmetric root L of G, and its inverse, from the eigenvalues of G.
    values, vectors = torch.linalg.eigh(metric.double())
    root = (vectors * values.sqrt()) @ vectors.T
    inverse = (vectors / values.sqrt()) @ vectors.T
    # The r leading right singular vectors of W (E - mean) L; eigh sorts in ascending order.
    _, right = torch.linalg.eigh(root @ _moment(centred, weights) @ root)
    basis = right[:, -rank:].flip(1)
    # Project the rows on them in the metric's coordinates, and map back with the inverse of L.
    factors, projection = centred @ (root @ basis), basis.T @ inverse
    # Only the product is determined; equal norms suit an optimizer with one learning rate.
    scale = (factors.norm(dim=0) / projection.norm(dim=1)).clamp(min=1e-12).sqrt()
    return Factors(factors / scale, projection * scale[:, None], mean=mean)


def joint_metric(
    embedding: Tensor, mean: Tensor | None, weights: Tensor, *metrics: Tensor
) -> Tensor:
    """Combines the metrics of several uses of the embedding with equal influence.

    Args:
        embedding: E (V, d).
        mean: (d,), or None.
        weights: w (V,).
        metrics: of each use (d, d): for the output the second moment of the final states, for the
            input the identity or the sensitivity of the decoder.

    Returns:
        The sum of the metrics, each divided by the energy sum_t w_t^2 e_t^T G e_t of the whole
        embedding, plus a thousandth of the identity's share, which makes it positive definite.
    """
    moment = _moment(_centred(embedding, mean), weights)
    identity = torch.eye(len(moment), dtype=torch.float64)
    total = 1e-3 * identity / moment.trace()
    for metric in metrics:
        # sum_t w_t^2 e_t^T G e_t is the trace of G times the weighted moment of the rows.
        total = total + metric.double() / (metric.double() * moment).sum()
    return total


def expected_states(embedding: Tensor, states: Tensor, chosen: Tensor) -> Tensor:
    """Predicts the final state from which the decoder writes each token (V, d), float64.

    Most tokens do not occur in a few hours of speech. But the state from which a token is written
    is close to a linear function of the token's row, which ridge regression fits on the tokens
    that do occur.

    Args:
        embedding: E (V, d).
        states: final states (N, d).
        chosen: the likeliest token of each state (N,).
    """
    rows, targets = embedding.double(), states.double()
    inputs = rows[chosen]
    # Centring both sides replaces an intercept, which must not be penalized.
    input_mean, target_mean = inputs.mean(0), targets.mean(0)
    inputs = inputs - input_mean
    moment = inputs.T @ inputs
    ridge = RIDGE * moment.trace() / len(moment)
    identity = torch.eye(len(moment), dtype=moment.dtype)
    slope = torch.linalg.solve(moment + ridge * identity, inputs.T @ (targets - target_mean))
    predicted: Tensor = (rows - input_mean) @ slope + target_mean
    return predicted


def focused(
    factors: Factors, embedding: Tensor, own_states: Tensor, *, metric: Tensor, weight: float
) -> Factors:
    """Changes each row of E1 so that the token's logit is right where the token is to be written.

    `joint_factors` weighs all states alike, and few of them belong to any given token. So a
    token's logit is accurate at the many states where it does not matter, and far too low at its
    own. Here row t of E1 minimizes e^T G e + weight (e . s_t)^2, where e is the error of row t and
    s_t the token's own state; E2 stays the same.

    Args:
        factors: with one projection, or two equal ones.
        embedding: E (V, d).
        own_states: s (V, d), from `expected_states`.
        metric: G (d, d).
        weight: in the metric's unit; with 0, rows from `joint_factors` stay the same.
    """
    basis, metric = factors.input_projection.double(), metric.double()
    rows, states = _centred(embedding, factors.mean), own_states.double()
    # The new row f of E1 solves f (E2 M E2^T) = x M E2^T, where x is the row of E - mean and
    # M = G + weight s s^T. At weight 0 that is:
    inverse = torch.linalg.inv(basis @ metric @ basis.T)
    plain = rows @ metric @ basis.T @ inverse
    # The rank-one term changes f along z (E2 G E2^T)^-1, with z the state projected by E2, by an
    # amount that the Sherman-Morrison formula gives in terms of the logit's present error.
    projected = states @ basis.T
    logit_error = (rows * states).sum(1) - (plain * projected).sum(1)
    direction = projected @ inverse
    step = weight * logit_error / (1 + weight * (projected * direction).sum(1))
    return dataclasses.replace(factors, factors=plain + step[:, None] * direction)


def refitted_input(factors: Factors, embedding: Tensor, weights: Tensor) -> Factors:
    """Replaces the input projection by the least-squares solution for the present E1.

    Args:
        factors: with a separate output projection.
        embedding: E (V, d).
        weights: w (V,); rows of weight 0 do not count.
    """
    weight = weights.double()[:, None]
    solved = torch.linalg.lstsq(
        factors.factors.double() * weight, _centred(embedding, factors.mean) * weight
    ).solution
    return dataclasses.replace(factors, input_projection=solved)


def with_dense_rows(factors: Factors, embedding: Tensor, ids: Tensor) -> Factors:
    """Stores the rows of some tokens unfactorized.

    Args:
        factors: of all tokens.
        embedding: E (V, d).
        ids: of the tokens (K,) int64; may be empty.
    """
    if not len(ids):
        return factors
    return dataclasses.replace(
        factors, dense_ids=ids, dense_rows=embedding[ids].to(factors.factors.dtype)
    )


def separate(factors: Factors) -> Factors:
    """Gives the output a copy of the projection, which can then be trained separately."""
    return dataclasses.replace(factors, output_projection=factors.input_projection.clone())


def energy_kept(
    embedding: Tensor, factors: Factors, weights: Tensor | None = None, metric: Tensor | None = None
) -> float:
    """1 - |W (E - E') L|^2 / |W (E - mean) L|^2, where E' is the approximation of E.

    Args:
        embedding: E (V, d).
        factors: the approximation; if it has no mean, the mean row of E is used.
        weights: w (V,), by default all 1.
        metric: G = L L (d, d), by default the identity.
    """
    rows = embedding.double()
    error = rows - factors.rows().double()
    centred = _centred(embedding, rows.mean(0) if factors.mean is None else factors.mean)
    if weights is not None:
        error, centred = (matrix * weights.double()[:, None] for matrix in (error, centred))
    # |X L|^2 = sum of (X G) * X, for G = L L.
    g = torch.eye(rows.shape[1], dtype=torch.float64) if metric is None else metric.double()
    return 1 - float(((error @ g) * error).sum() / ((centred @ g) * centred).sum())


def check_rank(width: int, rank: int) -> None:
    """Raises ValueError for a rank that the width of the embedding does not allow."""
    if not 0 < rank <= width:
        raise ValueError(
            f"a rank of {rank} does not fit an embedding of width {width}; give 1 to {width}"
        )


def _centred(embedding: Tensor, mean: Tensor | None) -> Tensor:
    """The rows minus the mean, if there is one, float64."""
    return embedding.double() if mean is None else embedding.double() - mean.double()


def _moment(centred: Tensor, weights: Tensor) -> Tensor:
    """The weighted second moment of the rows (d, d): sum_t w_t^2 x_t x_t^T."""
    weighted = centred * weights.double()[:, None]
    return weighted.T @ weighted
