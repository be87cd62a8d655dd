"""Which token comes next: OpenAI's rules over the logits, as small state on the device.

The rules are those of the reference code of Radford et al., arXiv 2212.04356: suppressed
tokens, no blank output, timestamps in pairs, never decreasing, an early first one, and a
timestamp wherever their joint probability beats every text token. The reference builds
vocabulary-wide masks on the host at every step; here two comparisons against per-row bounds
do the same, and the host never sees a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from baldwhisper_mlx.ops.functions import logsumexp


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The token ids that decoding needs to know; all else in the vocabulary is text to it."""

    n_vocab: int
    eot: int
    sot: int
    no_speech: int
    no_timestamps: int
    timestamp_begin: int
    suppress: tuple[int, ...]
    """Never sampled."""
    suppress_first: tuple[int, ...]
    """Not sampled as the first token (blank output)."""


@dataclass(frozen=True, kw_only=True)
class DecodingOptions:
    """How one window is decoded.

    Raises:
        ValueError: a negative temperature or length.
    """

    temperature: float = 0.0
    """0 takes the most likely token; above, tokens are sampled."""
    timestamps: bool = True
    """Apply the timestamp rules; the prompt must then not end with <|notimestamps|>."""
    max_initial_timestamp: int | None = 50
    """Latest first timestamp, in steps of 20 ms; None for no limit."""
    max_tokens: int | None = None
    """Longest output; default half the text context. The text context limits it in any case."""
    forced_length: int | None = None
    """For benchmarks: exactly so many tokens, never ending early."""
    seed: int = 0
    """Of the sampling."""
    guard_loops: bool = False
    """Forbid tokens that would go on with a loop; see loops.py."""

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be 0 or more, not {self.temperature}")
        for length in (self.max_tokens, self.forced_length):
            if length is not None and length < 1:
                raise ValueError(f"the number of tokens must be at least 1, not {length}")


class State(NamedTuple):
    """What one step hands to the next: arrays on the device, (B, 1) unless said otherwise."""

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
    """Of all tokens up to and with end of text, float32."""
    all_finished: mx.array
    """() bool."""
    checksum: mx.array
    """() float32, sum of all raw logits so far: finite exactly if every one of them was."""


class LogitRules:
    """The rules for one set of options: `first` token after the prompt, then `next` ones."""

    def __init__(self, vocabulary: Vocabulary, options: DecodingOptions) -> None:
        v = self.vocabulary = vocabulary
        self.options = options
        suppress = set(v.suppress)
        if options.timestamps:
            suppress.add(v.no_timestamps)
        if options.forced_length is not None:
            suppress.add(v.eot)
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

    def first(self, logits: mx.array, key: mx.array) -> State:
        """Chooses the first token.

        Args:
            logits: (B, V) float32, of the prompt's last position.
            key: of the random generator, for temperatures above 0.
        """
        batch = logits.shape[0]
        no = mx.zeros((batch, 1), mx.bool_)
        before = State(
            token=mx.zeros((batch, 1), mx.int32),
            is_timestamp=mx.logical_not(no),
            was_timestamp=no,
            last_timestamp=mx.full((batch, 1), self.vocabulary.timestamp_begin - 1, mx.int32),
            finished=no,
            sum_logprob=mx.zeros((batch, 1)),
            all_finished=mx.array(False),
            checksum=mx.array(0.0),
        )
        return self._choose(logits, logits + self._suppress_first, before, key)

    def _next(self, logits: mx.array, state: State, key: mx.array) -> State:
        """Chooses a token that follows `state`; arguments as in `first`."""
        masked = logits + self._suppress
        if self.options.timestamps:
            masked = mx.where(self._forbidden(state), -mx.inf, masked)
        return self._choose(logits, masked, state, key)

    def _forbidden(self, state: State) -> mx.array:
        """Pairs and monotonicity, (B, V) bool: ids below a bound, in text and in timestamps."""
        v = self.vocabulary
        opened = state.is_timestamp & state.was_timestamp
        closed = state.is_timestamp & ~state.was_timestamp
        # After "text <t>" comes <t'> >= t or the end; after "<t> <t'>" or at the start, text.
        text_from = mx.where(closed, v.eot, 0)
        earliest = mx.where(closed, state.last_timestamp, state.last_timestamp + 1)
        stamps_from = mx.where(opened, v.n_vocab, earliest)
        ids = self._ids
        return (ids < text_from) | ((ids >= v.timestamp_begin) & (ids < stamps_from))

    def _choose(self, raw: mx.array, masked: mx.array, state: State, key: mx.array) -> State:
        if self.options.timestamps:
            token, logprob = self._pick_by_mass(masked, key)
        else:
            token, logprob = self._pick(masked, key)
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
        """The same, with a timestamp forced where their joint probability beats any text token.

        Text and timestamps are reduced apart, so the rule costs no second pass over V.
        """
        begin = self.vocabulary.timestamp_begin
        text, stamps = masked[:, :begin], masked[:, begin:]
        text_score = mx.max(text, axis=-1, keepdims=True)
        stamp_mass = logsumexp(stamps)
        stamp = stamp_mass > text_score
        mass = mx.logaddexp(logsumexp(text), stamp_mass)
        mass = mx.where(stamp, stamp_mass, mass)
        if self.options.temperature:
            allowed = mx.where(stamp & (self._ids < begin), -mx.inf, masked)
            token = _sample(allowed, self.options.temperature, key)
            return token, mx.take_along_axis(allowed, token, axis=-1) - mass
        stamp_token = mx.argmax(stamps, axis=-1, keepdims=True) + begin
        token = mx.where(stamp, stamp_token, mx.argmax(text, axis=-1, keepdims=True))
        return token, mx.where(stamp, mx.max(stamps, axis=-1, keepdims=True), text_score) - mass


def _additive_mask(n_vocab: int, ids: Iterable[int]) -> mx.array:
    """(1, V) float32: -inf at the ids, 0 elsewhere."""
    mask = np.zeros((1, n_vocab), np.float32)
    mask[0, list(ids)] = -np.inf
    return mx.array(mask)


def _sample(logits: mx.array, temperature: float, key: mx.array) -> mx.array:
    return mx.random.categorical(logits / temperature, axis=-1, key=key)[:, None]
