"""When tokens were spoken: the warping path, the filter, and the queries that decoding keeps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.decoding.alignment import align, attention_of, heads_to_align
from baldwhisper_mlx.decoding.decoder import Decoder
from baldwhisper_mlx.decoding.dtw import median_filter, token_start_positions
from baldwhisper_mlx.decoding.options import DecodingOptions

FRAMES = 1000


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> LoadedModel:
    return load_model(model_folder, dtype="float32")


def naive_path(cost: np.ndarray[Any, Any]) -> list[int]:
    """Dynamic time warping cell by cell; the first column of each row."""
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf)
    total[0, 0] = 0
    steps = np.zeros((n + 1, m + 1), int)
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            both, down, right = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
            step = 0 if both < min(down, right) else 1 if down < min(both, right) else 2
            steps[i, j] = step
            total[i, j] = cost[i - 1, j - 1] + (both, down, right)[step]
    i, j, firsts = n, m, [0] * n
    while i > 0 and j > 0:
        firsts[i - 1] = j - 1
        i, j = (
            (i - 1, j - 1) if steps[i, j] == 0 else (i - 1, j) if steps[i, j] == 1 else (i, j - 1)
        )
    return firsts


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    seed=st.integers(0, 10_000),
    levels=st.sampled_from([2, 5, 1000]),
)
def test_the_path_is_the_naive_ones(shape: tuple[int, int], seed: int, levels: int) -> None:
    """With few levels there are ties."""
    cost = np.random.default_rng(seed).integers(0, levels, shape).astype(np.float32)
    found = token_start_positions(cost)
    assert found.tolist() == naive_path(cost)
    assert found[0] == 0
    assert (np.diff(found) >= 0).all()


@settings(max_examples=50, deadline=None)
@given(length=st.integers(1, 20), seed=st.integers(0, 1000))
def test_median_filter(length: int, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal((2, length)).astype(np.float32)
    found = median_filter(x, 5)
    if length <= 2:
        np.testing.assert_array_equal(found, x)
        return
    for row in range(2):
        for i in range(length):
            around = [abs(j) if j < length else 2 * length - 2 - j for j in range(i - 2, i + 3)]
            assert found[row, i] == np.median(x[row, around])


def test_tokens_get_the_times_at_which_they_are_attended() -> None:
    """Two heads that look at one place for each token; timestamps have no time of their own."""
    begin, rows = 100, [0, 10, 20, 20, 40, 45, 60]  # place of each row, from that of sot on
    scores = np.zeros((2, len(rows), 80), np.float32)
    for row, place in enumerate(rows):
        scores[:, row, place : place + 8] = 9
    tokens = [begin, 5, 6, begin + 1, 7]
    chances = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    found = align(scores, tokens, chances, first=1, text_end=begin, n_frames=200)
    assert [math.isnan(t) for t in found.starts] == [True, False, False, True, False]
    # row 2 predicted token 1, ..., row 6 the end
    assert found.starts[1] == pytest.approx(0.0)  # the path begins at the start of the audio
    assert found.starts[2] == pytest.approx(found.ends[1])
    assert found.starts[2] == pytest.approx(0.02 * 20, abs=0.11)
    assert found.starts[4] == pytest.approx(0.02 * 45, abs=0.11)
    assert found.ends[4] == pytest.approx(0.02 * 60, abs=0.11)
    assert found.probabilities[4] == 0.5
    # The step that chose a token looks where that is spoken: rows 2, 3 and 5.
    # Eight positions there are equal.
    attended = [found.attended[i] for i in (1, 2, 4)]
    assert attended == pytest.approx([0.02 * place for place in (20, 20, 45)], abs=0.16)
    assert math.isnan(found.attended[0])
    nothing = align(scores[:, :3], [begin], chances[:1], first=1, text_end=begin, n_frames=200)
    assert all(map(math.isnan, nothing.starts))


def clip(loaded: LoadedModel, seed: int) -> mx.array:
    noise = np.random.default_rng(seed).standard_normal((1, 3000, loaded.config.n_mels))
    return mx.array(noise.astype(np.float32))


def test_decoding_leaves_the_attention_of_a_second_pass(loaded: LoadedModel) -> None:
    """Queries kept step by step are those of the whole output fed at once."""
    model, decoder = loaded.model, loaded.decoder
    prompt = loaded.tokenizer.sot_sequence("en", "transcribe", timestamps=True)
    options = DecodingOptions(max_tokens=20)
    assert options.max_tokens
    decoder.encode(clip(loaded, 1), [FRAMES])
    plain = decoder.decode(prompt, options)[0]
    timed = decoder.decode(prompt, options, align_frames=[FRAMES])[0]
    assert timed.tokens == plain.tokens
    assert plain.alignment is None
    assert timed.alignment is not None

    heads = heads_to_align(loaded.config)
    cache = model.make_cache()
    model.encode(clip(loaded, 1), [FRAMES], cache)
    for layer in cache:
        layer.queries = []
    fed = timed.tokens[: options.max_tokens - 1]  # the last one of a text that was cut off is not
    mx.eval(model.decoder(mx.array([[*prompt, *fed]]), cache))
    scores = attention_of(cache, heads, [np.arange(len(prompt) + len(fed))])[0]
    expected = align(
        scores,
        timed.tokens,
        np.array(timed.alignment.probabilities),
        first=len(prompt) - 1,
        text_end=loaded.tokenizer.eot,
        n_frames=FRAMES,
    )
    np.testing.assert_allclose(timed.alignment.starts, expected.starts, atol=0.021)
    text = [i for i, token in enumerate(timed.tokens) if token < loaded.tokenizer.eot]
    starts = np.array(timed.alignment.starts)[text]
    ends = np.array(timed.alignment.ends)[text]
    assert (np.diff(starts) >= 0).all()
    assert (ends >= starts).all()
    assert ends.max(initial=0) <= FRAMES / 100
    chances = np.array(timed.alignment.probabilities)[text]
    assert ((chances > 0) & (chances <= 1 + 1e-6)).all()


def test_a_batch_is_aligned_as_its_rows(loaded: LoadedModel) -> None:
    decoder = loaded.decoder
    prompt = loaded.tokenizer.sot_sequence("en", "transcribe", timestamps=True)
    mel = mx.concatenate([clip(loaded, 1), clip(loaded, 2)])
    sizes = [FRAMES, 2 * FRAMES]
    decoder.encode(mel, sizes)
    together = decoder.decode(prompt, DecodingOptions(max_tokens=12), align_frames=sizes)
    for row in range(2):
        decoder.encode(mel[row : row + 1], sizes[row : row + 1])
        options = DecodingOptions(max_tokens=12)
        (alone,) = decoder.decode(prompt, options, align_frames=sizes[row : row + 1])
        assert alone.tokens == together[row].tokens
        assert alone.alignment is not None
        assert together[row].alignment is not None
        np.testing.assert_allclose(
            alone.alignment.starts, together[row].alignment.starts, atol=0.021
        )


def test_queries_are_kept_only_while_they_are_needed(loaded: LoadedModel) -> None:
    decoder: Decoder = loaded.decoder
    prompt = loaded.tokenizer.sot_sequence("en", "transcribe", timestamps=True)
    decoder.encode(clip(loaded, 1), [FRAMES])
    decoder.decode(prompt, DecodingOptions(max_tokens=5), align_frames=[FRAMES])
    assert all(layer.queries is None for layer in decoder._cache)
    with pytest.raises(ValueError, match="not kept"):
        attention_of(decoder._cache, heads_to_align(loaded.config), [np.arange(1)])
