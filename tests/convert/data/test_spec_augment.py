"""SpecAugment: widths and number of the masks, the mean in their place, the same draws again."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_convert.data.batches import collate
from baldwhisper_convert.data.spec_augment import SpecAugment, spec_augment
from tests.support.tiny_speech import TinyWindows, tiny_prompts, tiny_window

BINS = 10


class RandomWindows(TinyWindows):
    """Windows of random log-mel."""

    def features(self, index: int) -> torch.Tensor:
        """The same for the same window."""
        generator = torch.Generator().manual_seed(index)
        return torch.randn(super().features(index).shape, generator=generator)


def runs(hidden: torch.Tensor) -> int:
    """Number of stretches of True."""
    return int((hidden[1:] & ~hidden[:-1]).sum()) + int(hidden[0])


@settings(deadline=None)
@given(
    st.integers(0, 3), st.integers(0, 3), st.integers(1, 60), st.floats(0, 1), st.integers(0, 99)
)
def test_bands_and_stretches_of_the_mean(
    times: int, bands: int, n_frames: int, share: float, seed: int
) -> None:
    # No value is the mean, and neither bins nor frames are alike.
    mel = torch.arange(BINS * n_frames, dtype=torch.float32).view(BINS, n_frames) ** 2 + 1
    wanted = SpecAugment(
        time_masks=times, time_share=share, frequency_masks=bands, frequency_share=share
    )
    before = mel.clone()
    masked = spec_augment(mel, wanted, random.Random(seed))
    assert torch.equal(mel, before)
    changed = masked != mel
    assert bool((masked[changed] == mel.mean()).all())
    columns, rows = changed.all(0), changed.all(1)
    assert torch.equal(changed, columns[None, :] | rows[:, None])
    if not columns.all() and not rows.all():
        assert runs(columns) <= times
        assert runs(rows) <= bands
        assert int(columns.sum()) <= times * int(share * n_frames)
        assert int(rows.sum()) <= bands * int(share * BINS)


def test_no_masks_by_default() -> None:
    mel = torch.randn(BINS, 20)
    assert not SpecAugment()
    assert torch.equal(spec_augment(mel, SpecAugment(), random.Random(0)), mel)


def test_a_width_of_zero_hides_nothing() -> None:
    mel = torch.randn(BINS, 20)
    none = SpecAugment(time_masks=5, time_share=0.0, frequency_masks=5, frequency_share=0.0)
    assert torch.equal(spec_augment(mel, none, random.Random(0)), mel)


@pytest.mark.parametrize("wrong", [
    {"time_masks": -1}, {"frequency_masks": -1}, {"time_share": 1.5}, {"frequency_share": -0.1},
])  # fmt: skip
def test_wrong_settings(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SpecAugment(**wrong)  # type: ignore[arg-type]


def test_windows_are_masked_anew_in_every_step_and_the_same_when_resumed() -> None:
    data = RandomWindows([tiny_window(i) for i in range(3)], is_mel=True, width=BINS)
    masks = SpecAugment(time_masks=2, time_share=0.5, frequency_masks=2)
    prompts = tiny_prompts()

    def features(windows: list[int], step: int, seed: int = 0) -> torch.Tensor:
        batch = collate(data, windows, prompts, step=step, seed=seed, masks=masks)
        return batch.features

    plain = collate(data, [0, 1, 2], prompts).features
    first = features([0, 1, 2], 0)
    assert not torch.equal(first, plain)
    assert torch.equal(first, features([0, 1, 2], 0))
    assert torch.equal(first[[1]], features([1], 0))
    assert not torch.equal(first, features([0, 1, 2], 1))
    assert not torch.equal(first, features([0, 1, 2], 0, seed=1))


def test_encoder_states_cannot_be_masked() -> None:
    data = TinyWindows([tiny_window()])
    with pytest.raises(ValueError, match="features"):
        collate(data, [0], tiny_prompts(), masks=SpecAugment(time_masks=1))
