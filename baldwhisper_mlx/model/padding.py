"""The padding behind a short clip, as constants instead of computation.

Whisper was trained on windows of 30 s, zeros behind the clip included. Encoding the clip alone
takes two things from an untrained checkpoint: the keys and values of the padding, to which the
encoder's real positions attend, and the final states of the padding, from which the decoder sees
that nothing more comes. Both hardly depend on the clip, so averages over a few clips stand in for
them. The construction and what it costs in word errors: docs/short-context.md. Dimensions: N
encoder positions in 30 s, T of a clip, H heads, d width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

SHORTEST = 100
"""Mel frames (1 s) of the shortest window that is encoded before constants; shorter ones, the rest
behind a last timestamp, are not recognized as silence then (docs/log.md)."""
REST = 50
"""Mel frames (0.5 s): what is left of a recording behind the last timestamp of a padded window is
not decoded again if it is shorter."""
ENDING = 10
"""Last positions of 30 s whose states the decoder always attends to: by them it tells silence up to
the end of the window from speech that the end cuts off (docs/log.md)."""
KeysAndValues = tuple[mx.array, mx.array]
"""Of one layer, both (B, H, n, head_dim); constants have a B of 1."""


@dataclass(frozen=True)
class Padding:
    """Constants for one encoder."""

    keys: mx.array
    """(layers, H, n, head_dim): of the positions 0, stride, 2 stride, ..."""
    values: mx.array
    """The same for the values."""
    states: mx.array
    """(N, d): the encoder's output at every position, if the clip has ended before it."""
    stride: int
    tail: int
    """States behind the clip that the decoder attends to, besides the ending."""

    def behind(self, length: int) -> tuple[list[KeysAndValues], mx.array]:
        """What the queries of a clip also attend to.

        Args:
            length: T, at most the last position that has a constant.

        Returns:
            Keys and values of every layer, of the positions from T on, and what to add to the
            scores of all T + n keys (1, 1, 1, T + n): the logarithm of how many positions one key
            stands for, as if it were there that many times.
        """
        first = -(-length // self.stride)
        count = self.keys.shape[2] - first
        bias = np.zeros(length + count, np.float32)
        bias[length:] = math.log((len(self.states) - length) / count)
        keys, values = self.keys[:, None, :, first:], self.values[:, None, :, first:]
        pairs = [(keys[layer], values[layer]) for layer in range(len(keys))]
        return pairs, mx.array(bias)[None, None, None].astype(self.keys.dtype)

    def counts(self, length: int) -> tuple[int, int]:
        """How many constant keys and final states stand behind a clip of T positions."""
        return self.keys.shape[2] - -(-length // self.stride), len(self._tail_of(length))

    def with_tail(self, states: mx.array) -> mx.array:
        """Encoder states (B, T, d), with constant ones behind them: the tail and the ending."""
        batch, length, _ = states.shape
        tail = self._tail_of(length)
        return mx.concatenate([states, mx.broadcast_to(tail, (batch, *tail.shape))], axis=1)

    def _tail_of(self, length: int) -> mx.array:
        """States (n, d) of the positions from T on, and of the last ones of 30 s."""
        end = len(self.states)
        tail_end = length + self.tail
        ending = self.states[max(tail_end, end - ENDING) :]
        return mx.concatenate([self.states[length:tail_end], ending])


def extended(pair: KeysAndValues, constants: KeysAndValues) -> KeysAndValues:
    """Keys and values (B, H, T, head_dim), with the constants behind every clip's."""
    keys, values = (
        mx.concatenate([x, mx.broadcast_to(more, (len(x), *more.shape[1:]))], axis=2)
        for x, more in zip(pair, constants, strict=True)
    )
    return keys, values
