"""Cross-entropy and KL of the next token in one pass over the vocabulary.

With a vocabulary of 50,000 the loss terms move more memory than the layers: written with
`log_softmax`, each of them reads and writes the (N, V) logits a dozen times. Here a few rows at
a time go through while they are in the processor's cache, forward, and once more backward. The
plain formulas in losses.py are its naive twins. N positions, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_NUMBERS_AT_ONCE = 1 << 20
"""Of a matrix: 4 MB of float32."""


def next_token_terms(
    teacher: Tensor, student: Tensor, targets: Tensor, temperature: Tensor | float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """What `cross_entropy` and `kl_divergence` give, and whether the likeliest tokens agree.

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


def _softmax(logits: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Writes the softmax of rows to `out`; the logarithm of its denominator, and the largest."""
    torch.softmax(logits, -1, out=out)
    largest, index = logits.max(-1, keepdim=True)
    # The largest probability is at least 1 / V, so its logarithm is safe.
    return largest - out.gather(-1, index).log(), index


class _NextToken(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, teacher: Tensor, student: Tensor, targets: Tensor, learned: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        temperature = learned.item()
        rows = max(1, _NUMBERS_AT_ONCE // student.shape[1])
        p, q = (torch.empty(student.shape, device=student.device) for _ in range(2))
        softened = q if temperature == 1 else torch.empty_like(q)
        ce, kl, agree, rates = [], [], [], []
        for start in range(0, max(1, len(student)), rows):
            part = slice(start, start + rows)
            own, target = student[part].float(), targets[part, None]
            total, chosen = _softmax(own, q[part])
            ce.append(total - own.gather(-1, target))
            wanted = teacher[part].float()
            if temperature != 1:
                wanted, own = wanted / temperature, own / temperature
                total, _ = _softmax(own, softened[part])
            taught, likeliest = _softmax(wanted, p[part])
            ratio = torch.sub(wanted, own).sub_(taught - total)
            plain = torch.linalg.vecdot(p[part], ratio)
            kl.append(plain * temperature**2)
            agree.append(chosen == likeliest)
            if ctx.needs_input_grad[3]:
                rates.append(_rate(p[part], softened[part], wanted, own, ratio, plain))
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
        ctx.probabilities = ()  # overwritten from here on
        kl_rate = of_kl[:, None] * ctx.temperature
        if softened is q:
            gradient = q.mul_(of_ce[:, None] + kl_rate)
        else:
            gradient = q.mul_(of_ce[:, None]).addcmul_(softened, kl_rate)
        gradient.addcmul_(p, kl_rate, value=-1)
        gradient.scatter_add_(-1, targets[:, None], -of_ce[:, None])
        of_temperature = None if ctx.rate is None else (of_kl * ctx.rate).sum()
        return None, gradient.to(ctx.dtype), None, of_temperature


def _rate(p: Tensor, q: Tensor, wanted: Tensor, own: Tensor, ratio: Tensor, kl: Tensor) -> Tensor:
    """By how much KL times T^2 grows with the temperature T, over T, at every position (N,).

    With KL = E_p[log p - log q], p and q the softmax of a / T and b / T: d KL / dT =
    (E_p[b] - E_q[b] - Cov_p(a, log p - log q)) / T^2.

    Args:
        p: of the teacher (N, V).
        q: of the student.
        wanted: a / T.
        own: b / T.
        ratio: log p - log q; is overwritten.
        kl: (N,).
    """
    dot = torch.linalg.vecdot
    covariance = dot(ratio.mul_(p), wanted) - dot(p, wanted) * kl
    rate: Tensor = 2 * kl + dot(p, own) - dot(q, own) - covariance
    return rate


_DISTANCE_BLOCK = 1 << 18
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
        rows = max(1, _DISTANCE_BLOCK // student.shape[1])
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
