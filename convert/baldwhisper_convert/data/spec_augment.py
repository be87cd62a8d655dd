"""SpecAugment: hides parts of a log-mel spectrogram (Park et al., arXiv 1904.08779, section 2).

Time warping is left out: the paper finds that it helps least and costs most.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from torch import Tensor

from baldwhisper_convert.data.ranges import check_range


@dataclass(frozen=True, kw_only=True)
class SpecAugment:
    """How much of a window's log-mel is hidden. Without masks, which is the default, nothing is.

    Raises:
        ValueError: a negative number of masks, or a share outside 0 to 1.
    """

    time_masks: int = 0
    """Masks over all bins of some frames."""
    time_share: float = 0.1
    """Longest time mask, as a share of the window's frames: masks in proportion to the length
    (Park et al., arXiv 1912.05533), for windows of any length."""
    frequency_masks: int = 0
    """Masks over all frames of some bins."""
    frequency_share: float = 0.3
    """Widest frequency mask, as a share of the bins; 27 of 80 in the paper."""

    def __post_init__(self) -> None:
        check_range(self, ("time_share", "frequency_share"), 0, 1)
        for name in ("time_masks", "frequency_masks"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")

    def __bool__(self) -> bool:
        """Whether anything is hidden."""
        return self.time_masks > 0 or self.frequency_masks > 0


def check_masks(masks: SpecAugment, *, is_mel: bool) -> None:
    """Raises ValueError for masks on data that is not log-mel."""
    if masks and not is_mel:
        raise ValueError(
            'SpecAugment hides parts of log-mel: prepare the data with features = "mel"'
        )


def spec_augment(mel: Tensor, settings: SpecAugment, rng: random.Random) -> Tensor:
    """Replaces random bands and stretches of a spectrogram by its mean.

    The width of a mask is drawn evenly from 0 to the widest, then its place.

    Args:
        mel: log-mel (n_mels, T), which is not changed.
        settings: number and width of the masks.
        rng: source of the draws.

    Returns:
        (n_mels, T).
    """
    n_mels, n_frames = mel.shape
    masked, mean = mel.clone(), mel.mean()
    for _ in range(settings.frequency_masks):
        start, end = _draw(n_mels, settings.frequency_share, rng)
        masked[start:end] = mean
    for _ in range(settings.time_masks):
        start, end = _draw(n_frames, settings.time_share, rng)
        masked[:, start:end] = mean
    return masked


def _draw(length: int, share: float, rng: random.Random) -> tuple[int, int]:
    """Start and end of a mask."""
    width = rng.randint(0, int(share * length))
    start = rng.randint(0, length - width)
    return start, start + width
