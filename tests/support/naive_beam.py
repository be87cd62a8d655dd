"""The naive twin of beam search: tuples of tokens, no cache, all on the host.

It follows the steps of openai-whisper's `BeamSearchDecoder` and `MaximumLikelihoodRanker` word by
word, one clip at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from baldwhisper_mlx.decoding.options import DecodingOptions, Vocabulary
from baldwhisper_mlx.model.whisper import Whisper
from tests.support.naive import Array, logsumexp, masked_logits, penalized_logits

Scored = dict[tuple[int, ...], float]
"""Hypotheses and their log-probabilities."""


def naive_beam_decode(
    model: Whisper,
    vocabulary: Vocabulary,
    mel: mx.array,
    n_frames: int,
    prompt: Sequence[int],
    options: DecodingOptions,
) -> tuple[list[int], float]:
    """Beam search on one clip; tokens and average log-probability."""

    def logits_after(sampled: Sequence[int]) -> Array:
        cache = model.make_cache()
        model.encode(mel[None], [n_frames], cache)
        hidden = model.decoder(mx.array([[*prompt, *sampled]]), cache)
        return np.array(model.logits(hidden[:, -1]), np.float64)[0]

    context = model.config.n_text_ctx
    most = min(
        options.forced_length or options.max_tokens or context // 2, context + 1 - len(prompt)
    )
    return naive_beam_search(logits_after, vocabulary, options, most)


def naive_beam_search(
    logits_after: Callable[[Sequence[int]], Array],
    vocabulary: Vocabulary,
    options: DecodingOptions,
    most: int,
) -> tuple[list[int], float]:
    """Beam search with any function from tokens to the logits (V,) of what follows them."""
    size = options.beam_size
    assert size is not None
    enough = round(size * (options.patience or 1.0))
    beams: Scored = {options.prefix: 0.0}
    finished: Scored = {}
    for _ in range(most):
        beams, ended = _step(beams, logits_after, vocabulary, options, size)
        for sequence in sorted(ended, key=lambda each: ended[each], reverse=True):
            if len(finished) < enough:
                finished[sequence] = ended[sequence]
        if len(finished) >= enough:
            break
    for sequence in sorted(beams, key=lambda each: beams[each], reverse=True):
        if len(finished) < size:
            finished[(*sequence, vocabulary.eot)] = beams[sequence]
    return _ranked(finished, options)


def _step(
    beams: Scored,
    logits_after: Callable[[Sequence[int]], Array],
    vocabulary: Vocabulary,
    options: DecodingOptions,
    size: int,
) -> tuple[Scored, Scored]:
    """The best `size` hypotheses that continue the beams, and those that ended before the last."""
    scores: Scored = {}
    for sequence, before in beams.items():
        penalized = penalized_logits(logits_after(sequence), sequence, options)
        masked = masked_logits(penalized, sequence, vocabulary, options)
        logprobs = masked - logsumexp(masked)
        for token in np.argsort(-logprobs, kind="stable")[: size + 1]:
            if np.isfinite(logprobs[token]):
                scores[(*sequence, int(token))] = before + float(logprobs[token])
    live: Scored = {}
    ended: Scored = {}
    for sequence in sorted(scores, key=lambda each: scores[each], reverse=True):
        if sequence[-1] == vocabulary.eot:
            ended[sequence] = scores[sequence]
        else:
            live[sequence] = scores[sequence]
            if len(live) == size:
                break
    return live, ended


def _ranked(finished: Scored, options: DecodingOptions) -> tuple[list[int], float]:
    best, best_score = None, -np.inf
    for sequence, total in finished.items():
        length = len(sequence) - 1 - len(options.prefix)
        alpha = options.length_penalty
        # Only after a prefix can the end of text be the first token.
        penalty = max(length, 1) if alpha is None else ((5 + length) / 6) ** alpha
        if best is None or total / penalty > best_score:
            best, best_score = (list(sequence[:-1]), total / (length + 1)), total / penalty
    assert best is not None
    return best
