"""The layers of Whisper in PyTorch: attention, and the blocks of encoder and decoder.

Dimensions in docstrings: B batch, T encoder positions, L tokens, d width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

KeysAndValues = tuple[Tensor, Tensor]
"""Keys and values of one layer, each (B, heads, length, d / heads)."""


class SelfCache:
    """Keys and values of the previous tokens in one layer's self-attention."""

    def __init__(self) -> None:
        self.kv: KeysAndValues | None = None

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return 0 if self.kv is None else self.kv[0].shape[2]

    def extend(self, kv: KeysAndValues) -> KeysAndValues:
        """Appends those of new tokens and returns all."""
        if self.kv is not None:
            kv = torch.cat([self.kv[0], kv[0]], 2), torch.cat([self.kv[1], kv[1]], 2)
        self.kv = kv
        return kv


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Scaled dot-product attention (B, heads, L, d / heads), in float32 on a CPU.

    torch's bfloat16 kernel for CPUs takes twice the time of its float32 one (docs/log.md).
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    with torch.autocast("cpu", enabled=False):
        y = F.scaled_dot_product_attention(
            q.float(), k.float(), v.float(), attn_mask=mask, is_causal=causal
        )
    return y.to(q.dtype)


class Attention(nn.Module):
    """Multi-head attention with Whisper's biases: none on the keys."""

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def project(self, source: Tensor) -> KeysAndValues:
        """Keys and values of the states to attend to (B, T, d)."""
        return self._heads(self.key(source)), self._heads(self.value(source))

    def forward(
        self, x: Tensor, kv: KeysAndValues, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """x (B, L, d) -> (B, L, d); mask, True where to attend, broadcasts to (B, heads, L, T)."""
        q = self._heads(self.query(x))
        y = _attend(q, *kv, mask, causal)
        merged: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return merged

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.n_head, -1).transpose(1, 2)


class Block(nn.Module):
    """One layer of the encoder, or of the decoder if it has cross-attention."""

    def __init__(self, width: int, n_head: int, *, cross: bool) -> None:
        super().__init__()
        self.attn = Attention(width, n_head)
        self.attn_ln = nn.LayerNorm(width)
        if cross:
            self.cross_attn = Attention(width, n_head)
            self.cross_attn_ln = nn.LayerNorm(width)
        self.cross = cross
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.mlp_ln = nn.LayerNorm(width)
        self.dropout = nn.Dropout(0.0)
        self.recompute = False
        """Whether training computes the layer again in the backward pass instead of keeping what
        the gradient needs of it (Chen et al., arXiv 1604.06174)."""

    def forward(
        self,
        x: Tensor,
        audio: KeysAndValues | None = None,
        mask: Tensor | None = None,
        cache: SelfCache | None = None,
    ) -> Tensor:
        """x (B, L, d) -> (B, L, d), for the arguments see `_layer`."""
        if self.recompute and self.training and torch.is_grad_enabled() and cache is None:
            # It restores the state of the random numbers, so dropout is the same both times.
            again: Tensor = checkpoint(self._layer, x, audio, mask, None, use_reentrant=False)
            return again
        return self._layer(x, audio, mask, cache)

    def _layer(
        self,
        x: Tensor,
        audio: KeysAndValues | None,
        mask: Tensor | None,
        cache: SelfCache | None,
    ) -> Tensor:
        """The layer itself.

        Args:
            x: the residual stream.
            audio: projected encoder states, for a decoder layer, which is causal.
            mask: True at positions of x (encoder) or the audio (decoder) that are not padding.
            cache: of the tokens before x; x must be one token unless the cache is empty.
        """
        y = self.attn_ln(x)
        kv = self.attn.project(y)
        if cache is not None:
            kv = cache.extend(kv)
        # A decoder's mask is for the audio; its self-attention is causal.
        self_mask = None if self.cross else mask
        x = x + self.dropout(self.attn(y, kv, self_mask, causal=self.cross and x.shape[1] > 1))
        if audio is not None:
            x = x + self.dropout(self.cross_attn(self.cross_attn_ln(x), audio, mask))
        branch: Tensor = self.dropout(self.mlp(self.mlp_ln(x)))
        return x + branch
