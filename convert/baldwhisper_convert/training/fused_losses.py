"""Loss terms over the vocabulary, fused into one pass forward and one backward.

With a vocabulary of 50,000, these losses move more memory than the decoder's layers. Written with
`log_softmax`, each of them reads and writes the (N, V) logits a dozen times. Here a block of rows
at a time is processed while it is in the processor's cache.

- `next_token_terms`: cross-entropy with the labels, KL to the teacher, and agreement.
- `logit_distance`: the feature distance between logits without their means.

losses.py has the plain formulas; the tests compare values and gradients with them. N positions, V
vocabulary. The autograd functions overwrite their intermediate results in the backward pass, so a
gradient can be taken once.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_NEXT_TOKEN_BLOCK = 1 << 20
"""Matrix elements per block of `next_token_terms`: 4 MB of float32."""
_DISTANCE_BLOCK = 1 << 18
"""Matrix elements per block of `logit_distance`: 1 MB of float32; five such blocks are in use."""
_LEAST_NORM = 1e-8
"""Lower bound of a norm in a denominator, as in torch's `cosine_similarity`."""


def next_token_terms(
    teacher: Tensor, student: Tensor, targets: Tensor, temperature: Tensor | float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes `cross_entropy` and `kl_divergence`, and whether the likeliest tokens agree.

    Args:
        teacher: logits (N, V), without gradient.
        student: logits (N, V). The gradient can be taken once, and not differentiated again.
        targets: ids (N,) for the cross-entropy.
        temperature: of the KL term; a tensor () may be learned.

    Returns:
        Cross-entropy (N,), KL(teacher || student) times the temperature's square (N,), both
        float32, and agreement (N,) bool.

    Example:
        >>> logits = torch.zeros(1, 4)
        >>> ce, kl, agree = next_token_terms(logits, logits, torch.tensor([2]))
        >>> ce.exp().round(decimals=4), kl, agree
        (tensor([4.]), tensor([0.]), tensor([True]))
    """
    ce, kl, agree = _NextToken.apply(teacher, student, targets, torch.as_tensor(temperature))
    return ce, kl, agree


def logit_distance(teacher: Tensor, student: Tensor) -> Tensor:
    """Computes `feature_distance` of logits (N, V) minus their means over V.

    A softmax does not depend on the mean, so neither does this distance.

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


class _NextToken(torch.autograd.Function):
    """Forward and backward of `next_token_terms`.

    p is the softmax of the teacher's logits a / T, q of the student's b, and "softened" of the
    student's b / T, which is q itself at T = 1.
    """

    @staticmethod
    def forward(
        ctx: Any, teacher: Tensor, student: Tensor, targets: Tensor, learned: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        temperature = learned.item()
        rows = max(1, _NEXT_TOKEN_BLOCK // student.shape[1])
        # The probabilities are all that the backward pass needs of the logits.
        p, q = (torch.empty(student.shape, device=student.device) for _ in range(2))
        softened = q if temperature == 1 else torch.empty_like(q)
        ce, kl, agree, rates = [], [], [], []
        # max(1, ...): without rows there is still one, empty, block.
        for start in range(0, max(1, len(student)), rows):
            block = slice(start, start + rows)
            b, target = student[block].float(), targets[block, None]
            # Cross-entropy: log sum exp(b) - b[target], at temperature 1.
            log_sum_b, chosen = _softmax(b, q[block])
            ce.append(log_sum_b - b.gather(-1, target))
            a = teacher[block].float()
            if temperature != 1:
                a, b = a / temperature, b / temperature
                log_sum_b, _ = _softmax(b, softened[block])
            log_sum_a, likeliest = _softmax(a, p[block])
            # log p - log q = (a - b) - (log sum exp(a) - log sum exp(b)); KL is its mean under p.
            log_ratio = torch.sub(a, b).sub_(log_sum_a - log_sum_b)
            plain_kl = torch.linalg.vecdot(p[block], log_ratio)
            kl.append(plain_kl * temperature**2)
            agree.append(chosen == likeliest)
            # The derivative by T needs the logits, which are in the cache only now.
            if ctx.needs_input_grad[3]:
                rates.append(
                    _temperature_rate(p[block], softened[block], a, b, log_ratio, plain_kl)
                )
        ctx.probabilities = p, q, softened
        ctx.temperature, ctx.dtype = temperature, student.dtype
        ctx.rate = temperature * torch.cat(rates) if rates else None
        ctx.save_for_backward(targets)
        agreement = torch.cat(agree)[:, 0]
        ctx.mark_non_differentiable(agreement)
        return torch.cat(ce)[:, 0], torch.cat(kl), agreement

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_ce: Tensor, of_kl: Tensor, _: Tensor
    ) -> tuple[None, Tensor, None, Tensor | None]:
        (targets,) = ctx.saved_tensors
        if not ctx.probabilities:
            raise RuntimeError("the gradient of next_token_terms can be taken once")
        p, q, softened = ctx.probabilities
        ctx.probabilities = ()  # they are overwritten below
        # d CE / d b = q - onehot(target); d (T^2 KL) / d b = T (softened - p).
        kl_scale = of_kl[:, None] * ctx.temperature
        if softened is q:  # one pass over q instead of two
            gradient = q.mul_(of_ce[:, None] + kl_scale)
        else:
            gradient = q.mul_(of_ce[:, None]).addcmul_(softened, kl_scale)
        gradient.addcmul_(p, kl_scale, value=-1)
        gradient.scatter_add_(-1, targets[:, None], -of_ce[:, None])
        of_temperature = None if ctx.rate is None else (of_kl * ctx.rate).sum()
        return None, gradient.to(ctx.dtype), None, of_temperature


def _softmax(logits: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Writes the softmax of rows to `out`; returns log sum exp and the argmax, both (rows, 1)."""
    torch.softmax(logits, -1, out=out)
    largest, index = logits.max(-1, keepdim=True)
    # log sum exp(x) = max x - log max softmax(x); that probability is at least 1 / V, not 0.
    return largest - out.gather(-1, index).log(), index


def _temperature_rate(
    p: Tensor, q: Tensor, a: Tensor, b: Tensor, log_ratio: Tensor, kl: Tensor
) -> Tensor:
    """The derivative d(T^2 KL) / dT divided by T, at every position (N,).

    With the unscaled logits A = T a and B = T b, d log p / dT = (E_p[A] - A) / T^2, and likewise
    for q and B. So for KL = E_p[log p - log q]:

        T^2 dKL/dT = E_p[B] - E_q[B] - Cov_p(A, log p - log q)
        d(T^2 KL)/dT = 2 T KL + T^2 dKL/dT = T (2 KL + E_p[b] - E_q[b] - Cov_p(a, log p - log q))

    Args:
        p: softmax of a (N, V).
        q: softmax of b (N, V).
        a: the teacher's logits divided by T.
        b: the student's logits divided by T.
        log_ratio: log p - log q (N, V); is overwritten.
        kl: E_p[log p - log q] (N,).
    """
    dot = torch.linalg.vecdot
    # Cov_p(a, r) = E_p[a r] - E_p[a] E_p[r], where E_p[r] is the KL.
    covariance = dot(log_ratio.mul_(p), a) - dot(p, a) * kl
    rate: Tensor = 2 * kl + dot(p, b) - dot(q, b) - covariance
    return rate


class _LogitDistance(torch.autograd.Function):
    """Forward and backward of `logit_distance`; the gradient is computed in the forward pass."""

    @staticmethod
    def forward(ctx: Any, teacher: Tensor, student: Tensor) -> Tensor:
        rows = max(1, _DISTANCE_BLOCK // student.shape[1])
        gradient = torch.empty_like(student)
        distances = []
        # max(1, ...): without rows there is still one, empty, block.
        for start in range(0, max(1, len(student)), rows):
            block = slice(start, start + rows)
            a, b = _centred(teacher[block]), _centred(student[block])
            difference = b - a
            norm_a, norm_b = _norm(a), _norm(b)
            cosine = torch.linalg.vecdot(a, b)[:, None] / (norm_a * norm_b)
            # D = mean |b - a| - log sigmoid(cos(a, b)).
            distances.append(difference.abs().mean(-1) - F.logsigmoid(cosine)[:, 0])
            # d mean|b - a| / db = sign(b - a) / V; centring b takes out the gradient's mean.
            rate = difference.sign_().div_(student.shape[1])
            rate.sub_(rate.mean(-1, keepdim=True))
            # d -log sigmoid(c) / dc = -sigmoid(-c), and d c / db = a / (|a| |b|) - c b / |b|^2,
            # whose mean is 0 already, because the means of a and b are.
            pull = torch.sigmoid(-cosine)
            rate.addcmul_(a, pull / (norm_a * norm_b), value=-1)
            gradient[block] = rate.addcmul_(b, pull * cosine / norm_b.square())
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
    """The rows in float32 minus their means."""
    wide = logits.float()
    return wide - wide.mean(-1, keepdim=True)


def _norm(rows: Tensor) -> Tensor:
    """The rows' Euclidean norms (rows, 1), at least `_LEAST_NORM`."""
    norm: Tensor = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return norm.clamp(min=_LEAST_NORM)
