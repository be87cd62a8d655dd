"""The feature distance of logits in one pass over the vocabulary.

Written with plain operations, D of two (N, V) matrices reads and writes them some twenty times,
forward and backward. Here a few rows at a time go through while they are in the processor's
cache, and the gradient is made on the way. `feature_distance` of centred logits (losses.py) is
the naive twin. N positions, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_NUMBERS_AT_ONCE = 1 << 18
"""Of a matrix: 1 MB of float32, of which five are in use."""
_LEAST_NORM = 1e-8
"""As in torch's `cosine_similarity`."""


def logit_distance(teacher: Tensor, student: Tensor) -> Tensor:
    """`feature_distance` of logits (N, V) without their means over V, which no softmax sees.

    Args:
        teacher: without gradient.
        student: the gradient can be taken once, and not differentiated again.

    Returns:
        (N,) float32.

    Example:
        >>> logit_distance(torch.eye(3), torch.eye(3)).round(decimals=4)
        tensor([0.3133, 0.3133, 0.3133])
    """
    distance: Tensor = _LogitDistance.apply(teacher, student)
    return distance


class _LogitDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, teacher: Tensor, student: Tensor) -> Tensor:
        rows = max(1, _NUMBERS_AT_ONCE // student.shape[1])
        gradient = torch.empty_like(student)
        distances = []
        for start in range(0, max(1, len(student)), rows):
            part = slice(start, start + rows)
            a, b = _centred(teacher[part]), _centred(student[part])
            difference = b - a
            length_a, length_b = _length(a), _length(b)
            cosine = torch.linalg.vecdot(a, b)[:, None] / (length_a * length_b)
            distances.append(
                difference.abs().mean(-1) - torch.nn.functional.logsigmoid(cosine)[:, 0]
            )
            # d mean|b - a| / db = sign(b - a) / V, d cos / db = a / (|a| |b|) - cos b / |b|^2;
            # the second has no mean to take out, as a and b have none.
            pull = torch.sigmoid(-cosine)
            rate = difference.sign_().div_(student.shape[1])
            rate.sub_(rate.mean(-1, keepdim=True))
            rate.addcmul_(a, pull / (length_a * length_b), value=-1)
            gradient[part] = rate.addcmul_(b, pull * cosine / length_b.square())
        ctx.gradient = gradient
        return torch.cat(distances)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_distance: Tensor) -> tuple[None, Tensor]:
        if ctx.gradient is None:
            raise RuntimeError("the gradient of logit_distance can be taken once")
        gradient, ctx.gradient = ctx.gradient, None
        return None, gradient.mul_(of_distance[:, None])


def _centred(logits: Tensor) -> Tensor:
    own = logits.float()
    return own - own.mean(-1, keepdim=True)


def _length(rows: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return length.clamp(min=_LEAST_NORM)
