"""Outputs that repeat themselves without end: how one is seen, and a guard that forbids it.

Whisper now and then writes one phrase over and over, and is ever surer of it, so its probability
does not tell. `is_loop` does, of a finished output. Attempts at higher temperatures mostly end a
loop, but not always; with the guard, the token that would go on with one cannot be chosen. It works
on the device: the host never sees a token.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from baldwhisper_mlx.repeats import repeats

LONGEST_PERIOD = 60
"""Tokens of the longest phrase whose repetition is seen."""
FEWEST = 12
"""The guard forbids to go on when a phrase, and no less than so many tokens, have come again."""
FEWEST_OF_LOOP = 16
"""A loop is a phrase that comes again twice, and no less than so many tokens of it."""

_WINDOW = 2 * LONGEST_PERIOD
_FORBIDDEN = -1e9  # finite, because sums of logits tell whether the model is damaged


def is_loop(tokens: Sequence[int], timestamp_begin: int, before: Sequence[int] = ()) -> bool:
    """Whether a text is caught in a phrase that it repeats, or that the text before it began.

    Args:
        tokens: ids of the text; timestamps among them do not count.
        timestamp_begin: id of <|0.00|>.
        before: ids of the text that the model was told came before.

    Example:
        >>> said = list(range(10))
        >>> is_loop(said * 2, 50364), is_loop(said * 3, 50364), is_loop(said, 50364, said * 2)
        (False, True, True)
    """
    told = [token for token in before if token < timestamp_begin][-2 * LONGEST_PERIOD :]
    ids = np.array(told + [token for token in tokens if token < timestamp_begin])
    for period in range(1, min(LONGEST_PERIOD, len(ids) - 1) + 1):
        ends, runs = repeats(ids, period)
        new = np.minimum(runs, ends - len(told))
        if np.any((runs >= max(2 * period, FEWEST_OF_LOOP)) & (new >= min(period, FEWEST))):
            return True
    return False


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
