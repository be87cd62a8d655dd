"""The Whisper architecture in MLX, with a dense or factorized token embedding.

The model maps log-mel features (audio/features.py) to encoder states, and tokens to logits. Which
token comes next is up to decoding/decoder.py. Dimensions in docstrings: B batch, T encoder
positions, L tokens, d width, H heads, V vocabulary. Blocks work on (B * L, d), because a product of
two matrices takes fewer primitives than one of two stacks of matrices.

Architecture: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision",
arXiv 2212.04356. The factorized form of the embedding is in embedding.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
from mlx import nn

from baldwhisper_mlx.config import ModelConfig, bucketed_positions
from baldwhisper_mlx.model.cache import Branches, KVCache, LayerCache
from baldwhisper_mlx.model.embedding import FactorizedEmbedding
from baldwhisper_mlx.model.heads import merge_heads, split_heads
from baldwhisper_mlx.model.padding import SHORTEST, KeysAndValues, Padding, extended
from baldwhisper_mlx.ops import cpu_tiles
from baldwhisper_mlx.ops.functions import BIG, attention, gelu, uses_cpu_fallback


class SelfAttention(nn.Module):
    """Multi-head attention of sequences over themselves, one product for Q, K and V."""

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.scale = (width // n_head) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def __call__(
        self,
        x: mx.array,
        batch: int,
        cache: KVCache | None = None,
        mask: mx.array | str | None = None,
        constants: KeysAndValues | None = None,
    ) -> mx.array:
        """x (B * L, d) -> (B * L, d); it also attends to a cache's positions and to constants."""
        q, k, v = mx.split(split_heads(self.qkv(x), batch, 3 * self.n_head), 3, axis=1)
        if cache is not None:
            k, v = cache.update(k, v)
        if constants is not None:
            k, v = extended((k, v), constants)
        y = attention(q, k, v, scale=self.scale, mask=mask)
        return self.out(merge_heads(y))

    def keys_and_values(self, x: mx.array, batch: int) -> KeysAndValues:
        """Of x (B * L, d), both (B, H, L, head_dim)."""
        _, k, v = mx.split(split_heads(self.qkv(x), batch, 3 * self.n_head), 3, axis=1)
        return k, v


class CrossAttention(nn.Module):
    """Multi-head attention over encoder states whose K and V were projected beforehand."""

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.scale = (width // n_head) ** -0.5
        self.query = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def project(self, audio: mx.array, cache: KVCache) -> None:
        """Writes K and V of encoder states (B, T, d) into the cache, replacing what it held."""
        batch, length, _ = audio.shape
        if uses_cpu_fallback(audio) and isinstance(self.kv, nn.Linear):
            # A BLAS multiplies one row by a head twice as fast if its positions lie side by side.
            kv = self.kv.weight @ audio.swapaxes(1, 2) + self.kv.bias[:, None]
            kv = kv.reshape(batch, 2 * self.n_head, -1, length).swapaxes(2, 3)
            mx.eval(kv)  # or the products of all layers would be in memory at once
            cache.fill(*mx.split(kv, 2, axis=1))
        else:
            k, v = mx.split(split_heads(self.kv(audio), batch, 2 * self.n_head), 2, axis=1)
            cache.fill(mx.contiguous(k), mx.contiguous(v))

    def __call__(self, x: mx.array, batch: int, cache: LayerCache) -> mx.array:
        """x (B * L, d) -> (B * L, d)."""
        k, v = cache.cross_attn.state()
        q = split_heads(self.query(x), batch, self.n_head)
        if cache.queries is not None:  # word times are wanted; see decoding/alignment.py
            cache.queries.append(q)
        y = attention(q, k, v, scale=self.scale, mask=cache.audio_mask)
        return self.out(merge_heads(y))


class EncoderBlock(nn.Module):
    """Pre-norm transformer block over audio: self-attention and MLP, each with a residual."""

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__()
        self.attn = SelfAttention(width, n_head)
        self.attn_ln = nn.LayerNorm(width)
        self.mlp1 = nn.Linear(width, 4 * width)
        self.mlp2 = nn.Linear(4 * width, width)
        self.mlp_ln = nn.LayerNorm(width)

    def __call__(
        self,
        x: mx.array,
        batch: int,
        mask: mx.array | None,
        constants: KeysAndValues | None = None,
    ) -> mx.array:
        """x (B * T, d) -> (B * T, d); mask and constants as in SelfAttention."""
        if x.size >= BIG and uses_cpu_fallback(x) and cpu_tiles.supports_block(self):
            return cpu_tiles.encoder_block(self, x, batch, mask, constants)  # tiles stay cached
        x = x + self.attn(self.attn_ln(x), batch, mask=mask, constants=constants)
        return x + self.mlp2(gelu(self.mlp1(self.mlp_ln(x))))


class DecoderBlock(nn.Module):
    """Pre-norm block over text: causal self-attention, attention to the audio, and MLP."""

    def __init__(self, width: int, n_head: int) -> None:
        super().__init__()
        self.attn = SelfAttention(width, n_head)
        self.attn_ln = nn.LayerNorm(width)
        self.cross_attn = CrossAttention(width, n_head)
        self.cross_attn_ln = nn.LayerNorm(width)
        self.mlp1 = nn.Linear(width, 4 * width)
        self.mlp2 = nn.Linear(4 * width, width)
        self.mlp_ln = nn.LayerNorm(width)

    def __call__(
        self, x: mx.array, batch: int, cache: LayerCache, mask: mx.array | str | None
    ) -> mx.array:
        """x (B * L, d) -> (B * L, d); the mask is the self-attention's."""
        x = x + self.attn(self.attn_ln(x), batch, cache.self_attn, mask)
        x = x + self.cross_attn(self.cross_attn_ln(x), batch, cache)
        return x + self.mlp2(gelu(self.mlp1(self.mlp_ln(x))))


class AudioEncoder(nn.Module):
    """Two convolutions (the second halves the frame rate) and a stack of blocks."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.n_audio_state
        self.conv1 = nn.Conv1d(config.n_mels, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)
        self.positional_embedding = mx.zeros((config.n_audio_ctx, width))
        self.blocks = [
            EncoderBlock(width, config.n_audio_head) for _ in range(config.n_audio_layer)
        ]
        self.ln_post = nn.LayerNorm(width)

    def __call__(
        self, mel: mx.array, mask: mx.array | None = None, padding: Padding | None = None
    ) -> mx.array:
        """Encodes log-mel as states (B, T, d).

        Args:
            mel: (B, 2T, n_mels).
            mask: (B, 1, 1, T) as in LayerCache; not together with `padding`.
            padding: constants for the rest of 30 s, if T is less.
        """
        x = self.embed(mel)
        shape = batch, length, width = x.shape
        x = x.reshape(batch * length, width)
        constants: Sequence[KeysAndValues | None] = [None] * len(self.blocks)
        if padding is not None:
            constants, mask = padding.behind(length)
        for block, layer_constants in zip(self.blocks, constants, strict=True):
            x = block(x, batch, mask, layer_constants)
        return self.ln_post(x).reshape(shape)

    def embed(self, mel: mx.array) -> mx.array:
        """Convolutions and positions: log-mel (B, 2T, n_mels) to (B, T, d)."""
        x = gelu(self.conv1(mel.astype(self.conv1.weight.dtype)))
        x = gelu(self.conv2(x))
        # Short clips have fewer positions; see ModelConfig.audio_context.
        return x + self.positional_embedding[: x.shape[1]]


class TextDecoder(nn.Module):
    """Token ids and cached audio to states, from which `Whisper.logits` makes logits."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.n_text_state
        if config.embedding_rank is None:
            self.token_embedding: nn.Module = nn.Embedding(config.n_vocab, width)
        else:
            self.token_embedding = FactorizedEmbedding(
                config.n_vocab,
                width,
                config.embedding_rank,
                separate=config.embedding_projections == "separate",
                mean=config.embedding_mean,
                dense_rows=config.embedding_dense_rows,
            )
        self.positional_embedding = mx.zeros((config.n_text_ctx, width))
        self.blocks = [DecoderBlock(width, config.n_text_head) for _ in range(config.n_text_layer)]
        self.ln = nn.LayerNorm(width)

    def __call__(
        self, tokens: mx.array, cache: Sequence[LayerCache], branches: Branches | None = None
    ) -> mx.array:
        """Runs tokens (B, L), consecutive ones or branches, after the cache's; states (B, L, d)."""
        (batch, length), offset = tokens.shape, cache[0].self_attn.offset
        places = slice(offset, offset + length)
        # A single token may attend to all before it.
        mask: mx.array | str | None = "causal" if length > 1 else None
        if branches is not None:
            places, mask = slice(branches.position, branches.position + 1), branches.ancestors
        x = self.token_embedding(tokens) + self.positional_embedding[places]
        x = x.reshape(batch * length, -1)
        for block, layer_cache in zip(self.blocks, cache, strict=True):
            x = block(x, batch, layer_cache, mask)
        return self.ln(x).reshape(batch, length, -1)


class Whisper(nn.Module):
    """Encoder and decoder of one checkpoint, described by its config."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = AudioEncoder(config)
        self.decoder = TextDecoder(config)
        self.padding: Padding | None = None
        """Set by `load_model` for the padded audio context; see padding.py."""

    def make_cache(self) -> list[LayerCache]:
        """Empty caches, one per decoder layer, for any batch size."""
        config = self.config
        return [
            LayerCache(KVCache(config.n_text_ctx), KVCache(config.n_audio_ctx))
            for _ in self.decoder.blocks
        ]

    def encode(self, mel: mx.array, n_frames: Sequence[int], cache: Sequence[LayerCache]) -> None:
        """Encodes clips and leaves the cross-attention K and V of every layer in the cache.

        Args:
            mel: (B, 2 * n_audio_ctx, n_mels) normalized log-mel, zeros after a clip's end.
            n_frames: mel frames (10 ms) of real audio in each of the B clips; they matter
                unless the checkpoint's `audio_context` is "full".
            cache: from `make_cache`; its audio is replaced, its tokens are forgotten.
        """
        for layer in cache:  # not in memory together with what the encoder needs
            layer.cross_attn.release()
        longest = self.audio_positions(max(n_frames))
        if self.padding is not None and self.is_padded(n_frames):
            # All clips get the positions of the longest: what is behind a shorter one is computed.
            audio = self.encoder(mel[:, : 2 * longest], padding=self.padding)
            return self.attend_to(self.padding.with_tail(audio), cache)
        positions = [self.config.audio_positions(n) for n in n_frames]
        mask = None
        if min(positions) < longest:  # clips shorter than the longest end before the last position
            mask = (mx.arange(longest) < mx.array(positions)[:, None])[:, None, None]
        if self.config.audio_context == "dynamic":
            audio = self.encoder(mel[:, : 2 * longest], mask)
        else:  # the encoder was trained on 30 s; only the decoder sees the clip's own positions
            audio = self.encoder(mel)[:, :longest]
        self.attend_to(audio, cache, mask)

    def audio_positions(self, n_frames: int) -> int:
        """Encoder positions that a clip of `n_frames` mel frames (10 ms) takes in its context."""
        config = self.config
        if self.padding is None or n_frames < SHORTEST:
            return config.audio_positions(n_frames)
        return bucketed_positions(n_frames, config.audio_context_margin, config.n_audio_ctx)

    def is_padded(self, n_frames: Sequence[int]) -> bool:
        """Whether `encode` uses constants for the rest of 30 s behind clips of `n_frames`."""
        longest = self.audio_positions(max(n_frames))
        return self.padding is not None and longest < self.config.n_audio_ctx

    def attend_to(
        self, audio: mx.array, cache: Sequence[LayerCache], mask: mx.array | None = None
    ) -> None:
        """Leaves encoder states (B, T, d) in the cache, as `encode` does with clips.

        Args:
            audio: from `encoder`.
            cache: from `make_cache`.
            mask: (B, 1, 1, T) as in LayerCache.
        """
        for block, layer_cache in zip(self.decoder.blocks, cache, strict=True):
            block.cross_attn.project(audio, layer_cache.cross_attn)
            layer_cache.audio_mask = mask
            layer_cache.self_attn.reset()

    def logits(self, hidden: mx.array) -> mx.array:
        """Vocabulary logits (..., V), float32, of decoder states (..., d)."""
        return self.decoder.token_embedding.as_linear(hidden).astype(mx.float32)
