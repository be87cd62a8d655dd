"""Heads of attention: apart for the products, side by side for the projections."""

from __future__ import annotations

import mlx.core as mx


def split_heads(x: mx.array, batch: int, n_head: int) -> mx.array:
    """Separates the heads: (B * L, n_head * width), or (B, L, ...), to (B, n_head, L, width)."""
    width = x.shape[-1] // n_head
    length = x.size // (batch * n_head * width)
    if length == 1:  # nothing to transpose, and the result stays contiguous
        return x.reshape(batch, n_head, 1, width)
    return x.reshape(batch, length, n_head, width).transpose(0, 2, 1, 3)


def merge_heads(x: mx.array) -> mx.array:
    """Puts the heads side by side: (B, H, L, width) to (B * L, H * width)."""
    batch, n_head, length, width = x.shape
    if length > 1:
        x = x.transpose(0, 2, 1, 3)
    return x.reshape(batch * length, n_head * width)
