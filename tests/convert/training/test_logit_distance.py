"""The fast distance of logits against its naive twin: values, gradients, once only."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baldwhisper_convert.training import fused_losses as module
from baldwhisper_convert.training.fused_losses import logit_distance
from baldwhisper_convert.training.losses import feature_distance
from tests.support import tiny_logits


def naive(teacher: Tensor, student: Tensor) -> Tensor:
    return feature_distance(*(x - x.mean(-1, keepdim=True) for x in (teacher, student)))


def logits(n: int, width: int, seed: int, scale: float) -> tuple[Tensor, Tensor]:
    """With a mean that does not count."""
    teacher, student, _ = tiny_logits.logits(n, width, seed, scale)
    return teacher + 5, student + 5


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(2, 60),
    st.integers(0, 2**20),
    st.floats(0.1, 30),
    st.sampled_from([1, 40, 1 << 20]),
)
def test_it_is_the_naive_twin(n: int, width: int, seed: int, scale: float, at_once: int) -> None:
    teacher, student = logits(n, width, seed, scale)
    weights = torch.rand(n, generator=torch.Generator().manual_seed(seed))
    fast, slow = (student.clone().requires_grad_() for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_DISTANCE_BLOCK", at_once)
        distance = logit_distance(teacher, fast)
    twin = naive(teacher, slow)
    torch.testing.assert_close(distance, twin, rtol=1e-4, atol=1e-4)
    (weights * distance).sum().backward()
    (weights * twin).sum().backward()
    torch.testing.assert_close(fast.grad, slow.grad, rtol=1e-3, atol=1e-5)


def test_the_inputs_stay_as_they_are() -> None:
    teacher, student = logits(3, 20, 1, 2.0)
    before = teacher.clone(), student.clone()
    logit_distance(teacher, student.requires_grad_()).sum().backward()
    assert torch.equal(teacher, before[0])
    assert torch.equal(student.detach(), before[1])


def test_what_all_tokens_share_is_no_distance() -> None:
    teacher, _ = logits(3, 20, 1, 2.0)
    student = (teacher + 7).requires_grad_()
    distance = logit_distance(teacher, student)
    least = torch.nn.functional.softplus(torch.tensor(-1.0)).expand(3)
    torch.testing.assert_close(distance, least, rtol=1e-4, atol=1e-4)


def test_no_positions_are_no_error() -> None:
    student = torch.zeros(0, 5, requires_grad=True)
    logit_distance(torch.zeros(0, 5), student).sum().backward()
    assert student.grad is not None
    assert student.grad.shape == (0, 5)


def test_rows_of_zeros_have_a_finite_gradient() -> None:
    student = torch.zeros(2, 5, requires_grad=True)
    logit_distance(torch.zeros(2, 5), student).sum().backward()
    assert student.grad is not None
    assert bool(student.grad.isfinite().all())


def test_half_precision_is_widened() -> None:
    teacher, student = (x.bfloat16() for x in logits(4, 300, 0, 3.0))
    fast, slow = (student.clone().requires_grad_() for _ in range(2))
    distance, twin = logit_distance(teacher, fast), naive(teacher.float(), slow.float())
    assert distance.dtype == torch.float32
    torch.testing.assert_close(distance, twin, rtol=1e-4, atol=1e-4)
    distance.sum().backward()
    twin.sum().backward()
    torch.testing.assert_close(fast.grad, slow.grad, rtol=2e-2, atol=1e-4)


def test_a_second_backward_is_an_error() -> None:
    teacher, student = logits(2, 8, 0, 1.0)
    distance = logit_distance(teacher, student.requires_grad_()).sum()
    distance.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        distance.backward()
