"""Outputs that repeat themselves without end: how one is seen, and a guard that forbids it.

Whisper now and then writes one phrase over and over, and is ever surer of it, so its probability
does not tell. `is_loop` does, of a finished output. Attempts at higher temperatures mostly end a
loop, but not always; with the guard, the token that would go on with one cannot be chosen. It works
on the device: the host never sees a token.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from baldwhisper_mlx.decoding.repetition import FEWEST, LONGEST_PERIOD

_WINDOW = 2 * LONGEST_PERIOD
_FORBIDDEN = -1e9  # finite, because sums of logits tell whether the model is damaged


class LoopGuard:
    """Forbids the token that would go on with a loop; timestamps count as equal.

    Args:
        eot: id of <|endoftext|>; what is above is no text and never forbidden.
        timestamp_begin: id of <|0.00|>.
    """

    def __init__(self, eot: int, timestamp_begin: int) -> None:
        self.eot, self.timestamp_begin = eot, timestamp_begin
        periods = np.arange(1, LONGEST_PERIOD + 1)[:, None]
        back = np.arange(1, LONGEST_PERIOD + 1)[None]
        self._later = mx.array(np.broadcast_to(_WINDOW - back, (LONGEST_PERIOD, back.size)))
        self._earlier = mx.array(_WINDOW - back - periods)
        self._ignored = mx.array(back > np.maximum(periods, FEWEST))
        self._next = mx.array(_WINDOW - periods[:, 0])

    def __call__(self, logits: mx.array, tokens: list[mx.array]) -> mx.array:
        """Logits (B, V) without the tokens that would go on with a loop.

        Args:
            logits: of the next token.
            tokens: all before it, (B, 1) each, int32.
        """
        if len(tokens) <= FEWEST:
            return logits
        recent = mx.concatenate(tokens[-_WINDOW:], axis=1)
        recent = mx.pad(recent, [(0, 0), (_WINDOW - recent.shape[1], 0)], constant_values=-1)
        same = mx.minimum(recent, self.timestamp_begin)
        equal = same[:, self._later] == same[:, self._earlier]
        following = recent[:, self._next]
        looping = mx.all(equal | self._ignored, axis=-1) & (following < self.eot)
        ids = mx.where(looping, following, self.eot)
        kept = mx.take_along_axis(logits, ids, axis=1)
        return mx.put_along_axis(logits, ids, mx.where(looping, _FORBIDDEN, kept), axis=1)
