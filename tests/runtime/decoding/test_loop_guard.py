"""How a loop is seen and forbidden, and the naive twins of both."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.checkpoint.load import load_model
from baldwhisper_mlx.decoding.loop_guard import LoopGuard
from baldwhisper_mlx.decoding.options import DecodingOptions
from baldwhisper_mlx.decoding.repetition import FEWEST, FEWEST_OF_LOOP, LONGEST_PERIOD, is_loop

EOT, BEGIN, VOCABULARY = 20, 25, 60


def naive(tokens: list[int]) -> set[int]:
    """Tokens that would continue a loop, period by period."""
    same = [min(token, BEGIN) for token in tokens]
    found = set()
    for period in range(1, LONGEST_PERIOD + 1):
        needed = max(period, FEWEST)
        if len(same) < needed + period:
            continue
        if all(same[-i] == same[-i - period] for i in range(1, needed + 1)):
            found.add(tokens[-period])
    return {token for token in found if token < EOT}


def forbidden(rows: list[list[int]]) -> list[set[int]]:
    guard = LoopGuard(EOT, BEGIN)
    logits = mx.array(np.random.default_rng(0).standard_normal((len(rows), VOCABULARY)), mx.float32)
    tokens = [mx.array(column, mx.int32)[:, None] for column in np.array(rows).T]
    guarded = np.array(guard(logits, tokens))
    before = np.array(logits)
    changed = guarded != before
    assert np.isfinite(guarded).all()
    assert (guarded[changed] < -1e8).all()
    return [set(np.flatnonzero(row).tolist()) for row in changed]


@st.composite
def outputs(draw: st.DrawFn, length: int) -> list[int]:
    """Something, then a phrase over and over, perhaps broken in one place."""
    phrase = draw(st.lists(st.integers(0, 9) | st.integers(BEGIN, 40), min_size=1, max_size=65))
    start = draw(st.lists(st.integers(0, 40), max_size=20))
    tokens = (start + phrase * length)[:length]
    if draw(st.booleans()):
        tokens[draw(st.integers(0, length - 1))] = draw(st.integers(0, 40))
    return tokens


@settings(max_examples=200, deadline=None)
@given(data=st.data(), length=st.integers(1, 140))
def test_the_guard_is_its_naive_twin(data: st.DataObject, length: int) -> None:
    rows = [data.draw(outputs(length)) for _ in range(3)]
    assert forbidden(rows) == [naive(row) for row in rows]


def test_phrases_with_timestamps_that_go_on() -> None:
    """As Whisper loops: the same words again, later each time."""
    tokens: list[int] = []
    for i in range(4):
        tokens += [BEGIN + i, 3, 4, 5, BEGIN + i + 1]
    assert forbidden([[*tokens, BEGIN + 9]]) == [{3}]
    assert forbidden([[*tokens, BEGIN + 9, 3]]) == [{4}]
    assert forbidden([[*tokens[5:], BEGIN + 9]]) == [set()]
    assert forbidden([[*tokens[:12], 7, *tokens[12:20]]]) == [set()]
    assert forbidden([[EOT + 1] * 30]) == [set()]


@pytest.mark.parametrize("beam_size", [None, 3])
def test_a_model_that_loops_is_stopped(model_folder: Path, beam_size: int | None) -> None:
    """Without positions random weights loop; with the guard no phrase comes over and over."""
    loaded = load_model(model_folder, dtype="float32")
    decoder, model = loaded.decoder, loaded.model.decoder
    model.positional_embedding = mx.zeros_like(model.positional_embedding)
    prompt = loaded.tokenizer.sot_sequence("en", "transcribe", timestamps=True)
    looped = 0
    for seed in range(6):
        noise = np.random.default_rng(seed).standard_normal((1, 3000, loaded.config.n_mels))
        decoder.encode(mx.array(noise.astype(np.float32)), [3000])
        options = DecodingOptions(max_tokens=120, beam_size=beam_size)
        free = decoder.decode(prompt, options)[0]
        options = dataclasses.replace(options, guard_loops=True)
        guarded = decoder.decode(prompt, options)[0]
        looped += loops(free.tokens, loaded.tokenizer.eot)
        assert not loops(guarded.tokens, loaded.tokenizer.eot)
    assert looped


def loops(tokens: list[int], eot: int) -> bool:
    """Whether a phrase of at most LONGEST_PERIOD tokens comes more often than the guard allows."""
    for period in range(1, LONGEST_PERIOD + 1):
        needed = max(2 * period, FEWEST + period)
        for end in range(needed + period, len(tokens) + 1):
            tail = tokens[end - needed - period : end]
            text = any(token < eot for token in tail)
            if text and all(a == b for a, b in zip(tail, tail[period:], strict=False)):
                return True
    return False


def naive_loop(tokens: list[int], before: list[int]) -> bool:
    previous = [token for token in before if token < BEGIN]
    ids = previous + [token for token in tokens if token < BEGIN]
    for period in range(1, LONGEST_PERIOD + 1):
        again = max(2 * period, FEWEST_OF_LOOP)
        for end in range(max(len(previous) + min(period, FEWEST), again + period), len(ids) + 1):
            if all(ids[i] == ids[i - period] for i in range(end - again, end)):
                return True
    return False


@settings(max_examples=300, deadline=None)
@given(data=st.data(), length=st.integers(1, 220))
def test_a_loop_is_what_the_naive_twin_calls_one(data: st.DataObject, length: int) -> None:
    ids = data.draw(outputs(length))
    start = data.draw(st.integers(0, length))
    assert is_loop(ids[start:], BEGIN, ids[:start]) == naive_loop(ids[start:], ids[:start])


def test_a_sentence_three_times_over_is_a_loop_and_a_chant_is_not() -> None:
    def with_times(phrase: list[int], times: int) -> list[int]:
        return [i for n in range(times) for i in (BEGIN + n, *phrase, BEGIN + n + 1)]

    sentence = list(range(11))
    assert not is_loop(with_times(sentence, 2), BEGIN)
    assert is_loop(with_times(sentence, 3), BEGIN)
    assert is_loop(with_times(sentence, 1), BEGIN, before=with_times(sentence, 2))
    assert not is_loop(with_times([1, 2], 8), BEGIN)
    assert is_loop(with_times([1, 2], 9), BEGIN)
    # What had come over and over before is over.
    assert not is_loop([15, 16, 17], BEGIN, before=with_times(sentence, 4))
    assert not is_loop([], BEGIN, before=with_times(sentence, 4))
    assert not is_loop([], BEGIN)
