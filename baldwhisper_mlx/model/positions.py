"""The encoder's fixed position table, in NumPy so that the converter can use it too."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def sinusoids(length: int, channels: int) -> npt.NDArray[np.float32]:
    """Encoder positions (length, channels): sine, then cosine, timescales 1 to 10000.

    `whisper.model.sinusoids` of openai-whisper, computed in float64 so that rounding is the same
    on every machine.
    """
    scale = 10000.0 ** -np.linspace(0, 1, channels // 2)
    angles = np.arange(length)[:, None] * scale[None]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
