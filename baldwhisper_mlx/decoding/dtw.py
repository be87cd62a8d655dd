"""Attention as an alignment of tokens and audio: filtering, and dynamic time warping. NumPy only.

The steps are those of openai-whisper's `timing.py`, without numba.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

MEDIAN_WIDTH = 7
"""Positions (20 ms) over which attention is smoothed."""


def smoothed(scores: Matrix) -> Matrix:
    """Attention (rows, T) of heads (heads, rows, T), standardized, filtered and averaged.

    Every position of a head is standardized over the rows, so that positions all tokens look at
    count for nothing.
    """
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mean, deviation = (f(weights, axis=-2, keepdims=True) for f in (np.mean, np.std))
    weights = (weights - mean) / np.maximum(deviation, 1e-12)
    averaged: Matrix = median_filter(weights, MEDIAN_WIDTH).mean(axis=0)
    return averaged


def median_filter(x: Matrix, width: int) -> Matrix:
    """Median of `width` (odd) neighbours along the last axis, mirrored at its ends.

    What is too short to be mirrored stays as it is.
    """
    half = width // 2
    if x.shape[-1] <= half:
        return x
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(half, half)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1)
    filtered: Matrix = np.median(windows, axis=-1).astype(x.dtype)
    return filtered


def first_positions(cost: Matrix) -> npt.NDArray[np.int64]:
    """Where each row of a cost matrix (N, M) begins on the cheapest path through it.

    The path runs from (0, 0) to the last row and column by steps of (1, 1), (1, 0) and (0, 1)
    (dynamic time warping), diagonal by diagonal, because cells of a diagonal do not depend on each
    other.

    Returns:
        (N,), not decreasing, the first of them 0.
    """
    n_rows, n_columns = cost.shape
    steps = np.zeros((n_rows + n_columns, n_rows), np.int8)  # by diagonal and row
    before = last = np.full(n_rows, np.inf)
    for diagonal in range(n_rows + n_columns - 1):
        low, high = max(0, diagonal - n_columns + 1), min(n_rows, diagonal + 1)
        rows = np.arange(low, high)
        both = np.where(rows > 0, before[rows - 1], np.inf)
        down = np.where(rows > 0, last[rows - 1], np.inf)
        right = last[rows]
        if diagonal == 0:
            both = np.zeros(1)
        # Ties go to the right, as in the reference.
        choice = np.full(len(rows), 2, np.int8)
        choice[(down < both) & (down < right)] = 1
        choice[(both < down) & (both < right)] = 0
        best = np.where(choice == 0, both, np.where(choice == 1, down, right))
        now = np.full(n_rows, np.inf)
        now[rows] = cost[rows, diagonal - rows].astype(np.float64) + best
        steps[diagonal, rows] = choice
        before, last = last, now
    starts = np.zeros(n_rows, np.int64)
    row, column = n_rows - 1, n_columns - 1
    while row > 0:
        step = steps[row + column, row]
        if column == 0 or step < 2:
            starts[row] = column
            row -= 1
            column -= int(step == 0 and column > 0)
        else:
            column -= 1
    return starts
