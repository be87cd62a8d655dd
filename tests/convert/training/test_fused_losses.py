"""The fused losses against the plain formulas: values, gradients, one backward pass only."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baldwhisper_convert.training import fused_losses
from baldwhisper_convert.training.fused_losses import logit_distance, next_token_terms
from baldwhisper_convert.training.losses import cross_entropy, feature_distance, kl_divergence
from tests.support.tiny_logits import logits

PROBLEMS = (st.integers(1, 9), st.integers(2, 60), st.integers(0, 2**20), st.floats(0.1, 30))
"""Positions, vocabulary, seed and scale of the logits."""


@settings(max_examples=40, deadline=None)
@given(
    *PROBLEMS,
    st.sampled_from([1.0, 0.5, 3.0]),
    st.sampled_from([1, 40, 1 << 20]),
)
def test_next_token_terms_are_the_naive_twins(
    n: int, width: int, seed: int, scale: float, temperature: float, at_once: int
) -> None:
    teacher, student, targets = logits(n, width, seed, scale)
    weights = torch.rand(2, n, generator=torch.Generator().manual_seed(seed))
    fast, slow = (student.clone().requires_grad_() for _ in range(2))
    learned, twin = (torch.tensor(temperature, requires_grad=True) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_losses, "_NEXT_TOKEN_BLOCK", at_once)
        ce, kl, agree = next_token_terms(teacher, fast, targets, learned)
    ce_twin = cross_entropy(slow, targets)
    kl_twin = kl_divergence(teacher, slow, twin)
    torch.testing.assert_close(ce, ce_twin, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(kl, kl_twin, rtol=1e-4, atol=1e-4)
    assert torch.equal(agree, teacher.argmax(-1) == student.argmax(-1))
    (weights[0] * ce + weights[1] * kl).sum().backward()
    (weights[0] * ce_twin + weights[1] * kl_twin).sum().backward()
    torch.testing.assert_close(fast.grad, slow.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(learned.grad, twin.grad, rtol=1e-3, atol=1e-3)


def test_next_token_one_term_alone_has_its_own_gradient() -> None:
    teacher, student, targets = logits(5, 30, 0, 3.0)
    for number, twin in enumerate(
        (lambda x: cross_entropy(x, targets), lambda x: kl_divergence(teacher, x))
    ):
        fast, slow = (student.clone().requires_grad_() for _ in range(2))
        next_token_terms(teacher, fast, targets)[number].sum().backward()
        twin(slow).sum().backward()
        torch.testing.assert_close(fast.grad, slow.grad)


def test_next_token_the_inputs_stay_as_they_are() -> None:
    teacher, student, targets = logits(3, 10, 0, 1.0)
    before = teacher.clone(), student.clone()
    own = student.requires_grad_()
    sum(term.sum() for term in next_token_terms(teacher, own, targets)[:2]).backward()  # type: ignore[union-attr]
    assert torch.equal(before[0], teacher)
    assert torch.equal(before[1], student)


def test_next_token_equal_logits_have_no_divergence_and_no_gradient() -> None:
    teacher, _, targets = logits(4, 50, 1, 5.0)
    student = teacher.clone().requires_grad_()
    _, kl, agree = next_token_terms(teacher, student, targets)
    kl.sum().backward()
    assert student.grad is not None
    assert float(kl.detach().abs().max()) < 1e-5
    assert float(student.grad.abs().max()) < 1e-6
    assert bool(agree.all())


def test_next_token_no_positions_are_no_error() -> None:
    none = torch.zeros(0, 7)
    ce, kl, agree = next_token_terms(none, none, torch.zeros(0, dtype=torch.long))
    assert ce.shape == kl.shape == agree.shape == (0,)


def test_next_token_half_precision_is_widened() -> None:
    teacher, student, targets = logits(4, 50, 1, 5.0)
    half = student.bfloat16().requires_grad_()
    ce, kl, _ = next_token_terms(teacher.bfloat16(), half, targets)
    assert ce.dtype == kl.dtype == torch.float32
    torch.testing.assert_close(ce, cross_entropy(half.detach(), targets), rtol=1e-5, atol=1e-4)
    kl.sum().backward()
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16


def test_next_token_a_second_backward_is_an_error() -> None:
    teacher, student, targets = logits(3, 10, 0, 1.0)
    _, kl, _ = next_token_terms(teacher, student.requires_grad_(), targets)
    kl.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        kl.sum().backward()


def naive(teacher: Tensor, student: Tensor) -> Tensor:
    return feature_distance(*(x - x.mean(-1, keepdim=True) for x in (teacher, student)))


def shifted_logits(n: int, width: int, seed: int, scale: float) -> tuple[Tensor, Tensor]:
    """With a mean that does not count."""
    teacher, student, _ = logits(n, width, seed, scale)
    return teacher + 5, student + 5


@settings(max_examples=40, deadline=None)
@given(
    *PROBLEMS,
    st.sampled_from([1, 40, 1 << 20]),
)
def test_logit_distance_is_the_naive_twin(
    n: int, width: int, seed: int, scale: float, at_once: int
) -> None:
    teacher, student = shifted_logits(n, width, seed, scale)
    weights = torch.rand(n, generator=torch.Generator().manual_seed(seed))
    fast, slow = (student.clone().requires_grad_() for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_losses, "_DISTANCE_BLOCK", at_once)
        distance = logit_distance(teacher, fast)
    twin = naive(teacher, slow)
    torch.testing.assert_close(distance, twin, rtol=1e-4, atol=1e-4)
    (weights * distance).sum().backward()
    (weights * twin).sum().backward()
    torch.testing.assert_close(fast.grad, slow.grad, rtol=1e-3, atol=1e-5)


def test_logit_distance_the_inputs_stay_as_they_are() -> None:
    teacher, student = shifted_logits(3, 20, 1, 2.0)
    before = teacher.clone(), student.clone()
    logit_distance(teacher, student.requires_grad_()).sum().backward()
    assert torch.equal(teacher, before[0])
    assert torch.equal(student.detach(), before[1])


def test_logit_distance_what_all_tokens_share_is_no_distance() -> None:
    teacher, _ = shifted_logits(3, 20, 1, 2.0)
    student = (teacher + 7).requires_grad_()
    distance = logit_distance(teacher, student)
    least = torch.nn.functional.softplus(torch.tensor(-1.0)).expand(3)
    torch.testing.assert_close(distance, least, rtol=1e-4, atol=1e-4)


def test_logit_distance_no_positions_are_no_error() -> None:
    student = torch.zeros(0, 5, requires_grad=True)
    logit_distance(torch.zeros(0, 5), student).sum().backward()
    assert student.grad is not None
    assert student.grad.shape == (0, 5)


def test_logit_distance_rows_of_zeros_have_a_finite_gradient() -> None:
    student = torch.zeros(2, 5, requires_grad=True)
    logit_distance(torch.zeros(2, 5), student).sum().backward()
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())


def test_logit_distance_half_precision_is_widened() -> None:
    teacher, student = (x.bfloat16() for x in shifted_logits(4, 300, 0, 3.0))
    fast, slow = (student.clone().requires_grad_() for _ in range(2))
    distance, twin = logit_distance(teacher, fast), naive(teacher.float(), slow.float())
    assert distance.dtype == torch.float32
    torch.testing.assert_close(distance, twin, rtol=1e-4, atol=1e-4)
    distance.sum().backward()
    twin.sum().backward()
    torch.testing.assert_close(fast.grad, slow.grad, rtol=2e-2, atol=1e-4)


def test_logit_distance_a_second_backward_is_an_error() -> None:
    teacher, student = shifted_logits(2, 8, 0, 1.0)
    distance = logit_distance(teacher, student.requires_grad_()).sum()
    distance.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        distance.backward()
