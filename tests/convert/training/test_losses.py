"""The loss terms against their formulas, written out as loops over plain numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baldwhisper_convert.training.losses import (
    cross_entropy,
    feature_distance,
    kl_divergence,
    relative_error,
)

Row = list[float]
TERMS: list[Callable[[Tensor, Tensor], Tensor]] = [kl_divergence, feature_distance, relative_error]

values = st.floats(-8, 8, allow_subnormal=False)
pairs = st.integers(2, 9).flatmap(
    lambda width: st.lists(
        st.tuples(*[st.lists(values, min_size=width, max_size=width)] * 2), min_size=1, max_size=4
    )
)


def softmax(row: Row, temperature: float = 1.0) -> Row:
    raised = [math.exp(value / temperature) for value in row]
    return [value / sum(raised) for value in raised]


def kl_twin(teacher: Row, student: Row, temperature: float) -> float:
    p, q = softmax(teacher, temperature), softmax(student, temperature)
    return temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def distance_twin(a: Row, b: Row) -> float:
    mean = sum(abs(x - y) for x, y in zip(a, b, strict=True)) / len(a)
    product = sum(x * y for x, y in zip(a, b, strict=True))
    cosine = product / (math.hypot(*a) * math.hypot(*b))
    return mean - math.log(1 / (1 + math.exp(-cosine)))


def relative_twin(student: Row, teacher: Row) -> float:
    error = sum((x - y) ** 2 for x, y in zip(student, teacher, strict=True))
    return error / sum(y**2 for y in teacher)


def stacked(rows: list[tuple[Row, Row]]) -> tuple[Tensor, Tensor]:
    a, b = zip(*rows, strict=True)
    return torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)


@settings(max_examples=50, deadline=None)
@given(pairs, st.data())
def test_cross_entropy(rows: list[tuple[Row, Row]], data: st.DataObject) -> None:
    logits, _ = stacked(rows)
    targets = [data.draw(st.integers(0, logits.shape[1] - 1)) for _ in rows]
    expected = [
        -math.log(softmax(row)[target]) for (row, _), target in zip(rows, targets, strict=True)
    ]
    assert cross_entropy(logits, torch.tensor(targets)).tolist() == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(pairs, st.floats(0.5, 4))
def test_kl_divergence(rows: list[tuple[Row, Row]], temperature: float) -> None:
    found = kl_divergence(*stacked(rows), temperature)
    expected = [kl_twin(teacher, student, temperature) for teacher, student in rows]
    assert found.tolist() == pytest.approx(expected, abs=1e-9)
    assert bool((found >= -1e-9).all())


@settings(max_examples=50, deadline=None)
@given(pairs)
def test_feature_distance(rows: list[tuple[Row, Row]]) -> None:
    rows = [(a, b) for a, b in rows if math.hypot(*a) > 0.01 and math.hypot(*b) > 0.01]
    if rows:
        expected = [distance_twin(a, b) for a, b in rows]
        assert feature_distance(*stacked(rows)).tolist() == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(pairs)
def test_relative_error(rows: list[tuple[Row, Row]]) -> None:
    rows = [(a, b) for a, b in rows if math.hypot(*b) > 0.01]
    if rows:
        expected = [relative_twin(a, b) for a, b in rows]
        assert relative_error(*stacked(rows)).tolist() == pytest.approx(expected)


def test_kl_of_equals_is_0_and_has_no_gradient() -> None:
    teacher = torch.randn(3, 7, dtype=torch.float64)
    student = teacher.clone().requires_grad_()
    found = kl_divergence(teacher, student, 2.0)
    found.sum().backward()
    torch.testing.assert_close(found, torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(student.grad, torch.zeros_like(teacher))


def test_kl_keeps_its_gradient_when_the_temperature_changes() -> None:
    # At a high temperature, T^2 KL tends to the squared error of centred logits over 2 V
    # (Hinton et al., section 2.1), so its gradient neither vanishes nor grows.
    teacher = torch.randn(4, 6, dtype=torch.float64)
    student = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(kl_divergence(teacher, student, 1e4).sum(), student)
    error = student.detach() - teacher
    expected = (error - error.mean(-1, keepdim=True)) / 6
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4)


def test_a_learned_temperature_gets_the_gradient_of_the_formula() -> None:
    teacher, student = torch.randn(2, 5, 8, dtype=torch.float64)
    temperature = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: kl_divergence(teacher, student, t), temperature)


def test_feature_distance_is_smallest_and_flat_at_equality() -> None:
    a = torch.randn(5, 8, dtype=torch.float64)
    b = a.clone().requires_grad_()
    found = feature_distance(a, b)
    found.sum().backward()
    smallest = torch.full((5,), math.log(1 + math.exp(-1)), dtype=torch.float64)
    torch.testing.assert_close(found, smallest)
    torch.testing.assert_close(b.grad, torch.zeros_like(a))
    for _ in range(20):
        other = a + 0.1 * torch.randn_like(a)
        assert bool((feature_distance(a, other) > smallest).all())


def test_relative_error_is_0_at_equality_and_1_for_nothing() -> None:
    teacher = torch.randn(3, 4)
    torch.testing.assert_close(relative_error(teacher, teacher), torch.zeros(3))
    torch.testing.assert_close(relative_error(torch.zeros(3, 4), teacher), torch.ones(3))
    torch.testing.assert_close(relative_error(3e4 * teacher, 1e4 * teacher), torch.full((3,), 4.0))


@pytest.mark.parametrize("term", TERMS, ids=lambda term: str(term.__name__))
def test_every_position_stands_alone(term: Callable[[Tensor, Tensor], Tensor]) -> None:
    a, b = torch.randn(2, 6, 8)
    whole = term(a, b)
    assert whole.shape == (6,)
    torch.testing.assert_close(
        torch.cat([term(a[i : i + 1], b[i : i + 1]) for i in range(6)]), whole
    )


@pytest.mark.parametrize("term", TERMS, ids=lambda term: str(term.__name__))
def test_half_precision_is_widened(term: Callable[[Tensor, Tensor], Tensor]) -> None:
    a, b = torch.randn(2, 6, 500).bfloat16()
    found = term(a, b)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, term(a.float(), b.float()))


def test_cross_entropy_of_half_precision_is_widened() -> None:
    logits, targets = torch.randn(3, 9).bfloat16(), torch.tensor([0, 4, 8])
    torch.testing.assert_close(
        cross_entropy(logits, targets), cross_entropy(logits.float(), targets)
    )
