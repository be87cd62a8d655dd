"""The rules against repetition against their naive twins, and which ids are suppressed."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.decoding.logit_rules import LogitRules
from baldwhisper_mlx.decoding.loop_guard import LoopGuard
from baldwhisper_mlx.decoding.options import DecodingOptions
from baldwhisper_mlx.decoding.penalties import NoRepeatNgram, RepetitionPenalty, processors
from baldwhisper_mlx.decoding.suppression import suppressed_ids
from tests.support.naive import SMALL as V
from tests.support.naive import penalized_logits


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    length=st.integers(0, 24),
    kinds=st.integers(1, 8),
    penalty=st.sampled_from([0.5, 1.0, 1.2, 3.0]),
    size=st.integers(0, 6),
)
def test_every_row_gets_the_naive_logits(
    seed: int, length: int, kinds: int, penalty: float, size: int
) -> None:
    """Of few kinds of tokens, so that n-grams repeat; text and timestamps alike."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((3, V.n_vocab)).astype(np.float32)
    known = rng.choice(np.r_[0:30, 40:64], kinds)
    rows = rng.choice(known, (3, length)).astype(np.int32)
    options = DecodingOptions(repetition_penalty=penalty, no_repeat_ngram_size=size)
    changed, tokens = mx.array(logits), [mx.array(column)[:, None] for column in rows.T]
    for process in processors(options, V):
        changed = process(changed, tokens)
    for row in range(3):
        naive = penalized_logits(logits[row].astype(np.float64), rows[row].tolist(), options)
        np.testing.assert_allclose(np.array(changed[row]), naive, rtol=1e-5)


def test_a_row_that_has_ended_can_end_again() -> None:
    """Its tokens are filled up with the end of text, which must stay possible for the others."""
    tokens = [mx.array([[4], [V.eot]])] * 5
    logits = mx.zeros((2, V.n_vocab))
    for size in (1, 2, 3):
        changed = np.array(NoRepeatNgram(size, V.eot)(logits, tokens))
        assert np.flatnonzero(changed).tolist() == [4]


def test_order_is_that_of_ctranslate2_and_the_guard_comes_last() -> None:
    options = DecodingOptions(repetition_penalty=2, no_repeat_ngram_size=3, guard_loops=True)
    kinds = [type(process) for process in processors(options, V)]
    assert kinds == [RepetitionPenalty, NoRepeatNgram, LoopGuard]
    assert processors(DecodingOptions(), V) == []


def test_a_bad_logit_stays_bad() -> None:
    """A penalty must not hide that a model is damaged."""
    for bad in (np.nan, np.inf, -np.inf):
        logits = np.zeros((1, V.n_vocab), np.float32)
        logits[0, 4] = bad
        options = DecodingOptions(repetition_penalty=100)
        (penalty,) = processors(options, V)
        state = LogitRules(V, options).first(
            penalty(mx.array(logits), [mx.array([[4]])]), mx.random.key(0)
        )
        assert not np.isfinite(state.checksum.item())


def suppressed(*tokens: int) -> set[int]:
    return suppressed_ids(tokens, V)


def test_suppressed_ids() -> None:
    assert suppressed(-1) == {3, 7, 31, 38}
    assert suppressed(-1, 9, 33) == {3, 7, 9, 31, 33, 38}
    assert suppressed(9) == {9, 31, 38}
    assert suppressed() == {31, 38}


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ((64,), "64 is no token of this model; ids are 0 to 63"),
        ((-2,), "-2 is no token"),
        ((30,), "30 is a timestamp or the end of text"),
        ((4, 63), "63 is a timestamp or the end of text"),
        (tuple(range(30)), "no token of text is left"),
    ],
)
def test_ids_that_cannot_be_suppressed(tokens: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        suppressed(*tokens)


@pytest.mark.parametrize(
    "bad",
    [
        {"repetition_penalty": 0.0},
        {"repetition_penalty": float("nan")},
        {"repetition_penalty": 1e9},
        {"no_repeat_ngram_size": -1},
    ],
    ids=str,
)
def test_penalties_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        DecodingOptions(**bad)  # type: ignore[arg-type]
