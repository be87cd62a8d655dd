"""The exponential moving average (EMA) of a model's weights.

The arithmetic is torch's `get_ema_multi_avg_fn`. `torch.optim.swa_utils.AveragedModel` is not used:
it also copies and averages the frozen parameters, replaces the start by the first update, and its
copy is a second module, while evaluation and export want the averaged weights in the model itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from baldwhisper_convert.model.whisper import Whisper


class Average:
    """An exponential moving average of a model's trainable weights.

    The decay grows from 0.1 as (1 + n) / (10 + n) up to its value, so that the initial weights
    lose their influence quickly (the warm-up of TensorFlow's ExponentialMovingAverage).

    Args:
        model: its parameters that require gradients are averaged, starting from their values now.
        decay: share of the average that a step keeps, 0 to 1.
    """

    def __init__(self, model: Whisper, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {
            name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad
        }
        """The averages by parameter name."""

    def update(self, model: Whisper, step: int) -> None:
        """Adds the model's weights after `step`, counted from 0, to the average."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages = list(self.weights.values())
        current = [parameter.detach() for parameter in self._parameters(model)]
        get_ema_multi_avg_fn(decay)(averages, current, step)

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor]) -> None:
        """Copies a saved average into this one, on this one's device."""
        for name, weight in self.weights.items():
            weight.copy_(weights[name])

    @torch.no_grad()
    def copy_to(self, model: Whisper) -> None:
        """Replaces the model's weights by their averages."""
        for parameter, weight in zip(self._parameters(model), self.weights.values(), strict=True):
            parameter.copy_(weight)

    @staticmethod
    @contextlib.contextmanager
    def applied(model: Whisper, average: Average | None) -> Iterator[None]:
        """Gives the model the averaged weights inside the block, if there is an average."""
        if average is None:
            yield
            return
        parameters = average._parameters(model)
        current = [parameter.detach().clone() for parameter in parameters]
        average.copy_to(model)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, weight in zip(parameters, current, strict=True):
                    parameter.copy_(weight)

    def _parameters(self, model: Whisper) -> list[torch.nn.Parameter]:
        """The model's parameters in the order of `weights`."""
        return [model.get_parameter(name) for name in self.weights]
