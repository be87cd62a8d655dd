"""Window plans: every utterance once, in its place; and what is between them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_convert.data.augment import rms_dbfs
from baldwhisper_convert.data.windows import (
    WINDOW_SECONDS,
    Placed,
    Window,
    WindowSettings,
    join,
    plan_windows,
    silence,
)

RATE = 16_000
SLACK = 1e-9
"""Seconds that a sum of floats may be off."""

shares = st.floats(0, 1)
window_settings = st.builds(
    WindowSettings,
    single=shares,
    silence=st.floats(0, 0.5),
    pause=st.floats(0, 5) | st.just(30.0),
    full=shares,
)
utterances = st.lists(
    st.tuples(st.floats(0.05, 30) | st.just(30.0) | st.floats(0.05, 3), st.sampled_from("aab")),
    max_size=40,
)


@settings(deadline=None, max_examples=200)
@given(utterances, window_settings, st.integers(0, 2**40))
def test_plans(speech: list[tuple[float, str]], how: WindowSettings, seed: int) -> None:
    durations, groups = [d for d, _ in speech], [g for _, g in speech]
    plan = plan_windows(durations, groups, how, seed)
    assert plan == plan_windows(durations, groups, how, seed)
    spoken = [window for window in plan if window.items]
    assert [item.utterance for w in spoken for item in w.items] == list(range(len(speech)))
    assert plan[: len(spoken)] == spoken  # silence comes last
    assert len(plan) - len(spoken) == round(how.silence * len(spoken))
    for number, window in enumerate(spoken):
        end = 0.0
        for item in window.items:
            assert -SLACK <= item.start - end <= how.pause + SLACK
            assert item.end - item.start == pytest.approx(durations[item.utterance])
            end = item.end
        assert window.duration == end <= WINDOW_SECONDS + SLACK
        assert len({groups[item.utterance] for item in window.items}) == 1
        before = spoken[number - 1] if number else None
        goes_on = before and groups[before.items[0].utterance] == groups[window.items[0].utterance]
        assert window.follows == (number - 1 if goes_on else None)
    assert all(w.follows is None and w.duration == WINDOW_SECONDS for w in plan[len(spoken) :])


@given(utterances, st.integers(0, 99))
def test_windows_are_filled(speech: list[tuple[float, str]], seed: int) -> None:
    """Without pauses and single clips, what comes next would not have fitted."""
    durations, groups = [d for d, _ in speech], [g for _, g in speech]
    how = WindowSettings(single=0, silence=0, pause=0)
    plan = plan_windows(durations, groups, how, seed)
    for window, after in pairwise(plan):
        if after.follows is not None:
            following = durations[after.items[0].utterance]
            assert window.duration + following > WINDOW_SECONDS - SLACK


def test_shares_and_seeds() -> None:
    durations, groups = [2.0] * 6000, ["a"] * 6000
    how = WindowSettings(single=0.4, full=0.3)
    plan = plan_windows(durations, groups, how, seed=1)
    spoken = [window for window in plan if window.items]
    single = sum(len(window.items) == 1 for window in spoken) / len(spoken)
    assert single == pytest.approx(how.single, abs=0.07)
    assert sum(w.full for w in plan) / len(plan) == pytest.approx(how.full, abs=0.07)
    assert plan != plan_windows(durations, groups, how, seed=2)
    alone = plan_windows(durations, groups, WindowSettings(single=1), seed=0)
    assert all(len(window.items) <= 1 for window in alone)


@pytest.mark.parametrize("duration", [0.0, -1.0, 30.001, float("nan")])
def test_lengths_out_of_range(duration: float) -> None:
    with pytest.raises(ValueError, match="utterance 1 lasts"):
        plan_windows([1.0, duration], ["a", "a"], WindowSettings(), seed=0)


@pytest.mark.parametrize(
    "change", [{"single": 1.1}, {"silence": -0.1}, {"full": 2.0}, {"pause": 31.0}, {"margin": -1.0}]
)
def test_settings_out_of_range(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        WindowSettings(**change)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.floats(0, 0.3), st.floats(0.01, 0.5)), min_size=1, max_size=6),
    st.integers(-3, 3),
)
def test_join_puts_samples_where_the_plan_says(
    parts: list[tuple[float, float]], wrong: int
) -> None:
    """Also if a file's header was wrong by some samples."""
    items, end, sounds = [], 0.0, []
    for number, (pause, length) in enumerate(parts):
        items.append(Placed(number, end + pause, end + pause + length))
        end = items[-1].end
        sounds.append(np.full(round(length * RATE) + wrong, number + 1, np.float32))
    joined = join(Window(tuple(items), full=False), sounds)
    assert joined.dtype == np.float32
    assert joined.shape == (round(end * RATE),)
    for item, part in zip(items, sounds, strict=True):
        start = round(item.start * RATE)
        inner = joined[start : start + len(part)][: max(0, len(part) - 4)]
        assert (inner == item.utterance + 1).all()
    inside = np.zeros(len(joined), bool)
    for item in items:
        inside[max(0, round(item.start * RATE) - 4) : round(item.end * RATE) + 4] = True
    assert not joined[~inside].any()


def test_join_of_exact_parts_is_exact() -> None:
    window = Window((Placed(0, 0.1, 0.3), Placed(1, 0.3, 0.5)), full=True)
    parts = [np.arange(1, 3201, dtype=np.float32), -np.arange(1, 3201, dtype=np.float32)]
    expected = np.concatenate([np.zeros(1600, np.float32), *parts])
    np.testing.assert_array_equal(join(window, parts), expected)
    with pytest.raises(ValueError, match="zip"):
        join(window, parts[:1])


def first_seed(kind: str) -> int:
    """The first seed whose draw is that kind of silence."""
    kinds = ["zero", "white", "pink", "hum"]
    return next(s for s in range(99) if np.random.default_rng(s).choice(kinds) == kind)


def power(audio: np.ndarray, low: float, high: float) -> float:
    """Mean power per bin between two frequencies in Hz."""
    spectrum = np.abs(np.fft.rfft(audio.astype(np.float64))) ** 2
    bins = [round(f * len(audio) / RATE) for f in (low, high)]
    return float(spectrum[bins[0] : bins[1]].mean())


@pytest.mark.parametrize("seed", range(8))
def test_levels_of_silence(seed: int) -> None:
    sound = silence(seed)
    assert sound.shape == (480_000,)
    assert sound.dtype == np.float32
    assert np.isfinite(sound).all()
    assert -80.01 <= rms_dbfs(sound) <= -24.99 or not sound.any()
    np.testing.assert_array_equal(sound, silence(seed))


def test_kinds_of_silence() -> None:
    assert not silence(first_seed("zero")).any()
    white, pink, hum = (silence(first_seed(kind)) for kind in ("white", "pink", "hum"))
    assert power(white, 100, 200) / power(white, 6400, 6500) == pytest.approx(1, abs=0.3)
    assert power(pink, 100, 200) / power(pink, 1600, 3200) == pytest.approx(16, rel=0.3)
    assert power(hum, 49, 61) > 100 * power(hum, 400, 8000)


def test_every_second_silence_is_recorded() -> None:
    recording = np.sin(np.arange(1000, dtype=np.float32) / 7)
    kinds = [silence(seed, [recording]) for seed in range(60)]
    period = [np.allclose(sound[:400_000], sound[1000:401_000], atol=1e-6) for sound in kinds]
    recorded = sum(p and s.any() for p, s in zip(period, kinds, strict=True))
    assert recorded == pytest.approx(30, abs=8)
    assert all(-80.01 <= rms_dbfs(sound) <= -24.99 or not sound.any() for sound in kinds)


def test_a_recording_of_nothing_is_silence() -> None:
    nothing = np.zeros(100, np.float32)
    found = [silence(seed, [nothing]) for seed in range(8)]
    assert all(np.isfinite(sound).all() for sound in found)
    assert sum(not sound.any() for sound in found) > 2


def test_silence_of_any_length() -> None:
    lengths = [len(silence(seed, any_length=True)) / RATE for seed in range(40)]
    assert 1 <= min(lengths) < 5
    assert 26 < max(lengths) <= 30
