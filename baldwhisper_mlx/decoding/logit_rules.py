"""OpenAI's rules for the next token, applied to the logits on the device.

The rules are those of the reference code of Radford et al., arXiv 2212.04356: some tokens are
suppressed; an output does not begin blank; timestamps come in pairs and never decrease; the first
one is early; and a timestamp is chosen wherever their joint probability exceeds that of every text
token. The reference builds masks over the vocabulary on the host at every step. Here two
comparisons with bounds, kept for each row in a small state, do the same, and the host never reads a
token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from baldwhisper_mlx.decoding.options import DecodingOptions, Vocabulary
from baldwhisper_mlx.decoding.suppression import suppressed_ids
from baldwhisper_mlx.ops.functions import logsumexp


class State(NamedTuple):
    """What one step passes to the next: arrays on the device, (B, 1) unless noted otherwise."""

    token: mx.array
    """Last chosen id, int32."""
    is_timestamp: mx.array
    """Whether that is a timestamp."""
    was_timestamp: mx.array
    """Whether the one before it is; True where there is none."""
    last_timestamp: mx.array
    """The latest timestamp, int32; the id below the first one where there is none."""
    finished: mx.array
    """Whether end of text has been chosen."""
    sum_logprob: mx.array
    """Sum of the log-probabilities (nats) of all tokens, with the end of text, float32."""
    all_finished: mx.array
    """Whether every row has finished, () bool."""
    checksum: mx.array
    """Sum of all raw logits so far, () float32: NaN or infinite if any of them was."""


class LogitRules:
    """The rules for one set of options.

    `first` chooses the token after the prompt, `next` each one after that.
    """

    def __init__(self, vocabulary: Vocabulary, options: DecodingOptions) -> None:
        v = self.vocabulary = vocabulary
        self.options = options
        suppress = suppressed_ids(options.suppress_tokens, v)
        if options.timestamps:  # <|notimestamps|> belongs to prompts
            suppress.add(v.no_timestamps)
        if options.forced_length is not None:
            suppress.add(v.eot)
        # With timestamps, the first token is one, and not past `max_initial_timestamp`.
        first = suppress | set(v.suppress_first)
        if options.timestamps:
            latest = options.max_initial_timestamp
            first |= set(range(v.timestamp_begin))
            if latest is not None:
                first |= set(range(v.timestamp_begin + latest + 1, v.n_vocab))
        self._suppress = _additive_mask(v.n_vocab, suppress)
        self._suppress_first = _additive_mask(v.n_vocab, first)
        self._ids = mx.arange(v.n_vocab)[None]
        mx.eval(self._ids)  # or the compiled rules would make it again at every step
        # Fusing saves a third of the kernel launches on a GPU and nothing on a CPU, where it
        # would also start a C++ compiler (docs/log.md).
        on_gpu = mx.default_device().type == mx.DeviceType.gpu
        self.next: Callable[[mx.array, State, mx.array], State] = (
            mx.compile(self._next) if on_gpu else self._next
        )

    def start(self, batch: int) -> State:
        """The state of `batch` rows before the first token: after the prompt and a prefix."""
        begin, prefix = self.vocabulary.timestamp_begin, self.options.prefix
        # As in the reference, a lone first timestamp counts as a pair: text must follow it. So what
        # precedes the output counts as a timestamp, but none that a later one has to exceed.
        before, last = [begin, begin, *prefix][-2:]
        latest = next((token for token in reversed(prefix) if token >= begin), begin - 1)
        return State(
            token=mx.full((batch, 1), last, mx.int32),
            is_timestamp=mx.full((batch, 1), last >= begin),
            was_timestamp=mx.full((batch, 1), before >= begin),
            last_timestamp=mx.full((batch, 1), latest, mx.int32),
            finished=mx.zeros((batch, 1), mx.bool_),
            sum_logprob=mx.zeros((batch, 1)),
            all_finished=mx.array(False),
            checksum=mx.array(0.0),
        )

    def first(self, logits: mx.array, key: mx.array) -> State:
        """Chooses the first token after the prompt, and after the prefix if there is one.

        Args:
            logits: (B, V) float32, of the prompt's last position.
            key: of the random numbers, for temperatures above 0.
        """
        state = self.start(len(logits))
        return self._choose(logits, self._masked_first(logits, state), state, key)

    def _next(self, logits: mx.array, state: State, key: mx.array) -> State:
        """Chooses a token that follows `state`; arguments as in `first`."""
        return self._choose(logits, self._masked(logits, state), state, key)

    def scores(
        self, logits: mx.array, state: State, *, first: bool = False
    ) -> tuple[mx.array, mx.array]:
        """What a search ranks: the logits of all tokens that the rules allow.

        Args:
            logits: (B, V) float32.
            state: of the rows (B).
            first: whether the first token is searched.

        Returns:
            Logits (B, V), -inf where a token is forbidden, and their log-sum-exp (B, 1): the
            difference is the log-probability, as the reference computes it.
        """
        masked = self._masked_first(logits, state) if first else self._masked(logits, state)
        if not self.options.timestamps:
            return masked, logsumexp(masked)
        forced, _, mass = _mass(*self._parts(masked))
        return self._without_text(masked, forced), mass

    def _parts(self, masked: mx.array) -> tuple[mx.array, mx.array]:
        """The logits (B, V) of text, and those of timestamps."""
        begin = self.vocabulary.timestamp_begin
        return masked[:, :begin], masked[:, begin:]

    def _without_text(self, masked: mx.array, forced: mx.array) -> mx.array:
        """Logits (B, V) without text where a timestamp is forced (B, 1)."""
        return mx.where(forced & (self._ids < self.vocabulary.timestamp_begin), -mx.inf, masked)

    def _masked(self, logits: mx.array, state: State) -> mx.array:
        """Logits (B, V) without the tokens that may not follow `state`."""
        masked = logits + self._suppress
        if self.options.timestamps:
            masked = mx.where(self._forbidden(state), -mx.inf, masked)
        return masked

    def _masked_first(self, logits: mx.array, state: State) -> mx.array:
        """Logits (B, V) without the tokens that may not be the first, after `start`."""
        if self.options.prefix:
            return self._masked(logits, state)
        return logits + self._suppress_first

    def _forbidden(self, state: State) -> mx.array:
        """Ids that the rules about pairs and order of timestamps forbid, (B, V) bool.

        Those are the ids below a bound among the text tokens, and below another one among the
        timestamps.
        """
        v = self.vocabulary
        # After "<t> <t'>" text must come; after "text <t>" it must not.
        pair = state.is_timestamp & state.was_timestamp
        half = state.is_timestamp & ~state.was_timestamp
        # After half a pair: the end of text, or a timestamp that is not earlier.
        text_from = mx.where(half, v.eot, 0)
        # A segment takes time, so the timestamp that ends it is later than the one that began it.
        earliest = mx.where(half, state.last_timestamp, state.last_timestamp + 1)
        timestamps_from = mx.where(pair, v.n_vocab, earliest)
        ids = self._ids
        return (ids < text_from) | ((ids >= v.timestamp_begin) & (ids < timestamps_from))

    def _choose(self, raw: mx.array, masked: mx.array, state: State, key: mx.array) -> State:
        """The state after choosing by the masked logits (B, V); the raw ones are for the sum."""
        if self.options.timestamps:
            token, logprob = self._pick_by_mass(masked, key)
        else:
            token, logprob = self._pick(masked, key)
        # Rows that have ended are decoded on with the others, and ignored.
        token = mx.where(state.finished, self.vocabulary.eot, token.astype(mx.int32))
        is_timestamp = token >= self.vocabulary.timestamp_begin
        finished = token == self.vocabulary.eot
        return State(
            token=token,
            is_timestamp=is_timestamp,
            was_timestamp=state.is_timestamp,
            last_timestamp=mx.where(is_timestamp, token, state.last_timestamp),
            finished=finished,
            sum_logprob=state.sum_logprob + mx.where(state.finished, 0.0, logprob),
            all_finished=mx.all(finished),
            checksum=state.checksum + mx.sum(raw),
        )

    def _pick(self, masked: mx.array, key: mx.array) -> tuple[mx.array, mx.array]:
        """Token and its log-probability, (B, 1) each, from masked logits (B, V)."""
        if self.options.temperature:
            token = _sample(masked, self.options.temperature, key)
            score = mx.take_along_axis(masked, token, axis=-1)
        else:
            token = mx.argmax(masked, axis=-1, keepdims=True)
            score = mx.max(masked, axis=-1, keepdims=True)
        return token, score - logsumexp(masked)

    def _pick_by_mass(self, masked: mx.array, key: mx.array) -> tuple[mx.array, mx.array]:
        """As `_pick`, with a timestamp where one is forced; see `_mass`."""
        text, timestamps = self._parts(masked)
        forced, text_score, mass = _mass(text, timestamps)
        if self.options.temperature:
            allowed = self._without_text(masked, forced)
            token = _sample(allowed, self.options.temperature, key)
            return token, mx.take_along_axis(allowed, token, axis=-1) - mass
        # A timestamp that is not forced never wins: its own probability is part of the mass that
        # the best text token exceeds.
        begin = self.vocabulary.timestamp_begin
        timestamp = mx.argmax(timestamps, axis=-1, keepdims=True) + begin
        token = mx.where(forced, timestamp, mx.argmax(text, axis=-1, keepdims=True))
        score = mx.where(forced, mx.max(timestamps, axis=-1, keepdims=True), text_score)
        return token, score - mass


def _mass(text: mx.array, timestamps: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """Whether a timestamp is forced, the logit of the best text token, and the mass, (B, 1) each.

    A timestamp is forced where the joint probability of all exceeds that of any text token. The
    mass is the log-sum-exp of what may be chosen. Text and timestamps are reduced apart, so the
    rule costs no second pass over V.
    """
    text_score = mx.max(text, axis=-1, keepdims=True)
    timestamp_mass = logsumexp(timestamps)
    forced = timestamp_mass > text_score
    # The probability of a forced timestamp is that among timestamps, as in the reference.
    mass = mx.logaddexp(logsumexp(text), timestamp_mass)
    return forced, text_score, mx.where(forced, timestamp_mass, mass)


def _additive_mask(n_vocab: int, ids: Iterable[int]) -> mx.array:
    """(1, V) float32: -inf at the ids, 0 elsewhere."""
    mask = np.zeros((1, n_vocab), np.float32)
    mask[0, list(ids)] = -np.inf
    return mx.array(mask)


def _sample(logits: mx.array, temperature: float, key: mx.array) -> mx.array:
    """Ids (B, 1) drawn from the softmax of logits (B, V) over the temperature."""
    return mx.random.categorical(logits / temperature, axis=-1, key=key)[:, None]
