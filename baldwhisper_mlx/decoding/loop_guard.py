"""A logit rule that keeps an output from repeating one phrase without end.

Attempts at higher temperatures mostly end a loop (repetition.py), but not always; with the guard,
the token that would continue one cannot be chosen. It works on the device: the host never reads a
token.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from baldwhisper_mlx.decoding.repetition import FEWEST, LONGEST_PERIOD

_WINDOW = 2 * LONGEST_PERIOD
"""Tokens that are looked at: the longest phrase twice."""
FORBIDDEN = -1e9
"""Logit of a forbidden token: finite, because sums of logits tell whether the model is damaged."""


class LoopGuard:
    """Forbids the token that would continue a loop; all timestamps count as equal.

    Args:
        eot: id of <|endoftext|>; ids from there on are no text and never forbidden.
        timestamp_begin: id of <|0.00|>.
    """

    def __init__(self, eot: int, timestamp_begin: int) -> None:
        self.eot, self.timestamp_begin = eot, timestamp_begin
        # Indices into the last _WINDOW tokens, of which the newest is at _WINDOW - 1. Row p - 1 of
        # each table belongs to period p, column b - 1 to the token b places back.
        periods = np.arange(1, LONGEST_PERIOD + 1)[:, None]
        back = np.arange(1, LONGEST_PERIOD + 1)[None]
        self._later = mx.array(np.broadcast_to(_WINDOW - back, (LONGEST_PERIOD, back.size)))
        self._earlier = mx.array(_WINDOW - back - periods)
        # A period is a loop if its whole phrase, and no fewer than FEWEST tokens, are repeated;
        # tokens further back do not matter.
        self._ignored = mx.array(back > np.maximum(periods, FEWEST))
        # If period p continues, the next token is the one p places back.
        self._next = mx.array(_WINDOW - periods[:, 0])

    def __call__(self, logits: mx.array, tokens: list[mx.array]) -> mx.array:
        """Logits (B, V) without the tokens that would continue a loop.

        Args:
            logits: (B, V), of the next token.
            tokens: all before it, (B, 1) each, int32.
        """
        # No loop is shorter than FEWEST tokens and the phrase they repeat.
        if len(tokens) <= FEWEST:
            return logits
        # (B, _WINDOW): one shape for all steps, filled up with an id that no token has.
        recent = mx.concatenate(tokens[-_WINDOW:], axis=1)
        recent = mx.pad(recent, [(0, 0), (_WINDOW - recent.shape[1], 0)], constant_values=-1)
        # A loop's timestamps differ from turn to turn, so all become one id.
        comparable = mx.minimum(recent, self.timestamp_begin)
        # (B, period, back): whether the token so far back equals the one a period before it.
        equal = comparable[:, self._later] == comparable[:, self._earlier]
        # (B, period): the token that would continue the period. Only text is forbidden: timestamps
        # and the end of text have rules of their own, which have to be left a choice.
        following = recent[:, self._next]
        looping = mx.all(equal | self._ignored, axis=-1) & (following < self.eot)
        # Scattering needs an id in every place: where nothing loops it is <|endoftext|>, which
        # gets its own logit back.
        ids = mx.where(looping, following, self.eot)
        kept = mx.take_along_axis(logits, ids, axis=1)
        return mx.put_along_axis(logits, ids, mx.where(looping, FORBIDDEN, kept), axis=1)
