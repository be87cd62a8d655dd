"""Rules on the device against the naive twin, over everything hypothesis can think of."""

from __future__ import annotations

import dataclasses

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.decoding.logit_rules import LogitRules, State
from baldwhisper_mlx.decoding.options import DecodingOptions
from tests.support.naive import SMALL as V
from tests.support.naive import logsumexp, masked_logits

KEY = mx.random.key(0)

options = st.builds(
    DecodingOptions,
    timestamps=st.booleans(),
    max_initial_timestamp=st.none() | st.integers(0, 23),
    forced_length=st.none() | st.just(9),
    suppress_tokens=st.sampled_from([(-1,), (), (-1, 0, 39), (2, 3, 11)]),
    prefix=st.sampled_from([(), (40, 4), (40, 4, 4, 45), (6, 8), (42,)]),
)


def walk(rules: LogitRules, logits: np.ndarray, compiled: bool = False) -> list[State]:
    """Feeds (steps, B, V) logits to the rules."""
    step = mx.compile(rules._next) if compiled else rules._next
    states = [rules.first(mx.array(logits[0]), KEY)]
    for row in logits[1:]:
        states.append(step(mx.array(row), states[-1], KEY))
    return states


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.1, 1.0, 4.0]),
    stamp_bias=st.sampled_from([-3.0, 0.0, 1.5]),
    options=options,
)
def test_every_step_is_the_naive_one(
    seed: int, scale: float, stamp_bias: float, options: DecodingOptions
) -> None:
    steps, batch = 12, 3
    logits = scale * np.random.default_rng(seed).standard_normal((steps, batch, V.n_vocab))
    logits[..., V.timestamp_begin :] += stamp_bias
    logits = logits.astype(np.float32)
    states = walk(LogitRules(V, options), logits)
    tokens = np.concatenate([np.array(state.token) for state in states], axis=1)
    for row in range(batch):
        sampled: list[int] = list(options.prefix)
        total = 0.0
        for step in range(steps):
            if sampled[-1:] == [V.eot]:
                assert tokens[row, step] == V.eot
                continue
            masked = masked_logits(logits[step, row], sampled, V, options)
            assert tokens[row, step] == masked.argmax()
            total += masked.max() - logsumexp(masked)
            sampled.append(int(tokens[row, step]))
        assert float(states[-1].sum_logprob[row, 0]) == pytest.approx(total, abs=1e-3)
    assert states[-1].all_finished.item() == bool((tokens[:, -1] == V.eot).all())


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_compiled_is_uncompiled(temperature: float) -> None:
    """On a GPU the step is compiled; here it is not, so the two are compared."""
    logits = np.random.default_rng(1).standard_normal((8, 4, V.n_vocab)).astype(np.float32)
    rules = LogitRules(V, DecodingOptions(temperature=temperature))
    for plain, compiled in zip(walk(rules, logits), walk(rules, logits, True), strict=True):
        for a, b in zip(plain, compiled, strict=True):
            np.testing.assert_allclose(np.array(a), np.array(b), rtol=1e-5)


def test_sampling_follows_the_distribution_and_the_seed() -> None:
    logits = np.full((1, V.n_vocab), -30.0, np.float32)
    logits[0, [1, 2]] = [0.0, 1.0]
    rules = LogitRules(V, DecodingOptions(temperature=2.0, timestamps=False))
    keys = mx.random.split(mx.random.key(5), 2000)
    draws = [rules.first(mx.array(logits), key).token for key in keys]
    counts = np.bincount(np.array(mx.concatenate(draws)).ravel(), minlength=3)
    assert counts[1] + counts[2] == 2000
    assert counts[2] / 2000 == pytest.approx(1 / (1 + np.exp(-0.5)), abs=0.04)
    again = [rules.first(mx.array(logits), key).token.item() for key in keys[:20]]
    assert again == [draw.item() for draw in draws[:20]]


def test_sampling_obeys_the_mass_rule() -> None:
    logits = np.zeros((1, V.n_vocab), np.float32)
    rules = LogitRules(V, DecodingOptions(temperature=1.0))
    state = rules.first(mx.array(logits), KEY)
    # "<t> text": equal logits give 24 timestamps more mass than any text token has.
    state = rules.next(mx.array(np.where(np.arange(64) == 1, 50, logits)), state, KEY)
    assert state.token.item() == 1
    for key in mx.random.split(KEY, 50):
        assert rules.next(mx.array(logits), state, key).token.item() >= V.timestamp_begin


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("token", [1, 3, 50])
def test_the_checksum_betrays_any_bad_logit(bad: float, token: int) -> None:
    """Also at a suppressed token, whose mask would hide it."""
    logits = np.zeros((2, V.n_vocab), np.float32)
    rules = LogitRules(V, DecodingOptions())
    state = rules.first(mx.array(logits), KEY)
    assert np.isfinite(state.checksum.item())
    logits[1, token] = bad
    assert not np.isfinite(rules.next(mx.array(logits), state, KEY).checksum.item())


@pytest.mark.parametrize(
    "bad", [{"temperature": -0.1}, {"temperature": np.nan}, {"max_tokens": 0}, {"forced_length": 0}]
)
def test_options_out_of_range(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        dataclasses.replace(DecodingOptions(), **bad)
