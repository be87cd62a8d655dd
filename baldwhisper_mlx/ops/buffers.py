"""Freed memory that MLX keeps, which grows with every new shape unless somebody clears it.

A limit would be a setting of the whole process, which belongs to who runs it.
"""

from __future__ import annotations

import mlx.core as mx

MOST_KEPT = 64 * 2**20
"""Bytes: those of some steps of decoding."""


def trim() -> None:
    """Gives freed memory back if it is more than `MOST_KEPT`."""
    if mx.get_cache_memory() > MOST_KEPT:
        mx.clear_cache()
