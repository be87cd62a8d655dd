"""Logit rules token for token against openai-whisper's filters and greedy decoder."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.decoding.logit_rules import LogitRules, State
from baldwhisper_mlx.decoding.options import DecodingOptions
from tests.runtime.decoding.test_logit_rules import V
from tests.support.naive import masked_logits

decoding = pytest.importorskip("whisper.decoding")

TOKENIZER = SimpleNamespace(
    eot=V.eot,
    no_timestamps=V.no_timestamps,
    timestamp_begin=V.timestamp_begin,
    encode=lambda _: [token for token in V.suppress_first if token != V.eot],
)
PROMPT = [31, 32, 33]

prefixes = st.lists(st.integers(0, 29) | st.integers(V.timestamp_begin, V.n_vocab - 1), max_size=10)


def openai_logits(logits: np.ndarray, prefix: list[int], options: DecodingOptions) -> torch.Tensor:
    """Logits (1, V) after OpenAI's filters, in the order its DecodingTask applies them."""
    filters = [
        decoding.SuppressBlank(TOKENIZER, len(PROMPT)),
        decoding.SuppressTokens(V.suppress),
    ]
    if options.timestamps:
        filters.append(
            decoding.ApplyTimestampRules(TOKENIZER, len(PROMPT), options.max_initial_timestamp)
        )
    out = torch.from_numpy(logits.copy())[None]
    for rule in filters:
        rule.apply(out, torch.tensor([PROMPT + prefix]))
    return out


def state_after(prefix: list[int]) -> State:
    """The state that a prefix leaves, by its definition."""
    stamps = [token for token in prefix if token >= V.timestamp_begin]
    column = lambda value: mx.array([[value]])  # noqa: E731
    return State(
        token=column(prefix[-1]),
        is_timestamp=column(prefix[-1] >= V.timestamp_begin),
        was_timestamp=column(len(prefix) < 2 or prefix[-2] >= V.timestamp_begin),
        last_timestamp=column(stamps[-1] if stamps else V.timestamp_begin - 1),
        finished=column(False),
        sum_logprob=column(0.0),
        all_finished=mx.array(False),
        checksum=mx.array(0.0),
    )


@settings(deadline=None, max_examples=400)
@given(
    prefix=prefixes,
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.1, 1.0, 4.0]),
    timestamps=st.booleans(),
    latest=st.none() | st.integers(1, 23),
)
def test_next_token_and_its_probability(
    prefix: list[int], seed: int, scale: float, timestamps: bool, latest: int | None
) -> None:
    options = DecodingOptions(timestamps=timestamps, max_initial_timestamp=latest)
    logits = (scale * np.random.default_rng(seed).standard_normal(V.n_vocab)).astype(np.float32)
    expected = openai_logits(logits, prefix, options)
    naive = masked_logits(logits, prefix, V, options)
    np.testing.assert_array_equal(np.isneginf(naive), np.isneginf(expected[0].numpy()))
    rules, key = LogitRules(V, options), mx.random.key(0)
    if prefix:
        state = rules.next(mx.array(logits[None]), state_after(prefix), key)
    else:
        state = rules.first(mx.array(logits[None]), key)
    if torch.isneginf(expected).all():
        return  # OpenAI's rules can forbid everything; sampling never leads there
    assert state.token.item() == expected.argmax().item()
    logprob = torch.log_softmax(expected, dim=-1).max().item()
    assert state.sum_logprob.item() == pytest.approx(logprob, abs=1e-5)
    if prefix:
        after = state_after([*prefix, int(state.token.item())])
        for field in ("token", "is_timestamp", "was_timestamp", "last_timestamp"):
            assert getattr(state, field).item() == getattr(after, field).item()
