"""Augmentation against the definitions of its units: dBFS, SNR, reverberation time, speed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from baldwhisper_convert.data.augment import (
    PEAK,
    Augmentation,
    add_noise,
    augment,
    change_speed,
    convolve,
    excerpt,
    impulse_response,
    pink_noise,
    rms_dbfs,
    set_level,
)
from tests.support.tiny_speech import sound

RATE = 16_000
NONE = {"speed": 0.0, "room": 0.0, "noise": 0.0}
ALL = {"speed": 1.0, "room": 1.0, "noise": 1.0}


def test_level_of_known_signals() -> None:
    assert rms_dbfs(np.full(100, -0.1, np.float32)) == pytest.approx(-20)
    sine = np.sin(2 * np.pi * np.arange(RATE) / 160).astype(np.float32)
    assert rms_dbfs(sine) == pytest.approx(-3.0103, abs=1e-3)
    assert rms_dbfs(np.zeros(10, np.float32)) == -math.inf


@example([1e-45], -20.0)
@given(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=50),
    st.floats(-80, 0),
)
def test_set_level(values: list[float], dbfs: float) -> None:
    audio = np.array(values, np.float32)
    found = set_level(audio, dbfs)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    peak = float(np.abs(found).max())
    assert peak <= PEAK + 1e-6
    if audio.any():
        assert rms_dbfs(found) == pytest.approx(dbfs, abs=0.01) or peak == pytest.approx(PEAK)
        assert rms_dbfs(found) <= dbfs + 0.01
    else:
        assert not found.any()


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 5000), st.floats(1, 2))
def test_speed_is_a_shorter_length(count: int, speed: float) -> None:
    audio = np.random.default_rng(count).standard_normal(count).astype(np.float32)
    found = change_speed(audio, speed)
    assert found.dtype == np.float32
    assert abs(len(found) - count / speed) <= 1
    assert len(found) <= count


def test_speed_moves_the_pitch() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE).astype(np.float32)
    fast = change_speed(tone, 1.25)
    assert len(fast) == RATE / 1.25
    loudest = np.abs(np.fft.rfft(fast)).argmax() * RATE / len(fast)
    assert loudest == pytest.approx(1250, abs=2)


@pytest.mark.parametrize(("t60", "wet_db"), [(0.15, -3.0), (0.4, -12.0), (0.6, -6.0)])
def test_impulse_response(t60: float, wet_db: float) -> None:
    response = impulse_response(t60, wet_db, np.random.default_rng(0))
    assert response.shape == (round(t60 * RATE),)
    assert response[0] == 1
    assert not response[1:48].any()  # 3 ms
    energy = np.square(response[1:].astype(np.float64))
    assert 10 * math.log10(energy.sum()) == pytest.approx(wet_db, abs=0.01)
    # Schroeder's backward integral falls by 60 dB in t60; read from its first half.
    left = 10 * np.log10(np.cumsum(energy[::-1])[::-1])
    time = np.arange(len(left)) / RATE
    part = slice(100, len(left) // 2)
    slope = np.polyfit(time[part], left[part], 1)[0]
    assert slope == pytest.approx(-60 / t60, rel=0.15)


@given(st.integers(1, 300), st.integers(1, 300))
def test_convolution(n: int, m: int) -> None:
    rng = np.random.default_rng(n * 1000 + m)
    audio, response = (rng.standard_normal(k).astype(np.float32) for k in (n, m))
    found = convolve(audio, response)
    np.testing.assert_allclose(found, np.convolve(audio, response)[:n], atol=1e-4)


def test_pink_noise_falls_by_one_over_f() -> None:
    noise = pink_noise(2**17, np.random.default_rng(0))
    assert noise.shape == (2**17,)
    spectrum = np.abs(np.fft.rfft(noise))[100:60_000] ** 2
    slope = np.polyfit(np.log(np.arange(100, 60_000)), np.log(spectrum), 1)[0]
    assert slope == pytest.approx(-1, abs=0.05)


@given(st.floats(-5, 40), st.integers(0, 99))
def test_noise_has_the_wanted_ratio(snr: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    speech, noise = (rng.standard_normal(4000).astype(np.float32) for _ in range(2))
    added = add_noise(speech, 0.3 * noise, snr) - speech
    assert rms_dbfs(speech) - rms_dbfs(added) == pytest.approx(snr, abs=0.05)
    assert np.corrcoef(added, noise)[0, 1] > 0.99


def test_noise_needs_both() -> None:
    speech, nothing = sound(0.1), np.zeros(1600, np.float32)
    assert add_noise(speech, nothing, 10) is speech
    assert add_noise(nothing, speech, 10) is nothing


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.floats(0.02, 0.5), st.floats(1, 2))
def test_augment(seed: int, seconds: float, fastest: float) -> None:
    how = Augmentation(**ALL, fastest=fastest, snr=(5, 20), level=(-30, -20))
    audio = sound(seconds, seed)
    kept = audio.copy()
    found, speed = augment(audio, how, np.random.default_rng(seed))
    again, same = augment(audio, how, np.random.default_rng(seed))
    np.testing.assert_array_equal(found, again)
    np.testing.assert_array_equal(audio, kept)
    assert speed == same
    assert 1 <= speed <= fastest
    assert abs(len(found) - len(audio) / speed) <= 1
    assert len(found) <= len(audio)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    peak = float(np.abs(found).max())
    assert -30.01 <= rms_dbfs(found) <= -19.99 or peak == pytest.approx(PEAK)


def test_nothing_but_the_level_if_all_else_is_off() -> None:
    audio = sound(0.2)
    found, speed = augment(audio, Augmentation(**NONE), np.random.default_rng(0))
    assert speed == 1
    np.testing.assert_allclose(found / found[0], audio / audio[0], rtol=1e-3)


@pytest.mark.parametrize("name", list(ALL))
def test_each_alone_does_something(name: str) -> None:
    audio = sound(0.2)
    found, speed = augment(audio, Augmentation(**(NONE | {name: 1.0})), np.random.default_rng(1))
    assert (speed > 1) == (name == "speed")
    assert (len(found) < len(audio)) == (name == "speed")
    if name != "speed":
        plain = set_level(audio, rms_dbfs(found))
        assert rms_dbfs(found - plain) > rms_dbfs(found) - 40


def test_shares() -> None:
    how = Augmentation(**(NONE | {"speed": 0.25}))
    audio = sound(0.005)
    rng = np.random.default_rng(0)
    faster = sum(augment(audio, how, rng)[1] > 1 for _ in range(1000))
    assert faster == pytest.approx(250, abs=50)


def test_silence_stays_silence() -> None:
    nothing = np.zeros(8000, np.float32)
    found, _ = augment(nothing, Augmentation(**ALL), np.random.default_rng(0))
    assert not found.any()


@pytest.mark.parametrize(
    "change",
    [
        {"speed": -0.1},
        {"room": 1.5},
        {"noise": 2.0},
        {"snr": (30.0, 8.0)},
        {"level": (-20.0,)},
        {"fastest": 0.9},
        {"fastest": 2.5},
    ],
)
def test_settings_out_of_range(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        Augmentation(**change)


def test_ranges_from_a_recipe_are_lists() -> None:
    assert Augmentation(snr=[1, 2]).snr == (1, 2)  # type: ignore[arg-type]


@given(length=st.integers(1, 50), count=st.integers(0, 200), seed=st.integers(0, 99))
def test_excerpts_are_parts_of_the_repeated_recording(length: int, count: int, seed: int) -> None:
    recording = np.arange(length, dtype=np.float32)
    found = excerpt(recording, count, np.random.default_rng(seed))
    assert found.dtype == np.float32
    assert len(found) == count
    if count:
        np.testing.assert_array_equal(found, (found[0] + np.arange(count)) % length)


def test_noise_is_taken_from_recordings_three_times_in_four() -> None:
    """A recorded tone is the only noise with a single frequency."""
    audio = sound(0.1)
    tone = np.sin(2 * np.pi * 3000 * np.arange(400) / 16_000).astype(np.float32)
    how = Augmentation(**(NONE | {"noise": 1.0}), snr=(10, 10), level=(-20, -20))
    recorded = 0
    for seed in range(200):
        found, _ = augment(audio, how, np.random.default_rng(seed), [tone])
        noise = found * (audio @ found) / (found @ found) - audio
        spectrum = np.abs(np.fft.rfft(noise)) ** 2
        recorded += bool(spectrum.max() > 0.5 * spectrum.sum())
    assert recorded == pytest.approx(150, abs=20)


def test_draws_without_recordings_are_as_before() -> None:
    how = Augmentation(**ALL)
    found, _ = augment(sound(0.2), how, np.random.default_rng(3))
    same, _ = augment(sound(0.2), how, np.random.default_rng(3), [])
    np.testing.assert_array_equal(found, same)
