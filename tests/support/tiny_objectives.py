"""Distillation of tiny models on tiny batches, and what it leaves in their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from baldwhisper_convert.data.batches import Batch, Mix, collate
from baldwhisper_convert.data.prepared import Windows
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training.objectives import Distillation, LossSettings, Terms
from tests.support.tiny_prepared import tiny_prompts

ALL = LossSettings(ce=0.2, kl=1.0, embedding=0.3, projection=0.4, hidden=0.5, temperature=1.5)
"""Every term."""


def only(**weights: Any) -> LossSettings:
    """The terms given, and no others."""
    return LossSettings(**({"ce": 0.0, "kl": 0.0} | weights))


def batch_of(data: Windows, windows: Sequence[int] = range(5)) -> Batch:
    """Windows as one batch, half of them with timestamps or prompts."""
    return collate(data, windows, tiny_prompts(), Mix(timestamps=0.5, prompts=0.5))


def learn(objective: Distillation, student: Whisper, batch: Batch) -> Terms:
    """Terms, and gradients in the student."""
    terms: Terms = objective(student, batch)
    torch.stack(list(terms.losses.values())).sum().backward()
    return terms


def number(value: torch.Tensor) -> float:
    """A scalar without its graph."""
    return float(value.detach())


def grown(model: torch.nn.Module) -> set[str]:
    """Names of the parameters with a gradient that is not 0."""
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and bool(parameter.grad.any())
    }
