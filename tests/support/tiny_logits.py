"""Logits of a teacher and of a student that is near it, and what is to be written."""

from __future__ import annotations

import torch
from torch import Tensor


def logits(n: int, width: int, seed: int, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Teacher's and student's logits (n, width) and target ids (n,)."""
    generator = torch.Generator().manual_seed(seed)
    teacher = scale * torch.randn(n, width, generator=generator)
    student = teacher + torch.randn(n, width, generator=generator)
    return teacher, student, torch.randint(width, (n,), generator=generator)
