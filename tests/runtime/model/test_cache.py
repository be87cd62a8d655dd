"""The cache gives back what was written, from memory it does not let go of."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.model.cache import KVCache

SHAPE = (2, 3, 1, 4)


def block(length: int, seed: int) -> mx.array:
    shape = (*SHAPE[:2], length, SHAPE[3])
    return mx.array(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=6), rounds=st.integers(1, 2))
def test_update_is_concatenation(lengths: list[int], rounds: int) -> None:
    cache = KVCache(30)
    for _ in range(rounds):
        cache.reset()
        written = []
        for seed, length in enumerate(lengths):
            written.append(block(length, seed))
            keys, values = cache.update(written[-1], 2 * written[-1])
            expected = mx.concatenate(written, axis=2)
            np.testing.assert_array_equal(np.array(keys), np.array(expected))
            np.testing.assert_array_equal(np.array(values), 2 * np.array(expected))
        assert cache.offset == sum(lengths)


def test_filling_it_at_once_is_the_same() -> None:
    """All positions in one update take another path, which must leave contiguous rows."""
    cache, strided = KVCache(6), block(6, 0).swapaxes(2, 3).swapaxes(2, 3)
    keys, _ = cache.update(strided, strided)
    np.testing.assert_array_equal(np.array(keys), np.array(strided))
    assert keys.shape[2] == cache.offset == 6


def test_filling_replaces_all_positions_and_keeps_how_they_lie() -> None:
    cache = KVCache(6)
    cache.update(block(2, 0), block(2, 0))
    turned = mx.contiguous(block(5, 1).swapaxes(2, 3)).swapaxes(2, 3)
    cache.fill(turned, 2 * turned)
    keys, values = cache.state()
    assert cache.offset == 5
    np.testing.assert_array_equal(np.array(keys), np.array(block(5, 1)))
    np.testing.assert_array_equal(np.array(values), 2 * np.array(block(5, 1)))
    cache.reset()
    assert cache.update(block(1, 2), block(1, 2))[0].shape == (2, 3, 1, 4)
    with pytest.raises(ValueError, match="7 positions in a capacity of 6"):
        cache.fill(block(7, 0), block(7, 0))


def test_memory_is_kept_from_round_to_round() -> None:
    cache = KVCache(1000)

    def fill() -> int:
        cache.reset()
        for step in range(20):
            mx.eval(cache.update(block(1, step), block(1, step)))
        return mx.get_active_memory()

    fill()
    before = fill()
    mx.reset_peak_memory()
    assert fill() == before
    # Written in place: a copy of one buffer (96 kB) would show in the peak.
    assert mx.get_peak_memory() - before < 90_000


def test_more_room_is_made_when_it_is_asked_for() -> None:
    cache = KVCache(3)
    cache.update(block(3, 0), block(3, 0))
    cache.reset(5)
    for seed in (1, 2):
        keys, _ = cache.update(block(2, seed), block(2, seed))
    np.testing.assert_array_equal(np.array(keys[:, :, 2:]), np.array(block(2, 2)))
    cache.reset(2)  # and kept
    assert cache.update(block(5, 3), block(5, 3))[0].shape[2] == 5


def test_misuse_is_named() -> None:
    cache = KVCache(3)
    with pytest.raises(ValueError, match="before anything"):
        cache.state()
    cache.update(block(2, 0), block(2, 0))
    with pytest.raises(ValueError, match="past the capacity of 3"):
        cache.update(block(2, 0), block(2, 0))
    with pytest.raises(ValueError, match="before reset"):
        cache.update(block(1, 0)[:1], block(1, 0)[:1])
    cache.reset()
    assert cache.update(block(1, 0)[:1], block(1, 0)[:1])[0].shape == (1, 3, 1, 4)
