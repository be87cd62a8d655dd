"""Rules against repetition that faster-whisper's users know, on the device.

They are those of CTranslate2 (`src/decoding_utils.cc`), and look at all tokens of the window's
output so far, timestamps and a prefix included, not at the prompt. They change the logits before
the masks of logit_rules.py, so what those suppress stays suppressed. As with loop_guard.py, what is
forbidden gets a finite logit, because sums of logits tell whether the model is damaged.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from baldwhisper_mlx.decoding.loop_guard import FORBIDDEN, LoopGuard
from baldwhisper_mlx.decoding.options import DecodingOptions, Vocabulary

Processor = Callable[[mx.array, list[mx.array]], mx.array]
"""From logits (B, V) of the next token and all tokens before it, (B, 1) each, to logits (B, V)."""


def processors(options: DecodingOptions, vocabulary: Vocabulary) -> list[Processor]:
    """What changes the logits of a decoding before its masks, in this order."""
    result: list[Processor] = []
    if options.repetition_penalty != 1:
        result.append(RepetitionPenalty(options.repetition_penalty))
    if options.no_repeat_ngram_size:
        result.append(NoRepeatNgram(options.no_repeat_ngram_size, vocabulary.eot))
    if options.guard_loops:
        result.append(LoopGuard(vocabulary.eot, vocabulary.timestamp_begin))
    return result


class RepetitionPenalty:
    """Makes every token of the output so far less probable, as often as it occurs.

    Its logit is divided by the penalty if it is positive, and else multiplied by it (Keskar et
    al., arXiv 1909.05858, in the form that Hugging Face and CTranslate2 use).

    Args:
        penalty: above 1 against repetition; 1 changes nothing.
    """

    def __init__(self, penalty: float) -> None:
        self.penalty = penalty

    def __call__(self, logits: mx.array, tokens: list[mx.array]) -> mx.array:
        """Logits (B, V) after the penalty; arguments as for `Processor`."""
        if not tokens:
            return logits
        ids = mx.concatenate(tokens, axis=1)
        found = mx.take_along_axis(logits, ids, axis=1)
        # A token that occurs several times is written several times, always with the same value.
        penalized = mx.where(found < 0, found * self.penalty, found / self.penalty)
        return mx.put_along_axis(logits, ids, penalized, axis=1)


class NoRepeatNgram:
    """Forbids every token that would complete an n-gram that the output has already.

    Args:
        size: tokens of the n-grams, at least 1; with 1 no token comes twice.
        eot: id of <|endoftext|>, which is never forbidden.
    """

    def __init__(self, size: int, eot: int) -> None:
        self.size, self.eot = size, eot

    def __call__(self, logits: mx.array, tokens: list[mx.array]) -> mx.array:
        """Logits (B, V) without such tokens; arguments as for `Processor`."""
        n_before = self.size - 1
        n_ngrams = len(tokens) - n_before
        if n_ngrams < 1:
            return logits
        history = mx.concatenate(tokens, axis=1)
        # (B, n_ngrams): the token that ended each n-gram of the output.
        following = history[:, n_before:]
        repeated = following != self.eot  # rows that have ended are filled up with it
        if n_before:
            # (n_ngrams, n_before): places of the tokens before it, compared with the newest ones.
            places = mx.arange(n_ngrams)[:, None] + mx.arange(n_before)[None]
            newest = history[:, None, -n_before:]
            repeated = repeated & mx.all(history[:, places] == newest, axis=-1)
        # Scattering needs an id in every place: the others get <|endoftext|> with its own logit.
        ids = mx.where(repeated, following, self.eot)
        kept = mx.take_along_axis(logits, ids, axis=1)
        return mx.put_along_axis(logits, ids, mx.where(repeated, FORBIDDEN, kept), axis=1)
