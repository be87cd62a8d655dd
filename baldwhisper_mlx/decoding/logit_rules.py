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
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from baldwhisper_mlx.decoding.suppression import suppressed_ids
from baldwhisper_mlx.ops.functions import logsumexp


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The token ids that decoding has to know; it treats all others below `eot` as text."""

    n_vocab: int
    eot: int
    sot: int
    no_speech: int
    no_timestamps: int
    timestamp_begin: int
    suppress: tuple[int, ...]
    """Ids that are never chosen."""
    suppress_first: tuple[int, ...]
    """Ids that are not chosen as the first token, because the output would be blank."""
    control: tuple[int, ...] = ()
    """Those of `suppress` that stay there whatever `DecodingOptions.suppress_tokens` says."""


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
    """Most tokens of the output; by default half the text context, which is a limit anyway."""
    forced_length: int | None = None
    """For benchmarks: exactly so many tokens; the output never ends early."""
    seed: int = 0
    """Of the random numbers for sampling."""
    guard_loops: bool = False
    """Forbid tokens that would continue a loop; see loop_guard.py."""
    suppress_tokens: tuple[int, ...] = (-1,)
    """Ids that are never chosen; -1 stands for the vocabulary's own list."""
    repetition_penalty: float = 1.0
    """Above 1, tokens of the output so far are less probable; see penalties.py."""
    no_repeat_ngram_size: int = 0
    """Length of the token sequences that may not occur twice; 0 for none. See penalties.py."""
    prefix: tuple[int, ...] = ()
    """Ids with which the output begins."""

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be 0 or more, not {self.temperature}")
        for length in (self.max_tokens, self.forced_length):
            if length is not None and length < 1:
                raise ValueError(f"the number of tokens must be at least 1, not {length}")
        # Within these bounds no finite logit becomes infinite.
        if not 0.01 <= self.repetition_penalty <= 100:
            raise ValueError(
                f"repetition_penalty must be between 0.01 and 100, not {self.repetition_penalty}"
            )
        if self.no_repeat_ngram_size < 0:
            raise ValueError(
                f"no_repeat_ngram_size must be 0 or more, not {self.no_repeat_ngram_size}"
            )


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
        suppress = suppressed_ids(
            options.suppress_tokens, default=v.suppress, control=v.control, eot=v.eot,
            timestamp_begin=v.timestamp_begin, n_vocab=v.n_vocab,
        )  # fmt: skip
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

    def first(self, logits: mx.array, key: mx.array) -> State:
        """Chooses the first token after the prompt, and after the prefix if there is one.

        Args:
            logits: (B, V) float32, of the prompt's last position.
            key: of the random numbers, for temperatures above 0.
        """
        batch = logits.shape[0]
        if self.options.prefix:
            return self._next(logits, self._after_prefix(batch), key)
        no = mx.zeros((batch, 1), mx.bool_)
        before = State(
            token=mx.zeros((batch, 1), mx.int32),
            # As in the reference, a lone first timestamp counts as a pair: text must follow it.
            is_timestamp=mx.logical_not(no),
            was_timestamp=no,
            last_timestamp=mx.full((batch, 1), self.vocabulary.timestamp_begin - 1, mx.int32),
            finished=no,
            sum_logprob=mx.zeros((batch, 1)),
            all_finished=mx.array(False),
            checksum=mx.array(0.0),
        )
        return self._choose(logits, logits + self._suppress_first, before, key)

    def _after_prefix(self, batch: int) -> State:
        """The state in which the tokens of the prefix were the last ones chosen."""
        begin, prefix = self.vocabulary.timestamp_begin, self.options.prefix
        latest = next((token for token in reversed(prefix) if token >= begin), begin - 1)
        before = prefix[-2] if len(prefix) > 1 else begin  # a lone timestamp counts as a pair
        return State(
            token=mx.full((batch, 1), prefix[-1], mx.int32),
            is_timestamp=mx.full((batch, 1), prefix[-1] >= begin),
            was_timestamp=mx.full((batch, 1), before >= begin),
            last_timestamp=mx.full((batch, 1), latest, mx.int32),
            finished=mx.zeros((batch, 1), mx.bool_),
            sum_logprob=mx.zeros((batch, 1)),
            all_finished=mx.array(False),
            checksum=mx.array(0.0),
        )

    def _next(self, logits: mx.array, state: State, key: mx.array) -> State:
        """Chooses a token that follows `state`; arguments as in `first`."""
        masked = logits + self._suppress
        if self.options.timestamps:
            masked = mx.where(self._forbidden(state), -mx.inf, masked)
        return self._choose(logits, masked, state, key)

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
        """As `_pick`, with a timestamp where their joint probability exceeds any text token's.

        Text and timestamps are reduced apart, so the rule costs no second pass over V.
        """
        begin = self.vocabulary.timestamp_begin
        text, timestamps = masked[:, :begin], masked[:, begin:]
        # Unnormalized log-probabilities: of the best text token, and of all timestamps together.
        text_score = mx.max(text, axis=-1, keepdims=True)
        timestamp_mass = logsumexp(timestamps)
        forced = timestamp_mass > text_score
        # The probability of a forced timestamp is that among timestamps, as in the reference.
        mass = mx.logaddexp(logsumexp(text), timestamp_mass)
        mass = mx.where(forced, timestamp_mass, mass)
        if self.options.temperature:
            allowed = mx.where(forced & (self._ids < begin), -mx.inf, masked)
            token = _sample(allowed, self.options.temperature, key)
            return token, mx.take_along_axis(allowed, token, axis=-1) - mass
        # A timestamp that is not forced never wins: its own probability is part of the mass that
        # the best text token exceeds.
        timestamp = mx.argmax(timestamps, axis=-1, keepdims=True) + begin
        token = mx.where(forced, timestamp, mx.argmax(text, axis=-1, keepdims=True))
        score = mx.where(forced, mx.max(timestamps, axis=-1, keepdims=True), text_score)
        return token, score - mass


def _additive_mask(n_vocab: int, ids: Iterable[int]) -> mx.array:
    """(1, V) float32: -inf at the ids, 0 elsewhere."""
    mask = np.zeros((1, n_vocab), np.float32)
    mask[0, list(ids)] = -np.inf
    return mx.array(mask)


def _sample(logits: mx.array, temperature: float, key: mx.array) -> mx.array:
    """Ids (B, 1) drawn from the softmax of logits (B, V) over the temperature."""
    return mx.random.categorical(logits / temperature, axis=-1, key=key)[:, None]
