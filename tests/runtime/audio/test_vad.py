"""Where somebody speaks: detectors, spans, chunks, and the way back to the recording's times."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.audio import vad
from baldwhisper_mlx.audio.chunking import Span, chunks_of, cut_at_quiet, equal_parts, join_speech
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.audio.vad import Speech, spans_of, speech_spans

RATE = 16_000
SAMPLE = Path(__file__).parents[3] / "examples" / "sample.wav"
Samples = npt.NDArray[np.float32]


def noise(seconds: float, level: float, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal(round(seconds * RATE))).astype(np.float32)


def talk(seconds: float, level: float = 0.1) -> Samples:
    """Syllables: a buzz whose loudness goes up and down four times a second."""
    time = np.arange(round(seconds * RATE)) / RATE
    buzz = np.sign(np.sin(2 * np.pi * 140 * time)) + np.sin(2 * np.pi * 700 * time)
    return (level * buzz * np.abs(np.sin(2 * np.pi * 2 * time))).astype(np.float32)


def seconds(spans: list[Span]) -> list[tuple[float, float]]:
    return [(start / RATE, end / RATE) for start, end in spans]


@pytest.mark.parametrize("floor", [0.0, 0.001, 0.01])
def test_loudness_finds_talk_in_noise(floor: float) -> None:
    samples = np.concatenate([noise(3, 0), talk(2), noise(4, 0), talk(1), noise(2, 0)])
    samples += noise(len(samples) / RATE, floor)
    found = seconds(speech_spans(samples, "energy"))
    assert len(found) == 2
    np.testing.assert_allclose(found, [(2.7, 5.3), (8.7, 10.3)], atol=0.15)


@pytest.mark.parametrize(
    "samples",
    [
        noise(5, 0),
        noise(5, 1e-4),
        noise(5, 0.3),
        np.sin(2 * np.pi * 50 * np.arange(5 * RATE) / RATE).astype(np.float32),
        noise(0.001, 0.1),
    ],
    ids=["digital silence", "quiet noise", "loud noise", "hum", "16 samples"],
)
def test_nothing_stands_out_where_all_is_alike(samples: Samples) -> None:
    assert speech_spans(samples, "energy") == []


def test_talk_without_any_pause_is_heard() -> None:
    (span,) = speech_spans(talk(6), "energy")
    assert span[0] < 0.2 * RATE
    assert span[1] > 5.8 * RATE


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
    hop, how = 160, Speech(pause=pause, pad=pad, shortest=shortest)
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
    """Talk over noise as loud as that of a street, in which no detector of levels finds speech."""
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
    with pytest.raises(ValueError, match="silero or energy"):
        speech_spans(talk(1), "loud")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="release"):
        Speech(threshold=0.3, release=0.5)
    with pytest.raises(ValueError, match="negative"):
        Speech(pad=-1)


def test_without_silero_loudness_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vad.importlib.util, "find_spec", lambda name: None)
    assert vad.default_method() == "energy"
    assert len(speech_spans(np.concatenate([noise(1, 0), talk(1), noise(1, 0)]))) == 1
    with pytest.raises(ModuleNotFoundError, match=r"baldwhisper-mlx\[vad\]"):
        speech_spans(talk(1), "silero")


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


def test_silero_hears_speech_and_nothing_else() -> None:
    for name in ("silero_vad", "onnxruntime"):
        pytest.importorskip(name, reason="the extra `vad` is not installed")
    speech = load_audio(SAMPLE)
    gap = np.zeros(5 * RATE, np.float32)
    found = speech_spans(np.concatenate([gap, speech, gap]), "silero")
    assert found[0][0] == pytest.approx(5 * RATE, abs=0.5 * RATE)
    assert found[-1][1] == pytest.approx(5 * RATE + len(speech), abs=0.7 * RATE)
    hum = np.sin(2 * np.pi * 50 * np.arange(5 * RATE) / RATE).astype(np.float32)
    for sound in (noise(5, 0), noise(5, 0.1), 0.1 * hum, gap):
        assert speech_spans(sound, "silero") == []


def test_silero_is_run_without_torch() -> None:
    for name in ("silero_vad", "onnxruntime"):
        pytest.importorskip(name, reason="the extra `vad` is not installed")
    code = (
        "import sys, numpy; from baldwhisper_mlx.audio.vad import speech_spans\n"
        "speech_spans(numpy.zeros(16000, numpy.float32), 'silero')\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
