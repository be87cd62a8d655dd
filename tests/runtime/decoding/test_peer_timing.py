"""What openai-whisper's test_timing.py expects of its algorithms, of ours.

| theirs | ours |
|---|---|
| test_dtw | test_the_cheapest_path_is_found |
| test_median_filter | test_the_filter_is_scipys_with_mirrored_ends |
| test_dtw_cuda_equivalence, test_median_filter_equivalence | none: NumPy on any device |
"""

from __future__ import annotations

import re

import numpy as np
import pytest
import scipy.ndimage

from baldwhisper_mlx.decoding.dtw import median_filter, token_start_positions


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", [(10, 20), (32, 16), (123, 1500), (234, 189)])
def test_the_cheapest_path_is_found(shape: tuple[int, int], seed: int) -> None:
    """A random path on which alone the costs are negative, with diagonals for its corners."""
    rng = np.random.default_rng(seed)
    n_rows, n_columns = shape
    moves = list("d" * (n_rows - 1) + "r" * (n_columns - 1))
    rng.shuffle(moves)
    steps = re.sub("dr|rd", "x", "".join(moves))
    cost = rng.random(shape, np.float32)
    row = column = 0
    starts = [0]
    cost[0, 0] -= 1
    for step in steps:
        row += step in "dx"
        column += step in "rx"
        if step in "dx":
            starts.append(column)
        cost[row, column] -= 1
    assert (row, column) == (n_rows - 1, n_columns - 1)
    assert token_start_positions(cost).tolist() == starts


@pytest.mark.parametrize("width", [3, 5, 7, 13])
@pytest.mark.parametrize("shape", [(10,), (1, 15), (4, 5, 345), (2, 3, 24, 512)])
def test_the_filter_is_scipys_with_mirrored_ends(shape: tuple[int, ...], width: int) -> None:
    x = np.random.default_rng(width).standard_normal(shape).astype(np.float32)
    size = (1,) * (len(shape) - 1) + (width,)
    # scipy calls it mirror to leave the outermost value out of its image
    expected = scipy.ndimage.median_filter(x, size, mode="mirror")
    np.testing.assert_array_equal(median_filter(x, width), expected)
