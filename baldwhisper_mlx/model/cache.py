"""Key/value caches, allocated once and written in place.

Keys and values lie head-major, (batch, head, position, head_dim), which is how attention
reads them: a step appends one position and hands out a view, with nothing copied or moved.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import mlx.core as mx


class KVCache:
    """Keys and values of one attention, preallocated for `capacity` positions.

    The buffers are made by the first `update` and kept through `reset`, so one cache serves
    window after window; they are made anew only for another batch size, width or dtype.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.offset = 0
        self._keys: mx.array | None = None
        self._values: mx.array | None = None

    def update(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Appends positions and returns all of them.

        Args:
            keys: (batch, head, n, head_dim).
            values: the same shape and dtype.

        Returns:
            Views of keys and values, (batch, head, offset + n, head_dim).

        Raises:
            ValueError: more positions than the capacity, or another batch size halfway.
        """
        batch, heads, length, width = keys.shape
        end = self.offset + length
        if end > self.capacity:
            raise ValueError(f"cache: position {end} is past the capacity of {self.capacity}")
        shape = (batch, heads, self.capacity, width)
        if self._keys is None or self._keys.shape != shape or self._keys.dtype != keys.dtype:
            if self.offset:
                raise ValueError("cache: shape or dtype changed before reset()")
            self._keys, self._values = mx.zeros(shape, keys.dtype), mx.zeros(shape, keys.dtype)
        assert self._values is not None
        if length == self.capacity:
            # MLX turns an update of the whole array into its strided source, which every
            # product after it would then copy.
            self._keys, self._values = mx.contiguous(keys), mx.contiguous(values)
        else:
            self._keys[:, :, self.offset : end] = keys
            self._values[:, :, self.offset : end] = values
        self.offset = end
        return self.state()

    def fill(self, keys: mx.array, values: mx.array) -> None:
        """Replaces all positions by these, without a copy.

        Shapes are those of `update`, which may be called again only after `reset`.

        Raises:
            ValueError: more positions than the capacity.
        """
        self.offset = keys.shape[2]
        if self.offset > self.capacity:
            raise ValueError(f"cache: {self.offset} positions in a capacity of {self.capacity}")
        self._keys, self._values = keys, values

    def state(self) -> tuple[mx.array, mx.array]:
        """Views of the keys and values written so far, (batch, head, offset, head_dim).

        Raises:
            ValueError: nothing has been written yet.
        """
        if self._keys is None or self._values is None or not self.offset:
            raise ValueError("cache: read before anything was written")
        if self.offset == self._keys.shape[2]:
            return self._keys, self._values
        return self._keys[:, :, : self.offset], self._values[:, :, : self.offset]

    def reset(self, capacity: int = 0) -> None:
        """Forgets every position and keeps the memory, if that has room for `capacity` of them."""
        self.offset = 0
        self.capacity = max(self.capacity, capacity)

    def release(self) -> None:
        """Forgets every position and frees the memory."""
        self.offset, self._keys, self._values = 0, None, None


@dataclass(frozen=True)
class Branches:
    """Where tokens stand that are alternatives for one position of the text.

    The cache holds the tokens of all branches, each once: which of them a branch consists of is up
    to the mask, so nothing is copied when branches are dropped and others fork.
    """

    position: int
    """Of the tokens in the text."""
    ancestors: mx.array
    """(B, 1, L, cached positions + L) bool: the tokens that each of the L attends to."""


@dataclass(frozen=True)
class EncodedAudio:
    """What the decoder attends to for some clips, kept apart from the caches."""

    layers: tuple[tuple[mx.array, mx.array], ...]
    """Keys and values of every layer's cross-attention, (batch, head, positions, head_dim)."""
    mask: mx.array | None
    """As `LayerCache.audio_mask`."""

    def clip(self, index: int) -> EncodedAudio:
        """That of one of the clips, without a copy."""
        rows = slice(index, index + 1)
        layers = tuple((keys[rows], values[rows]) for keys, values in self.layers)
        return EncodedAudio(layers, None if self.mask is None else self.mask[rows])


@dataclass
class LayerCache:
    """The two caches of a decoder layer: its own tokens, and the audio it attends to."""

    self_attn: KVCache
    cross_attn: KVCache
    audio_mask: mx.array | None = field(default=None)
    """(batch, 1, 1, positions) bool, False past a clip's end; None if all clips fill it."""
    queries: list[mx.array] | None = field(default=None)
    """Queries of the attention to the audio, (batch, head, n, head_dim), one per call; None if they
    are not kept. decoding/alignment.py computes from them when each token was spoken."""

    def release(self) -> None:
        """Forgets everything and frees the memory."""
        self.self_attn.release()
        self.cross_attn.release()
        self.audio_mask = self.queries = None
