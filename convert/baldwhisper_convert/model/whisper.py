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

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.checkpoint.state import Dimensions, EmbeddingForm, State
from baldwhisper_convert.model.embedding import TokenEmbedding
from baldwhisper_convert.model.layers import Block, KeysAndValues, SelfCache


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
