"""The loops that make tokens: greedy decoding, sampling and beam search.

The host submits step t + 1 before the device has finished step t: tokens, rules and scores stay on
the device, and the host checks only every `CHECK_EVERY` steps whether all clips have ended.
tests/support/naive.py and naive_beam.py decode without a cache and read every token back; the tests
require the same tokens.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from baldwhisper_mlx.decoding.beam import BeamSearch, Record
from baldwhisper_mlx.decoding.logit_rules import LogitRules, State
from baldwhisper_mlx.decoding.options import DecodingOptions, Vocabulary
from baldwhisper_mlx.decoding.penalties import processors
from baldwhisper_mlx.decoding.result import Hypothesis, most_probable, sampled
from baldwhisper_mlx.decoding.token_tree import TokenTree
from baldwhisper_mlx.model.cache import LayerCache
from baldwhisper_mlx.model.whisper import Whisper

CHECK_EVERY = 4
"""Steps between two checks of whether every row has ended; each makes the host wait once."""
MOST_RULES = 32
"""Sets of options whose masks are kept, a megabyte each."""


class Generator:
    """Makes the tokens that follow prompts in the caches.

    Args:
        model: to be run.
        cache: of every layer; holds the prompts of the clips when tokens are made.
        vocabulary: of the model.
    """

    def __init__(self, model: Whisper, cache: Sequence[LayerCache], vocabulary: Vocabulary) -> None:
        self._model, self._cache, self._vocabulary = model, cache, vocabulary
        self._rules: dict[DecodingOptions, LogitRules] = {}
        self._searches: dict[DecodingOptions, BeamSearch] = {}

    def __call__(
        self, logits: mx.array, n_tokens: int, options: DecodingOptions
    ) -> list[Hypothesis]:
        """Chooses tokens until all clips have ended, or there are `n_tokens`.

        Args:
            logits: of the last position of the prompts (B, V).
            n_tokens: most tokens.
            options: see there.

        Returns:
            The most probable hypothesis of each clip.

        Raises:
            FloatingPointError: the model produced NaN or infinite logits.
        """
        run = self._search if options.beam_size else self._sample
        return run(logits, n_tokens, options)

    def _sample(
        self, logits: mx.array, n_tokens: int, options: DecodingOptions
    ) -> list[Hypothesis]:
        """Tokens that are chosen for every row by itself, with a row for each of `best_of`."""
        batch, width = len(logits), options.hypotheses
        tree = TokenTree(self._model, self._cache, batch, width)
        if width > 1:
            logits = mx.repeat(logits, width, axis=0)
        rules, changes = self._rules_for(options), processors(options, self._vocabulary)
        tokens = _prefix_of(options, len(logits))
        for change in changes:  # a prefix counts as output
            logits = change(logits, tokens)
        keys = mx.random.split(mx.random.key(options.seed), n_tokens)
        state = rules.first(logits, keys[0])
        tokens.append(state.token)
        sums = [state.sum_logprob]
        for step in range(1, n_tokens):
            # Starts the device on the last step; the next one is built meanwhile.
            mx.async_eval(state)
            logits = tree.feed(state.token)
            for change in changes:
                logits = change(logits, tokens)
            previous, state = state, rules.next(logits, state, keys[step])
            tokens.append(state.token)
            sums.append(state.sum_logprob)
            if step % CHECK_EVERY == 0 and _ended(previous, state):
                break
        require_finite(state.checksum.item())
        hypotheses = sampled(
            np.array(mx.concatenate(tokens[len(options.prefix) :], axis=1)),
            np.array(mx.concatenate(sums, axis=1)),
            self._vocabulary.eot,
            width,
        )
        return [most_probable(each, options.length_penalty) for each in hypotheses]

    def _search(
        self, logits: mx.array, n_tokens: int, options: DecodingOptions
    ) -> list[Hypothesis]:
        """Beam search; see beam.py."""
        rules, changes = self._rules_for(options), processors(options, self._vocabulary)
        if options not in self._searches:
            self._searches[options] = BeamSearch(rules)
        search, batch = self._searches[options], len(logits)
        tree = TokenTree(self._model, self._cache, batch, search.width)
        prefix = _prefix_of(options, batch)
        for change in changes:
            logits = change(logits, prefix)
        record = Record(search, prefix, with_history=bool(changes))
        beams, sources = search.first(logits, rules.start(batch)), None
        record.add(beams)
        for step in range(1, n_tokens):
            mx.async_eval(beams)
            logits = tree.feed(beams.state.token, sources)
            for change in changes:
                logits = change(logits, record.history())
            previous, beams = beams, search.next(logits, beams)
            sources = record.add(beams)
            if step % CHECK_EVERY == 0 and _ended(previous.state, beams.state):
                break
        require_finite(beams.state.checksum.item())
        return record.chosen()

    def _rules_for(self, options: DecodingOptions) -> LogitRules:
        if not options.timestamps:  # then only whether there is a prefix matters to the rules
            options = dataclasses.replace(options, prefix=options.prefix and (0,), max_tokens=None)
        # Rules are kept: making them builds masks over the vocabulary, and compiles on a GPU.
        if options not in self._rules:
            if len(self._rules) >= MOST_RULES:  # a server's requests may all have other options
                self._rules.clear()
                self._searches.clear()
            self._rules[options] = LogitRules(self._vocabulary, options)
        return self._rules[options]


def _prefix_of(options: DecodingOptions, rows: int) -> list[mx.array]:
    """The prefix as tokens (rows, 1) of an output."""
    return [mx.full((rows, 1), token, mx.int32) for token in options.prefix]


def _ended(previous: State, state: State) -> bool:
    """Whether every clip had ended one step before `state`.

    The host waits for that step only, and submits the next one before: the device is never idle.
    """
    mx.async_eval(state)
    require_finite(previous.checksum.item())
    return bool(previous.all_finished.item())


def require_finite(checksum: object) -> None:
    """Raises FloatingPointError unless the sum of all logits so far is a finite number."""
    if not isinstance(checksum, float) or not math.isfinite(checksum):
        raise FloatingPointError(
            "the model produced NaN or infinite logits: its weights are damaged, or they "
            'overflow in their dtype (try load_model(..., dtype="float32"))'
        )
