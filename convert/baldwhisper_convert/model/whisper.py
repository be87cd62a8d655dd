"""Whisper in PyTorch, under the canonical names, with a dense or factorized token embedding.

The model used in training. Its state dict is the canonical state, so names need no mapping. The
output of every layer is there for distillation, and the decoder takes encoder states that are
already projected, so that teacher and student can share the projections of a frozen encoder.
Dimensions in docstrings: B batch, T encoder positions, L tokens, d width, V vocabulary.

Architecture: Radford et al., arXiv 2212.04356. Factorization: Sy et al., arXiv 2510.08599.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.checkpoint.state import Dimensions, EmbeddingForm, State
from baldwhisper_convert.model.embedding import TokenEmbedding

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


@dataclass(frozen=True)
class EncoderOutput:
    """Results of one pass of the encoder."""

    layers: tuple[Tensor, ...]
    """Output of each block (B, T, d)."""
    state: Tensor
    """Output of the final layer norm, which the decoder attends to (B, T, d)."""


@dataclass(frozen=True)
class DecoderOutput:
    """Results of one pass of the decoder."""

    embedded: Tensor
    """Token embeddings before the positions are added (B, L, d)."""
    layers: tuple[Tensor, ...]
    """Output of each block (B, L, d)."""
    state: Tensor
    """Output of the final layer norm, which the token embedding turns into logits (B, L, d)."""


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
            again: Tensor = checkpoint(self._layer, x, audio, mask, use_reentrant=False)
            return again
        return self._layer(x, audio, mask, cache)

    def _layer(
        self,
        x: Tensor,
        audio: KeysAndValues | None = None,
        mask: Tensor | None = None,
        cache: SelfCache | None = None,
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


class AudioEncoder(nn.Module):
    """Two convolutions (the second halves the frame rate) and a stack of blocks."""

    positional_embedding: Tensor

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()
        width = dims.n_audio_state
        self.conv1 = nn.Conv1d(dims.n_mels, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)
        self.register_buffer("positional_embedding", torch.zeros(dims.n_audio_ctx, width))
        self.blocks = nn.ModuleList(
            Block(width, dims.n_audio_head, cross=False) for _ in range(dims.n_audio_layer)
        )
        self.ln_post = nn.LayerNorm(width)

    def forward(self, mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encodes log-mel (B, n_mels, 2T) as (B, T, d); mask as `length_mask` makes it."""
        x = self.embed(mel)
        for block in self.blocks:
            x = block(x, mask=mask)
        normed: Tensor = self.ln_post(x)
        return normed

    def embed(self, mel: Tensor) -> Tensor:
        """The input of the first block (B, T, d): convolutions of the log-mel, and positions."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        return x + self.positional_embedding[: x.shape[1]]

    def trace(self, x: Tensor, mask: Tensor | None = None, start: int = 0) -> EncoderOutput:
        """Runs the blocks from number `start` on, whose input is x, and keeps all outputs."""
        layers = []
        for block in self.blocks[start:]:
            x = block(x, mask=mask)
            layers.append(x)
        return EncoderOutput(tuple(layers), self.ln_post(x))


class TextDecoder(nn.Module):
    """Token embedding, positions and a stack of causal blocks with cross-attention."""

    def __init__(self, dims: Dimensions, form: EmbeddingForm) -> None:
        super().__init__()
        width = dims.n_text_state
        self.token_embedding = TokenEmbedding(dims, form)
        self.positional_embedding = nn.Parameter(torch.zeros(dims.n_text_ctx, width))
        self.blocks = nn.ModuleList(
            Block(width, dims.n_text_head, cross=True) for _ in range(dims.n_text_layer)
        )
        self.ln = nn.LayerNorm(width)

    def project_audio(
        self, audio: Tensor, layers: Sequence[int] | None = None
    ) -> dict[int, KeysAndValues]:
        """Keys and values of encoder states (B, T, d) for the given layers, by default all."""
        chosen = range(len(self.blocks)) if layers is None else layers
        return {i: self.blocks[i].cross_attn.project(audio) for i in chosen}  # type: ignore[union-attr, operator]

    def forward(
        self,
        tokens: Tensor,
        audio: Tensor | dict[int, KeysAndValues],
        mask: Tensor | None = None,
        cache: Sequence[SelfCache] | None = None,
    ) -> DecoderOutput:
        """Decodes whole sequences (teacher forcing), or with a cache the next tokens.

        Args:
            tokens: (B, L) ids; pad on the right.
            audio: encoder states (B, T, d), or their projections from `project_audio`.
            mask: encoder positions that are not padding, from `length_mask`.
            cache: one for each layer; if they are not empty, L must be 1.
        """
        kv = audio if isinstance(audio, dict) else self.project_audio(audio)
        start = cache[0].length if cache else 0
        embedded = self.token_embedding(tokens)
        x = embedded + self.positional_embedding[start : start + tokens.shape[1]]
        layers = []
        for i, block in enumerate(self.blocks):
            x = block(x, kv[i], mask, cache[i] if cache else None)
            layers.append(x)
        return DecoderOutput(embedded, tuple(layers), self.ln(x))


class Whisper(nn.Module):
    """Encoder and decoder of one checkpoint."""

    def __init__(self, dims: Dimensions, form: EmbeddingForm | None = None) -> None:
        super().__init__()
        self.dims = dims
        self.encoder = AudioEncoder(dims)
        self.decoder = TextDecoder(dims, form or EmbeddingForm())

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Whisper:
        """A float32 module with a checkpoint's weights, in evaluation mode.

        Example:
            >>> model = Whisper.from_checkpoint(read_checkpoint("models/base"))  # doctest: +SKIP
        """
        with torch.device("meta"):
            model = cls(checkpoint.dims, checkpoint.embedding)
        model.to_empty(device="cpu")
        model.load_state_dict(
            {
                name: tensor.float() if tensor.is_floating_point() else tensor.long()
                for name, tensor in checkpoint.state.items()
            }
        )
        return model.eval()

    def canonical_state(self) -> State:
        """A detached float32 copy of the weights on the CPU, as `Checkpoint.state` has them."""
        return {
            name: tensor.detach().cpu().clone().contiguous()
            for name, tensor in self.state_dict().items()
        }

    def set_dropout(self, probability: float) -> None:
        """Sets the dropout of the decoder's residual branches; it acts in training mode only."""
        for block in self.decoder.blocks:
            block.dropout.p = probability  # type: ignore[union-attr]

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        """Sets whether layers are computed again in the backward pass, to save memory."""
        for block in (*self.encoder.blocks, *self.decoder.blocks):
            block.recompute = enabled

    def logits(self, output: DecoderOutput) -> Tensor:
        """Vocabulary logits (B, L, V) of a decoder pass."""
        return self.decoder.token_embedding.as_linear(output.state)


def length_mask(lengths: Tensor, longest: int) -> Tensor | None:
    """Mask (B, 1, 1, longest) that is True before each length; None if nothing is masked.

    Example:
        >>> length_mask(torch.tensor([1, 2]), 2)[:, 0, 0]
        tensor([[ True, False],
                [ True,  True]])
    """
    if bool((lengths >= longest).all()):
        return None
    positions = torch.arange(longest, device=lengths.device)
    return (positions < lengths[:, None])[:, None, None]
