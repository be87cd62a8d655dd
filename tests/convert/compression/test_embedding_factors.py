"""The closed forms of the factorized embedding, against torch's SVD and against each other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baldwhisper_convert.compression.embedding_factors import (
    Factors,
    energy_kept,
    expected_states,
    focused,
    joint_factors,
    joint_metric,
    refitted_input,
    separate,
    svd_factors,
    with_dense_rows,
)


def random_problem(seed: int, vocab: int = 40, width: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """An embedding, weights of its rows, and the second moment of some states."""
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(vocab, width, generator=generator, dtype=torch.float64) + 0.5
    weights = torch.rand(vocab, generator=generator, dtype=torch.float64) + 0.01
    states = torch.randn(3 * width, width, generator=generator, dtype=torch.float64)
    states = states * torch.logspace(0, -2, width, dtype=torch.float64)
    return embedding, weights, states.T @ states / len(states)


def loss(embedding: Tensor, factors: Factors, weights: Tensor, metric: Tensor) -> float:
    error = (embedding - factors.rows()) * weights[:, None]
    return float(torch.trace(error @ metric @ error.T))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 9))
def test_svd_is_the_truncated_svd(seed: int, rank: int) -> None:
    embedding, _, _ = random_problem(seed)
    u, s, vh = torch.linalg.svd(embedding, full_matrices=False)
    found = svd_factors(embedding, rank)
    torch.testing.assert_close(found.rows(), (u[:, :rank] * s[:rank]) @ vh[:rank])
    # U sqrt(S) and sqrt(S) V^T: both have columns (rows) of length sqrt(s).
    torch.testing.assert_close(found.factors.norm(dim=0), s[:rank].sqrt())
    torch.testing.assert_close(found.input_projection.norm(dim=1), s[:rank].sqrt())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**20), st.booleans())
def test_full_rank_is_exact(seed: int, centred: bool) -> None:
    embedding, weights, metric = random_problem(seed)
    mean = embedding.mean(0) if centred else None
    full = joint_factors(embedding, 10, weights=weights, metric=metric, mean=mean)
    torch.testing.assert_close(full.rows(), embedding)
    assert energy_kept(embedding, full, weights, metric) == pytest.approx(1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 9))
def test_joint_is_the_svd_of_two_blocks(seed: int, rank: int) -> None:
    """What the closed form stands for: the truncated SVD of [E - mean, (E - mean) C^(1/2)]."""
    embedding, weights, moment = random_problem(seed)
    mean = embedding.mean(0)
    values, vectors = torch.linalg.eigh(moment)
    root = (vectors * values.sqrt()) @ vectors.T
    blocks = [(embedding - mean) * weights[:, None], (embedding - mean) @ root * weights[:, None]]
    norms = [block.norm() for block in blocks]
    u, s, vh = torch.linalg.svd(
        torch.cat([block / norm for block, norm in zip(blocks, norms, strict=True)], dim=1),
        full_matrices=False,
    )
    left, right = (u * s)[:, :rank] / weights[:, None], vh[:rank]
    metric = torch.eye(10).double() / norms[0] ** 2 + moment / norms[1] ** 2
    found = joint_factors(embedding, rank, weights=weights, metric=metric, mean=mean).rows()
    for start, inverse, norm in (
        (0, torch.eye(10).double(), norms[0]),
        (10, torch.linalg.inv(root), norms[1]),
    ):
        # Both projections of the two-block form turn out to be the same one.
        expected = mean + left @ right[:, start : start + 10] @ inverse * norm
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 9))
def test_data_aware_beats_svd_on_its_own_objective(seed: int, rank: int) -> None:
    embedding, weights, metric = random_problem(seed)
    plain = svd_factors(embedding, rank)
    aware = joint_factors(embedding, rank, weights=weights, metric=metric, mean=None)
    ones, identity = torch.ones(40).double(), torch.eye(10).double()
    assert loss(embedding, aware, weights, metric) <= loss(embedding, plain, weights, metric) + 1e-9
    assert loss(embedding, plain, ones, identity) <= loss(embedding, aware, ones, identity) + 1e-9


def test_no_small_change_does_better() -> None:
    embedding, weights, metric = random_problem(0)
    best = joint_factors(embedding, 4, weights=weights, metric=metric, mean=None)
    smallest = loss(embedding, best, weights, metric)
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        other = Factors(
            best.factors + 0.01 * torch.randn(40, 4, generator=generator),
            best.input_projection + 0.01 * torch.randn(4, 10, generator=generator),
        )
        assert loss(embedding, other, weights, metric) > smallest


def test_rows_without_weight_are_not_spent_on() -> None:
    embedding, weights, metric = random_problem(2)
    ids = torch.tensor([3, 7, 20])
    spent = weights.index_fill(0, ids, 0.0)
    sparing = joint_factors(embedding, 4, weights=spent, metric=metric, mean=None)
    paying = joint_factors(embedding, 4, weights=weights, metric=metric, mean=None)
    assert loss(embedding, sparing, spent, metric) < loss(embedding, paying, spent, metric)
    # They still get the best factors for the projection of the others.
    torch.testing.assert_close(
        sparing.factors[ids],
        torch.linalg.lstsq(
            (sparing.input_projection @ metric @ sparing.input_projection.T),
            (embedding[ids] @ metric @ sparing.input_projection.T).T,
        ).solution.T,
    )


def test_dense_rows_are_exact_on_both_ends() -> None:
    embedding, weights, metric = random_problem(3)
    ids = torch.tensor([0, 12, 39])
    factors = joint_factors(embedding, 3, weights=weights, metric=metric, mean=embedding.mean(0))
    found = with_dense_rows(separate(factors), embedding, ids)
    for rows in (found.rows(), found.rows(output=True)):
        assert torch.equal(rows[ids], embedding[ids])
        assert not torch.allclose(rows[1], embedding[1])
    assert with_dense_rows(factors, embedding, ids[:0]) is factors


def test_every_use_of_the_embedding_counts_as_much() -> None:
    embedding, weights, moment = random_problem(4)
    mean = embedding.mean(0)
    weighted = (embedding - mean) * weights[:, None]
    metric = joint_metric(embedding, mean, weights, 7.0 * torch.eye(10), 1e-3 * moment)
    assert float(torch.trace(weighted @ metric @ weighted.T)) == pytest.approx(2.001)


def test_energy_of_nothing_and_of_all() -> None:
    embedding, weights, metric = random_problem(5)
    mean = embedding.mean(0)
    nothing = Factors(torch.zeros(40, 1).double(), torch.zeros(1, 10).double(), mean=mean)
    assert energy_kept(embedding, nothing) == pytest.approx(0)
    assert energy_kept(embedding, nothing, weights, metric) == pytest.approx(0)


@pytest.mark.parametrize("rank", [0, 11])
def test_ranks_that_do_not_fit(rank: int) -> None:
    with pytest.raises(ValueError, match="give 1 to 10"):
        svd_factors(torch.zeros(20, 10), rank)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 9), st.floats(0, 100))
def test_focused_rows_are_those_of_least_squares(seed: int, rank: int, weight: float) -> None:
    """Its twin minimizes e^T G e + weight (e . s)^2 row by row."""
    embedding, weights, metric = random_problem(seed)
    own = torch.randn(embedding.shape, generator=torch.Generator().manual_seed(seed)).double()
    mean = embedding.mean(0)
    start = joint_factors(embedding, rank, weights=weights, metric=metric, mean=mean)
    found = focused(start, embedding, own, metric=metric, weight=weight)
    values, vectors = torch.linalg.eigh(metric)
    root = vectors * values.sqrt()
    for row in (0, 7):
        seen = torch.cat([root, weight**0.5 * own[row][:, None]], 1)
        twin = torch.linalg.lstsq(
            (start.input_projection @ seen).T, ((embedding[row] - mean) @ seen)[:, None]
        ).solution[:, 0]
        torch.testing.assert_close(found.factors[row], twin, rtol=1e-5, atol=1e-5)
    if weight == 0:
        torch.testing.assert_close(found.factors, start.factors, rtol=1e-5, atol=1e-6)


def test_a_large_focus_makes_the_own_logits_right() -> None:
    embedding, weights, metric = random_problem(3)
    own = embedding + 0.1
    start = joint_factors(embedding, 4, weights=weights, metric=metric, mean=None)
    found = focused(start, embedding, own, metric=metric, weight=1e6)
    torch.testing.assert_close(
        (found.rows() * own).sum(1), (embedding * own).sum(1), rtol=1e-3, atol=1e-3
    )
    assert not torch.allclose((start.rows() * own).sum(1), (embedding * own).sum(1), rtol=0.1)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**20))
def test_states_that_are_linear_in_the_rows_are_found(seed: int) -> None:
    embedding, _, matrix = random_problem(seed, vocab=60)
    chosen = torch.arange(0, 60, 2).repeat(200)  # half of the tokens are never written
    states = embedding @ matrix + 2.0
    found = expected_states(embedding, states[chosen], chosen)
    size = (states - states.mean(0)).norm()
    assert float((found - states).norm()) < 0.15 * float(size)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**20), st.integers(1, 9))
def test_a_refitted_input_loses_no_more(seed: int, rank: int) -> None:
    embedding, weights, metric = random_problem(seed)
    weights[:5] = 0.0
    own = torch.randn(embedding.shape, generator=torch.Generator().manual_seed(seed)).double()
    start = joint_factors(embedding, rank, weights=weights, metric=metric, mean=None)
    moved = separate(focused(start, embedding, own, metric=metric, weight=1.0))
    found = refitted_input(moved, embedding, weights)
    identity = torch.eye(10, dtype=torch.float64)
    assert (
        loss(embedding, found, weights, identity)
        <= loss(embedding, moved, weights, identity) + 1e-9
    )
    torch.testing.assert_close(found.rows(output=True), moved.rows(output=True))
    # The gradient of the weighted squares is zero.
    error = (embedding - found.rows()) * weights[:, None] ** 2
    torch.testing.assert_close(
        found.factors.T @ error, torch.zeros(rank, 10).double(), atol=1e-6, rtol=0
    )
