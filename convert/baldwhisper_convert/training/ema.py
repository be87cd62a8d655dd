"""The moving average of a model's weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from baldwhisper_convert.model.whisper import Whisper


class Average:
    """An exponential moving average of a model's trainable weights.

    The decay grows from 0 as (1 + n) / (10 + n) up to its value, so that the start is
    forgotten soon.
    """

    def __init__(self, model: Whisper, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {
            name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad
        }

    @torch.no_grad()
    def update(self, model: Whisper, step: int) -> None:
        """Takes the weights after `step` in."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in model.named_parameters():
            if name in self.weights:
                self.weights[name].lerp_(parameter.detach(), 1 - decay)

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor]) -> None:
        """Takes over a saved average, onto the device of this one."""
        for name, weight in self.weights.items():
            weight.copy_(weights[name])

    @torch.no_grad()
    def copy_to(self, model: Whisper) -> None:
        """Replaces the model's weights by their average."""
        for name, parameter in model.named_parameters():
            if name in self.weights:
                parameter.copy_(self.weights[name])

    @staticmethod
    @contextlib.contextmanager
    def applied(model: Whisper, average: Average | None) -> Iterator[None]:
        """The model with averaged weights, if there is an average, inside the block."""
        if average is None:
            yield
            return
        own = {name: p.detach().clone() for name, p in model.named_parameters()
               if name in average.weights}  # fmt: skip
        average.copy_to(model)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if name in own:
                        parameter.copy_(own[name])
