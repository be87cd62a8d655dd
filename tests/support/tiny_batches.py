"""Batches made by hand for tiny models: random encoder states and tokens, padding and prompts."""

from __future__ import annotations

import torch

from baldwhisper_convert.checkpoint.state import Dimensions
from baldwhisper_convert.data.batches import IGNORED, Batch
from tests.support.tiny import tiny_dims


def tiny_batches(
    n: int = 2, *, dims: Dimensions | None = None, mel: bool = False, seed: int = 0
) -> list[Batch]:
    """`n` batches of two windows; the second window is shorter in audio and in tokens."""
    dims = dims or tiny_dims()
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(n):
        shape = (2, dims.n_mels, 24) if mel else (2, 12, dims.n_audio_state)
        tokens = torch.randint(dims.n_vocab, (2, 9), generator=generator)
        mask = torch.ones(2, 9, dtype=torch.bool)
        mask[0, :2], mask[1, 6:] = False, False
        targets = torch.where(mask, tokens.roll(-1, 1), IGNORED)
        features = torch.randn(shape, generator=generator)
        batches.append(Batch(features, mel, torch.tensor([12, 8]), tokens, targets, mask))
    return batches
