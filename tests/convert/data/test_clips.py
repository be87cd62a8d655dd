"""Audio from memory is read again when it is needed; it is never all in memory."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from baldwhisper_convert.data.audio_list import AudioFingerprint
from baldwhisper_convert.data.clips import Clips, Reading
from baldwhisper_convert.data.prepare import prepare
from baldwhisper_convert.data.prepare_settings import PrepareSettings
from baldwhisper_convert.data.utterances import BadRows, Utterance
from baldwhisper_convert.data.windows import WindowSettings
from baldwhisper_mlx.config import SAMPLE_RATE
from tests.support.tiny_speech import sound, tiny_teacher

N_CLIPS, CLIP_BYTES = 1000, 40_000


def clip(number: int, seconds: float = 0.3) -> Utterance:
    """One that a Hub data set gives: the audio is in memory."""
    file = io.BytesIO()
    soundfile.write(file, sound(seconds, number), SAMPLE_RATE, format="WAV")
    return Utterance(f"set[{number}]", file.getvalue(), f"text {number}")


def reading(utterances: list[Utterance], bad: BadRows | None = None) -> tuple[Reading, list[int]]:
    """The utterances, and a list that gets the number of each that is read."""
    read: list[int] = []

    def again(bad: BadRows, **_: object) -> Iterator[Utterance]:
        for number, utterance in enumerate(utterances):
            read.append(number)
            if "bad" in utterance.text:
                bad.add("bad", utterance.name)
                continue
            yield utterance

    return Reading(again, bad or BadRows()), read


def test_audio_is_read_again_in_order() -> None:
    utterances = [clip(i) for i in range(6)]
    source, read = reading(utterances)
    clips = Clips(source, lambda u: None if u.text == "text 2" else u.seconds())
    assert [kept.text for kept in clips.kept] == [f"text {i}" for i in (0, 1, 3, 4, 5)]
    assert {kept.audio for kept in clips.kept} == {b""}
    assert clips.durations == pytest.approx([0.3] * 5)
    assert clips.fingerprint == AudioFingerprint.of(u for u in utterances if u.text != "text 2")
    read.clear()
    assert [clips[i] for i in (0, 2, 4)] == [utterances[i] for i in (0, 3, 5)]
    assert read == list(range(6))
    assert clips[1] == utterances[1]
    assert read == [*range(6), 0, 1]


def test_files_are_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, sound(0.5), SAMPLE_RATE)
    source, read = reading([Utterance("a", str(path), "a")])
    clips = Clips(source, Utterance.seconds)
    read.clear()
    assert clips[0].audio == str(path)
    assert read == []


def test_bad_rows_are_counted_once() -> None:
    bad = BadRows(allowed=True)
    source, _ = reading([clip(0), Utterance("b", b"", "bad"), clip(2)], bad)
    clips = Clips(source, Utterance.seconds)
    assert [clips[1].text, clips[0].text, clips[1].text] == ["text 2", "text 0", "text 2"]
    assert bad.counts == {"bad": 1}


def test_data_that_changes_between_two_readings_is_refused() -> None:
    utterances = [clip(i) for i in range(3)]
    source, _ = reading(utterances)
    clips = Clips(source, Utterance.seconds)
    del utterances[1]
    assert clips[0].text == "text 0"
    for number in (1, 2):
        with pytest.raises(ValueError, match=rf"set\[{number}\]: not found when .* read again"):
            clips[number]


def test_preparing_many_clips_keeps_few_of_them_in_memory(tmp_path: Path) -> None:
    """Ten times as many clips, 36 MB more of audio, need hardly more memory."""
    noise = np.random.default_rng(0).integers(-9000, 9000, CLIP_BYTES // 2, np.int16)
    how = WindowSettings(silence=0.0, full=0.0, pause=0.0, single=0.0)
    settings = PrepareSettings(labels="none", features="mel", windows=how)
    teacher = tiny_teacher()

    def peak(count: int) -> int:
        def many(**_: object) -> Iterator[Utterance]:
            for number in range(count):
                file = io.BytesIO()
                soundfile.write(file, np.roll(noise, number), SAMPLE_RATE, format="WAV")
                yield Utterance(f"set[{number}]", file.getvalue(), "")

        tracemalloc.start()
        try:
            source = Reading(many, BadRows())
            data = prepare(teacher, source, settings, tmp_path / str(count), batch_size=1)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert sum(window.duration for window in data.windows) > 0.9 * count * CLIP_BYTES / 32_000
        return most

    peak(1)  # imports modules
    assert peak(N_CLIPS) - peak(N_CLIPS // 10) < 0.1 * N_CLIPS * CLIP_BYTES
