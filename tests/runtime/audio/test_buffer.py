"""Samples in a file are the samples in memory, and take memory for a block at a time."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baldwhisper_mlx.audio import buffer, vad
from baldwhisper_mlx.audio.buffer import SampleBuffer, Samples, blocks, is_finite, release_pages
from baldwhisper_mlx.audio.chunking import chunks_of, cut_at_quiet, join_speech
from baldwhisper_mlx.audio.features import N_FRAMES, LogMelSpectrogram
from baldwhisper_mlx.audio.vad import speech_spans

MINUTES = 8
MEGABYTES = MINUTES * 60 * 16_000 * 4 / 1e6


def sound(n: int) -> Samples:
    return np.random.default_rng(n).uniform(-0.5, 0.5, n).astype(np.float32)


@pytest.fixture
def in_a_file(monkeypatch: pytest.MonkeyPatch) -> Samples:
    """Eight minutes, of which half a minute at a time is silent."""
    monkeypatch.setattr(buffer, "_MOST_IN_MEMORY", 10)
    collector = SampleBuffer()
    for number in range(2 * MINUTES):
        collector.add(sound(30 * 16_000) * (number % 2))
    found = collector.samples()
    assert isinstance(found, np.memmap)
    return found


@given(st.integers(0, 50), st.integers(1, 60))
def test_blocks_are_all_samples_in_order(n: int, size: int) -> None:
    parts = list(blocks(sound(n), size))
    assert all(0 < len(part) <= size for part in parts)
    np.testing.assert_array_equal(np.concatenate([*parts, sound(0)]), sound(n))


def test_released_samples_are_read_again(in_a_file: Samples) -> None:
    before = np.array(in_a_file)
    release_pages(in_a_file)
    release_pages(in_a_file[5:9])
    np.testing.assert_array_equal(in_a_file, before)
    release_pages(before)  # in memory: nothing to let go
    np.testing.assert_array_equal(in_a_file, before)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "passing",
    [
        lambda recording: is_finite(recording),
        lambda recording: LogMelSpectrogram(recording, 80).window(N_FRAMES),
        lambda recording: speech_spans(recording),
        lambda recording: join_speech(recording, [(0, len(recording))]),
        lambda recording: chunks_of(recording, [(0, len(recording))], 30 * 16_000),
    ],
    ids=["is_finite", "features", "speech_spans", "join_speech", "chunks_of"],
)
def test_reading_a_mapped_file_leaves_none_of_it_in_memory(in_a_file: Samples, passing) -> None:  # type: ignore[no-untyped-def]
    passing(in_a_file)  # libraries are files too
    release_pages(in_a_file)
    before = mapped_megabytes()
    assert passing(in_a_file) is not None
    assert mapped_megabytes() - before < MEGABYTES / 4
    in_a_file.max()  # what a look at all of it would take
    assert mapped_megabytes() - before > MEGABYTES / 2


def mapped_megabytes() -> float:
    """Memory of this process that is of files."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(r"RssFile:\s+(\d+) kB", status)[0]) / 1000


@pytest.mark.parametrize("n", [1, 159, 160, 161, 16_000, 48_001])
def test_cuts_by_blocks(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    whole = cut_at_quiet(sound(n), 5000)
    monkeypatch.setattr(vad, "_BLOCK_HOPS", 7)
    assert cut_at_quiet(sound(n), 5000) == whole
