"""The terms of the distillation loss, position by position.

Every function compares N positions and returns N values, so that sums over batches,
accumulation steps and processes can be weighted exactly; at least in float32, whatever
precision the model ran in. V vocabulary, d width.

Sources: Sy et al., arXiv 2510.08599 (cross-entropy, KL, feature distance); the feature distance
is Lillama's (Sy et al., arXiv 2412.16719); Hinton et al., arXiv 1503.02531 (temperature).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """- log p(target), for logits (N, V) and ids (N,).

    Example:
        >>> cross_entropy(torch.zeros(1, 4), torch.tensor([2])).exp().round(decimals=4)
        tensor([4.])
    """
    return F.cross_entropy(_wide(logits), targets, reduction="none")


def kl_divergence(teacher: Tensor, student: Tensor, temperature: Tensor | float = 1.0) -> Tensor:
    """KL(teacher || student) of logits (N, V), both divided by a temperature, times its square.

    The square keeps the size of the gradient when the temperature changes (Hinton et al.,
    section 2), and keeps a learned temperature from growing without end.
    """
    student, teacher = _wide(student), _wide(teacher)
    q = (student / temperature).log_softmax(-1)
    p = (teacher / temperature).log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1) * temperature**2


def feature_distance(a: Tensor, b: Tensor) -> Tensor:
    """D(a, b) = mean |a - b| - log sigmoid(cos(a, b)), over the last dimension of (N, d).

    Its smallest value, at a = b, is log(1 + 1/e); the gradient there is zero.
    """
    a, b = _wide(a), _wide(b)
    distance = (a - b).abs().mean(-1)
    return distance - F.logsigmoid(F.cosine_similarity(a, b, dim=-1))


def relative_error(student: Tensor, teacher: Tensor) -> Tensor:
    """|student - teacher|^2 / |teacher|^2 over the last dimension of (N, d).

    Relative, because the residual stream grows from layer to layer.
    """
    student, teacher = _wide(student), _wide(teacher)
    scale = teacher.square().sum(-1).clamp(min=torch.finfo(teacher.dtype).tiny)
    return (student - teacher).square().sum(-1) / scale


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
