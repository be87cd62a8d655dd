"""Beam search with openai-whisper's semantics, on the device.

At every step all continuations of a clip's K hypotheses are ranked by their log-probability. The
best K that are no end of text are the hypotheses of the next step. An end of text that ranks above
the last of them finishes a hypothesis. A clip is done when round(K * patience) hypotheses have been
finished; of those, `most_probable` (result.py) returns one. The search only records what it chose,
in arrays on the device, and the host reads them when all clips are done: until then it waits for
nothing but a flag, every `CHECK_EVERY` steps.

openai-whisper keeps all that in dictionaries on the host (`BeamSearchDecoder` in its decoding.py).
tests/support/naive_beam.py does so, too, and the tests require the same tokens of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.decoding.logit_rules import LogitRules, State
from baldwhisper_mlx.decoding.result import Hypothesis, most_probable

CHUNK = 128
"""Tokens of which one maximum is taken when the best of a row are looked for."""


class Beams(NamedTuple):
    """The hypotheses after a step, best first: arrays on the device. K of each of B clips."""

    state: State
    """Of the hypotheses, (B * K, 1): what the rules have to know."""
    parents: mx.array
    """Which hypothesis of the step before each one continues, (B, K) int32."""
    ended: mx.array
    """Log-probability with which each hypothesis of the step before was finished, (B, K) or for
    the first step (B, 1); -inf where it was not."""
    n_ended: mx.array
    """How many were finished so far, (B, 1) int32."""


class BeamSearch:
    """The step of a beam search for one set of options.

    Args:
        rules: made for options with a `beam_size`.
    """

    def __init__(self, rules: LogitRules) -> None:
        options = rules.options
        assert options.beam_size is not None
        self.rules, self.width = rules, options.beam_size
        self.enough = round(self.width * (options.patience or 1.0))
        """Finished hypotheses with which a clip is done."""
        on_gpu = mx.default_device().type == mx.DeviceType.gpu  # as in logit_rules.py
        self.next: Callable[[mx.array, Beams], Beams] = (
            mx.compile(self._next) if on_gpu else self._next
        )

    def first(self, logits: mx.array, state: State) -> Beams:
        """The first tokens.

        Args:
            logits: of the prompt's last position (B, V).
            state: before the first token (B, 1).
        """
        n_ended = mx.zeros((len(logits), 1), mx.int32)
        return self._grow(logits, *self.rules.scores(logits, state, first=True), state, n_ended)

    def _next(self, logits: mx.array, beams: Beams) -> Beams:
        """The hypotheses that continue `beams`; logits (B * K, V) of what follows them."""
        state = beams.state
        return self._grow(logits, *self.rules.scores(logits, state), state, beams.n_ended)

    def _grow(
        self, raw: mx.array, masked: mx.array, mass: mx.array, state: State, n_ended: mx.array
    ) -> Beams:
        """The best continuations, by the masked logits (B * n, V) and their log-sum-exp."""
        batch, eot = len(n_ended), self.rules.vocabulary.eot
        n_before = len(masked) // batch  # K, but 1 before the first token
        base = state.sum_logprob - mass
        tokens, logits = _best(masked, self.width + 1)
        # Of the best K + 1 one may be the end of text; the others are enough in any case.
        live = mx.where((tokens == eot) | (logits == -mx.inf), -mx.inf, logits + base)
        live = live.reshape(batch, -1)
        order = mx.argsort(-live, axis=1)[:, : self.width]
        sums = mx.take_along_axis(live, order, axis=1)
        token = mx.take_along_axis(tokens.reshape(batch, -1), order, axis=1).reshape(-1, 1)
        parents = (order // (self.width + 1)).astype(mx.int32)
        # An end of text counts if it ranks above the last live one.
        ended = masked[:, eot : eot + 1]
        ended = mx.where(ended == -mx.inf, -mx.inf, ended + base).reshape(batch, n_before)
        ended = mx.where(ended > sums[:, -1:], ended, -mx.inf)
        n_ended = n_ended + mx.sum(ended > -mx.inf, axis=1, keepdims=True)
        source = _rows(parents, n_before)
        is_timestamp = token >= self.rules.vocabulary.timestamp_begin
        return Beams(
            State(
                token=token,
                is_timestamp=is_timestamp,
                was_timestamp=state.is_timestamp[source],
                last_timestamp=mx.where(is_timestamp, token, state.last_timestamp[source]),
                finished=mx.zeros_like(is_timestamp),
                sum_logprob=sums.reshape(-1, 1),
                all_finished=mx.all(n_ended >= self.enough),
                checksum=state.checksum + mx.sum(raw),
            ),
            parents,
            ended,
            n_ended.astype(mx.int32),
        )


class Record:
    """What a beam search chose at every step; the arrays stay on the device until it is read.

    Args:
        search: whose choices these are.
        prefix: tokens of the output before the first ones that are chosen, (B, 1) each.
        with_history: whether `history` is wanted.
    """

    def __init__(self, search: BeamSearch, prefix: list[mx.array], *, with_history: bool) -> None:
        self._search = search
        self._steps: list[Beams] = []
        self._with_history = with_history
        self._history: mx.array | None = None
        if with_history and prefix:
            self._history = mx.repeat(mx.concatenate(prefix, axis=1), search.width, axis=0)

    def add(self, beams: Beams) -> mx.array:
        """Adds the choices of a step; the rows (B * K,) of the step before that they continue."""
        sources = _rows(beams.parents, self._search.width)
        if self._with_history:
            token = beams.state.token
            if self._history is not None:
                before = self._history[sources] if self._steps else self._history
                token = mx.concatenate([before, token], axis=1)
            self._history = token
        self._steps.append(beams)
        return sources

    def history(self) -> list[mx.array]:
        """All tokens of the newest hypotheses, (B * K, 1) each, as loop_guard.py takes them."""
        assert self._history is not None
        return list(mx.split(self._history, self._history.shape[1], axis=1))

    def chosen(self) -> list[Hypothesis]:
        """The most probable hypothesis of every clip. The host waits for the device here."""
        width, options = self._search.width, self._search.rules.options
        states = [beams.state for beams in self._steps]
        shape = (len(states), -1, width)  # steps, clips, hypotheses
        tokens = np.array(mx.concatenate([state.token for state in states])).reshape(shape)
        sums = np.array(mx.concatenate([state.sum_logprob for state in states])).reshape(shape)
        parents = np.array(mx.stack([beams.parents for beams in self._steps]))
        ended = [np.array(beams.ended) for beams in self._steps]
        hypotheses = [
            _hypotheses(
                tokens[:, clip],
                sums[:, clip],
                parents[:, clip],
                [step[clip] for step in ended],
                self._search.enough,
            )
            for clip in range(len(ended[0]))
        ]
        return [most_probable(each, options.length_penalty) for each in hypotheses]


def _hypotheses(
    tokens: npt.NDArray[np.int32],
    sums: npt.NDArray[np.float32],
    parents: npt.NDArray[np.int32],
    ended: Sequence[npt.NDArray[np.float32]],
    enough: int,
) -> list[Hypothesis]:
    """The hypotheses of a clip that are candidates, as `BeamSearchDecoder.finalize` lists them.

    Args:
        tokens: of all steps (n, K).
        sums: log-probabilities of the hypotheses that end with them (n, K).
        parents: which hypothesis of the step before each one continues (n, K).
        ended: `Beams.ended` of all steps.
        enough: finished hypotheses with which the clip is done.
    """
    found: list[Hypothesis] = []
    last = len(tokens) - 1

    def add(step: int, row: int, sum_logprob: float) -> None:
        """Adds the hypothesis that ends with the token of a step and row."""
        path = []
        for before in range(step, -1, -1):
            path.append(row)
            row = int(parents[before, row])
        path.reverse()
        places = np.arange(step + 1), path
        found.append(Hypothesis(tokens[places].tolist(), sum_logprob, sums[places], path))

    for step, scores in enumerate(ended):
        for row in np.argsort(-scores, kind="stable")[: enough - len(found)]:
            if np.isfinite(scores[row]):
                add(step - 1, int(row), float(scores[row]))
        if len(found) == enough:
            last = step
            break
    # Hypotheses that were cut off fill up what is missing.
    width = tokens.shape[1]
    for row in np.argsort(sums[last])[::-1][: max(0, width - len(found))]:
        add(last, int(row), float(sums[last, row]))
    return found


def _best(logits: mx.array, count: int) -> tuple[mx.array, mx.array]:
    """Ids and logits of the `count` best of each row (R, V), (R, count) each, in no order.

    They are in the `count` chunks with the highest maxima, so no more than those are sorted: a
    fifteenth of the time on a CPU, and a sort that fits one thread group on a GPU.
    """
    rows, n_vocab = logits.shape
    padding = [(0, 0), (0, -n_vocab % CHUNK)]
    chunks = mx.pad(logits, padding, constant_values=-mx.inf).reshape(rows, -1, CHUNK)
    highest = _largest(chunks.max(axis=-1), min(count, chunks.shape[1]))
    candidates = mx.take_along_axis(chunks, highest[:, :, None], axis=1).reshape(rows, -1)
    places = _largest(candidates, count)
    ids = mx.take_along_axis(highest, places // CHUNK, axis=1) * CHUNK + places % CHUNK
    # Where fewer tokens are allowed, the rest may lie in the padding.
    ids = mx.minimum(ids.astype(mx.int32), n_vocab - 1)
    return ids, mx.take_along_axis(candidates, places, axis=1)


def _largest(x: mx.array, count: int) -> mx.array:
    """Indices (R, count) of the largest values of each row, in no order."""
    return mx.argpartition(x, kth=-count, axis=-1)[:, -count:]


def _rows(parents: mx.array, width: int) -> mx.array:
    """Indices (B * K,) of rows from those (B, K) within each clip's `width` rows."""
    return (parents + width * mx.arange(len(parents), dtype=mx.int32)[:, None]).reshape(-1)
