"""The naive twin of the decode loop: no cache, no state, every token read back to the host.

It follows the definitions word by word, one clip at a time, with Python lists and numpy, and
says what the fast path must say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from baldwhisper_mlx.decoding.options import DecodingOptions, Vocabulary
from baldwhisper_mlx.model.whisper import Whisper

Array = np.ndarray[Any, np.dtype[np.float64]]

SMALL = Vocabulary(
    n_vocab=64,
    eot=30,
    sot=31,
    no_speech=38,
    no_timestamps=39,
    timestamp_begin=40,
    suppress=(3, 7, 31, 38),
    suppress_first=(5, 30),
    control=(31, 38),
)
"""Of 64 ids, 24 of them timestamps."""


def masked_logits(
    logits: Array, sampled: Sequence[int], v: Vocabulary, options: DecodingOptions
) -> Array:
    """Logits (V,) with -inf wherever a rule forbids the token that would follow `sampled`."""
    out = logits.astype(np.float64).copy()
    begin, first = v.timestamp_begin, not sampled
    out[list(v.control)] = -np.inf
    for token in options.suppress_tokens:
        out[list(v.suppress) if token == -1 else token] = -np.inf
    if options.forced_length is not None:
        out[v.eot] = -np.inf
    if first:
        out[list(v.suppress_first)] = -np.inf
    if not options.timestamps:
        return out
    out[v.no_timestamps] = -np.inf
    if first:
        out[:begin] = -np.inf
        if options.max_initial_timestamp is not None:
            out[begin + options.max_initial_timestamp + 1 :] = -np.inf
    else:
        last = sampled[-1] >= begin
        before = len(sampled) < 2 or sampled[-2] >= begin
        if last and before:
            out[begin:] = -np.inf
        if last and not before:
            out[: v.eot] = -np.inf
        stamps = [token for token in sampled if token >= begin]
        if stamps:
            out[begin : stamps[-1] + (0 if last and not before else 1)] = -np.inf
    mass = logsumexp(out[begin:])
    if mass > out[:begin].max():
        out[:begin] = -np.inf
    return out


def penalized_logits(logits: Array, output: Sequence[int], options: DecodingOptions) -> Array:
    """Logits (V,) of the token after an output, by CTranslate2's two rules against repetition."""
    out = logits.copy()
    for token in set(output):
        if out[token] < 0:
            out[token] *= options.repetition_penalty
        else:
            out[token] /= options.repetition_penalty
    size = options.no_repeat_ngram_size
    for start in range(len(output) - size + 1 if size else 0):
        if list(output[start : start + size - 1]) == list(output[len(output) - size + 1 :]):
            out[output[start + size - 1]] = -1e9
    return out


def logsumexp(x: Array) -> float:
    top = x.max()
    return float(top + np.log(np.exp(x - top).sum())) if np.isfinite(top) else -np.inf


def naive_decode(
    model: Whisper,
    vocabulary: Vocabulary,
    mel: mx.array,
    n_frames: int,
    prompt: Sequence[int],
    options: DecodingOptions,
) -> tuple[list[int], float, float]:
    """Greedy decoding of one clip; tokens, average log-probability, no-speech probability."""
    sampled: list[int] = list(options.prefix)
    total = no_speech = 0.0
    limit = options.forced_length or options.max_tokens or model.config.n_text_ctx // 2
    n_given = len(sampled)
    while len(sampled) - n_given < limit and len(prompt) + len(sampled) <= model.config.n_text_ctx:
        cache = model.make_cache()
        model.encode(mel[None], [n_frames], cache)
        tokens = mx.array([[*prompt, *sampled]])
        logits = np.array(model.logits(model.decoder(tokens, cache)), np.float64)[0]
        if len(sampled) == n_given:
            at_sot = logits[len(prompt) - 1 - list(prompt)[::-1].index(vocabulary.sot)]
            no_speech = float(np.exp(at_sot[vocabulary.no_speech] - logsumexp(at_sot)))
        penalized = penalized_logits(logits[-1], sampled, options)
        masked = masked_logits(penalized, sampled, vocabulary, options)
        token = int(masked.argmax())
        total += float(masked[token]) - logsumexp(masked)
        if token == vocabulary.eot:
            break
        sampled.append(token)
    return sampled, total / (len(sampled) - n_given + 1), no_speech


def naive_logprobs(
    model: Whisper,
    vocabulary: Vocabulary,
    mel: mx.array,
    n_frames: int,
    prompt: Sequence[int],
    tokens: Sequence[int],
    options: DecodingOptions,
) -> list[float]:
    """Log-probability of each token of an output, from one pass over all of them.

    Those of the prefix are not chosen, so that no rule applies to them.
    """
    cache = model.make_cache()
    model.encode(mel[None], [n_frames], cache)
    sequence = mx.array([[*prompt, *tokens]])
    logits = np.array(model.logits(model.decoder(sequence, cache)), np.float64)[0]
    found = []
    for place, token in enumerate(tokens):
        row = logits[len(prompt) + place - 1]
        if place >= len(options.prefix):
            penalized = penalized_logits(row, tokens[:place], options)
            row = masked_logits(penalized, tokens[:place], vocabulary, options)
        found.append(float(row[token]) - logsumexp(row))
    return found
