"""Dynamic time warping of tokens and audio along the decoder's attention. NumPy only.

The steps are those of openai-whisper's `timing.py`, without numba.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

MEDIAN_WIDTH = 7
"""Positions (20 ms) over which attention is smoothed."""

_DIAGONAL, _DOWN, _RIGHT = 0, 1, 2
"""Steps of a path: to the next row and column, to the next row, to the next column."""


def smoothed(scores: Matrix) -> Matrix:
    """Attention of the alignment heads as one matrix: standardized, filtered and averaged.

    Args:
        scores: before the softmax, (heads, rows, T).

    Returns:
        (rows, T).
    """
    # Softmax; the maximum goes first so that exp does not overflow.
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    # Standardized over the rows: a position that all tokens attend to says nothing about any.
    mean, deviation = (f(weights, axis=-2, keepdims=True) for f in (np.mean, np.std))
    weights = (weights - mean) / np.maximum(deviation, 1e-12)
    averaged: Matrix = median_filter(weights, MEDIAN_WIDTH).mean(axis=0)
    return averaged


def median_filter(x: Matrix, width: int) -> Matrix:
    """Median of `width` (odd) neighbours along the last axis, mirrored at its ends.

    An axis that is too short to be mirrored stays as it is.
    """
    half = width // 2
    if x.shape[-1] <= half:
        return x
    padded = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(half, half)], mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1)
    filtered: Matrix = np.median(windows, axis=-1).astype(x.dtype)
    return filtered


def token_start_positions(cost: Matrix) -> npt.NDArray[np.int64]:
    """The column at which each row of a cost matrix begins on the cheapest path through it.

    With tokens as rows and encoder positions as columns: the position at which each token starts.
    The path runs from (0, 0) to the last row and column by steps of (1, 1), (1, 0) and (0, 1)
    (dynamic time warping: Sakoe and Chiba, 1978).

    Args:
        cost: (N, M).

    Returns:
        (N,), not decreasing, the first of them 0.
    """
    steps = _cheapest_steps(cost)
    n_rows, n_columns = cost.shape
    starts = np.zeros(n_rows, np.int64)
    # Back from the end: where the path enters a row from the row above, that row starts.
    row, column = n_rows - 1, n_columns - 1
    while row > 0:
        step = steps[row + column, row]
        if column == 0 or step != _RIGHT:
            starts[row] = column
            row -= 1
            column -= int(step == _DIAGONAL and column > 0)
        else:
            column -= 1
    return starts


def _cheapest_steps(cost: Matrix) -> npt.NDArray[np.int8]:
    """The last step of the cheapest path to each cell, (N + M, N): by diagonal and row.

    Cell (i, j) lies on diagonal i + j. The cells of a diagonal do not depend on each other, so
    each diagonal is one vector operation.
    """
    n_rows, n_columns = cost.shape
    steps = np.zeros((n_rows + n_columns, n_rows), np.int8)
    # Costs of the cheapest paths to the last diagonal and the one before it, by row.
    before = last = np.full(n_rows, np.inf)
    for diagonal in range(n_rows + n_columns - 1):
        # Rows of the diagonal that lie in the matrix.
        rows = np.arange(max(0, diagonal - n_columns + 1), min(n_rows, diagonal + 1))
        # Costs of coming from each side: cells outside of the matrix hold infinity.
        from_diagonal = np.where(rows > 0, before[rows - 1], np.inf)
        from_above = np.where(rows > 0, last[rows - 1], np.inf)
        from_left = last[rows]
        if diagonal == 0:
            from_diagonal = np.zeros(1)  # the path begins here
        # Ties go to the right, as in the reference.
        step = np.full(len(rows), _RIGHT, np.int8)
        step[(from_above < from_diagonal) & (from_above < from_left)] = _DOWN
        step[(from_diagonal < from_above) & (from_diagonal < from_left)] = _DIAGONAL
        cheapest = np.choose(step, [from_diagonal, from_above, from_left])
        # float64, because a path sums hundreds of costs.
        current = np.full(n_rows, np.inf)
        current[rows] = cost[rows, diagonal - rows].astype(np.float64) + cheapest
        steps[diagonal, rows] = step
        before, last = last, current
    return steps
