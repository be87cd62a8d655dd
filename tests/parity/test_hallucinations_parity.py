"""Which segments are left out as made up, and where the next window begins, as openai-whisper does.

Both programs get the same tokens and the same words, window by window, so that only the rules
between them and the segments are compared: `hallucination_silence_threshold`, and ranges.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import baldwhisper_mlx
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.decoding.alignment import Alignment
from baldwhisper_mlx.decoding.decoder import Decoder
from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.output.segment import Segment, Word
from baldwhisper_mlx.transcription import window_segments
from tests.parity.test_transcription_parity import same_vocabulary  # noqa: F401

whisper_transcribe = pytest.importorskip("whisper.transcribe")
TheirResult = pytest.importorskip("whisper.decoding").DecodingResult

RATE = 16_000
NOISE = (0.1 * np.random.default_rng(0).standard_normal(100 * RATE)).astype(np.float32)
TEXTS = (" a", " bc", " .", " word", "!")
Words = list[tuple[float, float, str, float]]


@dataclasses.dataclass(frozen=True)
class Window:
    """Segments of (start, end, words) in seconds of the window; whether a timestamp ends it."""

    segments: tuple[tuple[float, float, Words], ...]
    is_complete: bool


SPOKEN: Words = [(0.5, 0.9, " a", 0.9), (0.9, 1.4, " word", 0.9), (26.0, 27.3, " b", 0.9)]
ORDINARY = Window(((0.5, 27.3, SPOKEN),), True)


@st.composite
def window(draw: st.DrawFn) -> Window:
    """Short and long words, probable or not, close together or with pauses between them."""
    segments, time = [], 0.0
    for _ in range(draw(st.integers(1, 4))):
        time += draw(st.sampled_from([0.0, 0.3, 1.5, 2.5, 6.0]))
        start, words = time, []
        for _ in range(draw(st.integers(0, 4))):
            length = draw(st.sampled_from([0.02, 0.1, 0.3, 0.3, 2.5]))
            probability = draw(st.sampled_from([0.05, 0.5, 0.9, 0.9]))
            words.append((time, time + length, draw(st.sampled_from(TEXTS)), probability))
            time += length
        time += draw(st.sampled_from([0.1, 0.5]))
        segments.append((start, time, words))
    return Window(tuple(segments), draw(st.booleans()))


def tokens_of(window: Window, loaded: LoadedModel) -> list[int]:
    begin, tokens = loaded.tokenizer.timestamp_begin, []
    for start, end, words in window.segments:
        text = "".join(word for _, _, word, _ in words) or " -"
        tokens += [
            begin + round(start / 0.02),
            *loaded.tokenizer.encode(text),
            begin + round(end / 0.02),
        ]
    # Without a second timestamp at the end there is speech that the next window decodes again.
    return tokens if window.is_complete else [*tokens, tokens[-1]]


def theirs(
    windows: Sequence[Window], loaded: LoadedModel, options: dict[str, Any]
) -> list[dict[str, Any]]:
    """openai-whisper's segments."""
    number = iter(range(len(windows)))
    current: list[Window] = []

    def decode(mel: torch.Tensor, _: Any) -> Any:
        current[:] = [windows[next(number)]]
        return TheirResult(
            audio_features=mel, language="en", tokens=tokens_of(current[0], loaded),
            avg_logprob=-0.1, no_speech_prob=0.0, temperature=0.0, compression_ratio=1.0,
        )  # fmt: skip

    def add_words(*, segments: list[dict[str, Any]], **_: Any) -> None:
        for segment, (_, _, words) in zip(segments, current[0].segments, strict=True):
            offset = segment["seek"] / 100
            segment["words"] = [
                {
                    "word": w,
                    "start": round(offset + a, 2),
                    "end": round(offset + b, 2),
                    "probability": p,
                }
                for a, b, w, p in words
            ]
            if words:
                segment["start"] = segment["words"][0]["start"]
                segment["end"] = segment["words"][-1]["end"]

    model = SimpleNamespace(
        dims=SimpleNamespace(n_mels=80, n_audio_ctx=1500, n_text_ctx=448),
        device=torch.device("cpu"), is_multilingual=True, num_languages=99, decode=decode,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whisper_transcribe, "add_word_timestamps", add_words)
        found = whisper_transcribe.transcribe(
            model,
            NOISE,
            language="en",
            temperature=0.0,
            fp16=False,
            word_timestamps=True,
            **options,
        )
    return [segment for segment in found["segments"] if segment["text"].strip()]


def ours(
    windows: Sequence[Window], loaded: LoadedModel, options: dict[str, Any]
) -> tuple[Segment, ...]:
    number = iter(range(len(windows)))
    current: list[Window] = []

    def decode(_: Decoder, *__: Any, **___: Any) -> list[DecodingResult]:
        current[:] = [windows[next(number)]]
        tokens = tokens_of(current[0], loaded)
        none = (0.0,) * len(tokens)
        return [DecodingResult(tokens, -0.1, 0.0, 0.0, Alignment(none, none, none))]

    def add_words(segments: Sequence[Segment], *_: Any, last_speech: float, **__: Any) -> Any:
        result = []
        for segment, (_, _, timed) in zip(segments, current[0].segments, strict=True):
            offset = segment.seek / 100
            words = tuple(
                Word(round(offset + a, 2), round(offset + b, 2), w, p) for a, b, w, p in timed
            )
            if words:
                segment = dataclasses.replace(segment, start=words[0].start, end=words[-1].end)
                last_speech = segment.end
            result.append(dataclasses.replace(segment, words=words))
        return tuple(result), last_speech

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoder, "encode", lambda *_: None)
        patch.setattr(Decoder, "decode", decode)
        patch.setattr(window_segments, "add_words", add_words)
        found = baldwhisper_mlx.transcribe(
            NOISE, loaded, language="en", temperature=0.0, word_timestamps=True,
            no_speech_threshold=None, **options,
        )  # fmt: skip
    return found.segments


def compare(
    windows: Sequence[Window], loaded: LoadedModel, options: dict[str, Any]
) -> tuple[Segment, ...]:
    expected = theirs(windows, loaded, options)
    segments = ours(windows, loaded, options)
    assert [(s.seek, s.text) for s in segments] == [(s["seek"], s["text"]) for s in expected]
    for mine, other in zip(segments, expected, strict=True):
        if other["end"] < 99.9:  # ours are cut at the end of the audio
            assert (mine.start, mine.end) == pytest.approx((other["start"], other["end"]))
    return segments


once = settings(
    max_examples=30,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.usefixtures("same_vocabulary")
@once
@given(windows=st.lists(window(), min_size=1, max_size=6), threshold=st.sampled_from([0.5, 2.0]))
def test_what_is_left_out(loaded: LoadedModel, windows: list[Window], threshold: float) -> None:
    """After the drawn windows there is ordinary speech to the end of the recording."""
    compare([*windows, *[ORDINARY] * 99], loaded, {"hallucination_silence_threshold": threshold})


@pytest.mark.usefixtures("same_vocabulary")
def test_the_rules_change_something(loaded: LoadedModel) -> None:
    """Improbable words with pauses around them are left out, and without the rules they are not."""
    spoken: Words = [(0.5, 0.9, " a", 0.9), (0.9, 1.4, " word", 0.9)]
    invented: Words = [(10.0, 10.01, " bc", 0.05), (10.01, 10.02, " a", 0.05)]
    first = Window(((0.0, 2.0, spoken), (10.0, 12.0, invented)), True)
    rest = Window(((0.0, 2.0, spoken),), True)
    windows = [first, *[rest] * 20]
    without = compare(windows, loaded, {})
    kept = compare(windows, loaded, {"hallucination_silence_threshold": 2.0})
    assert [s.text for s in without[:2]] == [" a word", " bc a"]
    assert " bc a" not in [s.text for s in kept]
    assert kept[1].seek == 1000  # the next window begins with what was left out


@pytest.mark.usefixtures("same_vocabulary")
@once
@given(
    windows=st.lists(window(), min_size=1, max_size=6),
    ranges=st.sampled_from(["0,10,60", "5,40,50,52,52.5,100", "3.3,97", "0"]),
)
def test_ranges(loaded: LoadedModel, windows: list[Window], ranges: str) -> None:
    """Texts and windows; ours end with their range (docs/differences.md)."""
    several = [*windows, *[ORDINARY] * 99]
    options = {"clip_timestamps": ranges}
    expected = theirs(several, loaded, options)
    segments = ours(several, loaded, options)
    ends = [float(end) for end in ranges.split(",")[1::2]] + [100.0]
    for mine, other in zip(segments, expected, strict=True):
        assert (mine.seek, mine.text) == (other["seek"], other["text"])
        end = next(end for end in ends if mine.seek < 100 * end)
        assert mine.end == pytest.approx(min(other["end"], end))
