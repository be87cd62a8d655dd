"""Mixed precision: which type a model computes in, and the scale of the loss in float16.

Accelerate keeps the precision of a process's first accelerator for good, but every stage of a
recipe may have its own. So this uses torch's own parts, and Accelerate is left at float32.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from baldwhisper_convert.training.settings import Precision

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class MixedPrecision:
    """Computes losses, gradients and steps in one of the precisions.

    Args:
        precision: "no", "fp16" or "bf16".
        accelerator: of the run; the scale of the loss becomes part of its checkpoints.
    """

    def __init__(self, precision: Precision, accelerator: Accelerator) -> None:
        self.accelerator, self.precision = accelerator, precision
        self.device = accelerator.device
        self.scaler: torch.amp.GradScaler | None = None
        if precision == "fp16":
            self.scaler = torch.amp.GradScaler(self.device.type)
            accelerator.register_for_checkpointing(self.scaler)

    def autocast(self) -> AbstractContextManager[None]:
        """The block in which a model and its loss are computed."""
        if self.precision == "no":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_DTYPES[self.precision])

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a loss, in float16 times the scale."""
        self.accelerator.backward(self.scaler.scale(loss) if self.scaler else loss)

    def clip(self, module: nn.Module, optimizer: Optimizer, norm: float) -> float:
        """Takes the scale off the gradients and limits their norm; returns the norm before."""
        if self.scaler:
            self.scaler.unscale_(optimizer)
        return float(self.accelerator.clip_grad_norm_(module.parameters(), norm))

    def step(self, optimizer: Optimizer) -> None:
        """Takes the optimizer's step; in float16 not after an infinite gradient."""
        if self.scaler is None:
            optimizer.step()
            return
        self.scaler.step(optimizer)
        self.scaler.update()
