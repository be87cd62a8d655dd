"""Ranges of a recording: how they are given, and that nothing else is transcribed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.vad import VadOptions
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.decoding.decoder import Decoder
from baldwhisper_mlx.transcription import strategies, without_pauses
from baldwhisper_mlx.transcription.options import OptionWarning
from baldwhisper_mlx.transcription.ranges import frames_of, parse_ranges
from baldwhisper_mlx.transcription.transcribe import transcribe
from tests.runtime.conftest import RATE, tone
from tests.support.scripted import script, timed

KEPT: dict[str, Any] = {"language": "en", "no_speech_threshold": None}


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> LoadedModel:
    return load_model(model_folder, dtype="float32")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("0-10,60-", ((0, 10), (60, math.inf))),
        (" 0 - 10 , 60 - ", ((0, 10), (60, math.inf))),
        ("0.5-1e2", ((0.5, 100),)),
        ("0,10,60", ((0, 10), (60, math.inf))),
        ("0", ((0, math.inf),)),
        ("", ((0, math.inf),)),
        ([], ((0, math.inf),)),
        ([0, 10, 60, 70.5], ((0, 10), (60, 70.5))),
        ([np.float32(1), 2], ((1, 2),)),
        ([(0, 10), (10, None)], ((0, 10), (10, math.inf))),
        ([[0, 10], [60, math.inf]], ((0, 10), (60, math.inf))),
    ],
    ids=str,
)
def test_forms(given: Any, expected: tuple[tuple[float, float], ...]) -> None:
    assert parse_ranges(given) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("10-5", "from 10 to 5 s does not end after it starts"),
        ("5-5", "from 5 to 5 s"),
        ("0-10,5-20", "starts at 5 s begins before the one before it ends"),
        ("20-30,0-10", "starts at 0 s begins before"),
        ("0-,60-70", "starts at 60 s begins before"),
        ("0-10,60", "'60' is no range such as 0-10"),
        ("-5-10", "'' is no time"),
        ("a-b", "'a' is no time"),
        ("nan-5", "'nan' is no time"),
        ("inf-", "does not end after"),
        ("1:30-2:00", "'1:30' is no time"),
        ([0, -1], "-1 is no time"),
        ([0, "x"], "'x' is no time"),
        ([(0, 1), 5], "mixes pairs and numbers"),
        ([(0, 1, 2)], "mixes pairs and numbers"),
        ([None, 5], "does not end after"),
    ],
    ids=str,
)
def test_bad_ranges_are_named(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match="clip_timestamps: .*" + message.replace("(", r"\(")):
        parse_ranges(given)


def test_ranges_are_cut_at_the_end_of_the_recording() -> None:
    ranges = parse_ranges([(0, 0.004), (1, 2), (4, 9), (20, None)])
    assert frames_of(ranges, 500) == ((100, 200), (400, 500))
    assert frames_of(parse_ranges([]), 500) == ((0, 500),)


def windows(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The features of every window that is encoded."""
    seen: list[Any] = []
    encode = Decoder.encode

    def noted(self: Decoder, mel: Any, n_frames: Any) -> None:
        seen.extend(zip(np.array(mel), n_frames, strict=True))
        encode(self, mel, n_frames)

    monkeypatch.setattr(Decoder, "encode", noted)
    return seen


def test_windows_end_with_a_range_and_times_are_those_of_the_recording(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timestamps past the end of a range are cut there, and the next range is not shortened."""
    outputs = [
        timed(loaded, (0.0, " one", 2.0), (2.0, " two", 9.0)),
        timed(loaded, (0.0, " three", 29.0)),
        timed(loaded, (0.0, " four", 3.0)),
    ]
    prompts = script(monkeypatch, outputs)
    seen = windows(monkeypatch)
    found = transcribe(tone(50), loaded, clip_timestamps="4-10,10.5-40.5,48-60", **KEPT)
    assert [(s.seek, s.start, s.end, s.text) for s in found.segments] == [
        (400, 4.0, 6.0, " one"),
        (400, 6.0, 10.0, " two"),
        (1050, 10.5, 39.5, " three"),
        (4800, 48.0, 50.0, " four"),
    ]
    assert found.duration == 50
    assert [frames for _, frames in seen] == [600, 3000, 200]
    for window, frames in seen:
        assert window[:frames].all()
        assert not window[frames:].any()
    begins = [prompt.index(loaded.tokenizer.sot) for prompt in prompts]
    assert begins[0] == 0
    assert begins[1] > 5  # conditioned on the text of the range before


@pytest.mark.parametrize(
    "way",
    [
        {"vad": VadOptions(min_silence_duration=2)},
        {"batch_size": 2},
        {"vad": VadOptions(min_silence_duration=2), "batch_size": 3},
    ],
)
def test_other_ways_see_nothing_outside_the_ranges(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, way: dict[str, Any]
) -> None:
    """The recording is a ramp, so samples tell where they come from."""
    samples = (1 + np.arange(100 * RATE, dtype=np.float32)) / (100 * RATE)
    asked: list[tuple[float, float]] = []

    def speech(part: Samples, wanted: VadOptions, *_: Any) -> list[tuple[int, int]]:
        assert wanted == (VadOptions(min_silence_duration=2) if "vad" in way else VadOptions())
        asked.append((100 * float(part[0]), 100 * float(part[-1])))
        return [(RATE, len(part) - RATE)]  # all but a second at either end

    for module in (strategies, without_pauses):
        monkeypatch.setattr(module, "speech_spans", speech)
    encoded = windows(monkeypatch)
    script(monkeypatch, [timed(loaded, (0.0, f" part {i}", 29.0)) for i in range(12)])
    found = transcribe(samples, loaded, clip_timestamps=[(10, 40), (70, 95)], **KEPT, **way)
    assert found.segments
    for segment in found.segments:
        assert 10 <= segment.start <= segment.end <= 40 or 70 <= segment.start <= segment.end <= 95
    if "vad" in way:
        np.testing.assert_allclose(asked, [(10, 40), (70, 95)], atol=0.01)
        assert sum(frames for _, frames in encoded) == 100 * (28 + 23)
    else:
        assert sum(frames for _, frames in encoded) == 100 * (30 + 25)
    assert found.duration == 100


def test_a_range_behind_the_end_is_warned_of(loaded: LoadedModel) -> None:
    for way in ({}, {"vad": True}, {"batch_size": 2}):
        with pytest.warns(OptionWarning, match=r"starts at 60 s is left out: .* ends at 3\.00 s"):
            found = transcribe(tone(3), loaded, clip_timestamps="60-70", **KEPT, **way)
        assert (found.text, found.segments, found.duration) == ("", (), 3.0)


def test_digital_silence_in_a_range_is_passed_over(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = np.zeros(100 * RATE, np.float32)
    samples[45 * RATE :] = tone(55)
    script(monkeypatch, [timed(loaded, (0.0, " text", 2.0))])
    found = transcribe(samples, loaded, clip_timestamps="0-5,8-40,41-47", **KEPT)
    (segment,) = found.segments
    assert 44.9 < segment.start < 45.0
