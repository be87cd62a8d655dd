"""What the tests of openai-whisper (o) and faster-whisper (f) expect of transcripts, of ours.

| theirs, in test_transcribe.py | ours |
|---|---|
| o: test_transcribe; f: test_transcribe | test_text_tokens_and_times_agree, test_words_and_pauses |
| f: test_transcribe: language and duration | test_language_and_duration |
| f: test_batched_transcribe | test_stretches_without_timestamps_are_one_segment_each |
| f: test_empty_audio | test_empty_audio_is_refused |
| f: test_vad | test_times_with_vad_are_those_of_the_recording |
| f: test_stereo_diarization | test_channels_by_themselves |
| f: test_monotonic_timestamps | test_text_tokens_and_times_agree |
| f: test_transcribe_signature | test_options.py: one function, so one list of options |
| f: test_supported_languages | test_peer_tokenizers.py |
| f: test_utils.py | tests/runtime/cli/test_models.py, tests/runtime/checkpoint/test_hub.py |

With the bundled model and the project's own recording; OpenAI's recording and a multilingual model
are in tests/real/test_peer_expectations.py. Where ours differs, docs/differences.md says why.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import baldwhisper_mlx
from baldwhisper_mlx.audio.chunking import chunks_of
from baldwhisper_mlx.audio.load import load_audio, load_channels
from baldwhisper_mlx.audio.vad import speech_spans
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.config import SAMPLE_RATE
from tests.support.transcripts import check_transcript, spoken_words

SAMPLE = Path(__file__).parents[3] / "examples" / "sample.wav"
SENTENCES = SAMPLE.with_suffix(".txt").read_text().strip()
WAYS: list[dict[str, Any]] = [{}, {"vad": True}, {"batch_size": 4}, {"vad": True, "batch_size": 4}]


@pytest.fixture(scope="module")
def bundled() -> LoadedModel:
    return load_model()


@pytest.fixture(scope="module")
def talk() -> np.ndarray[Any, np.dtype[np.float32]]:
    """The sample twice, with a pause between: 34 s, two windows, which no stretch holds."""
    quiet = np.random.default_rng(0).standard_normal(12 * SAMPLE_RATE).astype(np.float32)
    once = load_audio(SAMPLE)
    return np.concatenate([once, 1e-4 * quiet, once])


@pytest.mark.parametrize(
    ("way", "words"), [*((way, True) for way in WAYS), (WAYS[0], False), (WAYS[3], False)]
)
def test_text_tokens_and_times_agree(
    bundled: LoadedModel, talk: Any, way: dict[str, Any], words: bool
) -> None:
    found = baldwhisper_mlx.transcribe(talk, bundled, temperature=0.0, word_timestamps=words, **way)
    check_transcript(found, bundled)
    assert all((segment.words is not None) is words for segment in found.segments)
    written = spoken_words(found.text)
    for phrase in ("small model can learn", "parts that carry", "needs no network"):
        assert " ".join(written).count(phrase) == 2


def test_words_and_pauses(bundled: LoadedModel) -> None:
    """A sentence's last word ends, and the next one's first begins, at the pause between them."""
    samples = load_audio(SAMPLE)
    (segment,) = baldwhisper_mlx.transcribe(samples, bundled, word_timestamps=True).segments
    words = list(segment.words or ())
    assert [word.word for word in words[:3]] == [" A", " small", " model"]
    assert all(word.start < word.end for word in words)
    # What is quieter than a hundredth of the loudest 10 ms.
    level = np.square(samples[: len(samples) // 160 * 160].reshape(-1, 160)).mean(axis=1)
    quiet = (level < 1e-4 * level.max()).astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet, [0]]))).reshape(-1, 2) / 100
    pauses = [(a, b) for a, b in edges if b - a > 0.25 and a > 0.5 and b < 10.5]
    ends = [i for i, word in enumerate(words[:-1]) if word.word.endswith(".")]
    assert len(ends) == 2
    for i in ends:
        start, end = min(pauses, key=lambda pause: abs(pause[0] - words[i].end))
        assert words[i].end == pytest.approx(start, abs=0.2)
        assert words[i + 1].start == pytest.approx(end, abs=0.25)


def test_language_and_duration(bundled: LoadedModel) -> None:
    samples = load_audio(SAMPLE)
    found = baldwhisper_mlx.transcribe(SAMPLE, bundled)
    assert found.language == "en"
    assert found.duration == len(samples) / SAMPLE_RATE
    probabilities = baldwhisper_mlx.detect_language(samples, bundled)
    assert next(iter(probabilities)) == found.language
    assert probabilities[found.language] > 0.9


def test_stretches_without_timestamps_are_one_segment_each(bundled: LoadedModel, talk: Any) -> None:
    """Of at most 30 s, within which the detector found speech; with timestamps there are more."""
    stretches = chunks_of(talk, speech_spans(talk), 30 * SAMPLE_RATE)
    options: dict[str, Any] = {"vad": True, "batch_size": 16, "temperature": 0.0}
    found = baldwhisper_mlx.transcribe(talk, bundled, without_timestamps=True, **options)
    assert len(stretches) == len(found.segments) == 2
    for segment, (start, end) in zip(found.segments, stretches, strict=True):
        assert start / SAMPLE_RATE - 0.01 <= segment.start < segment.end
        assert segment.end <= end / SAMPLE_RATE + 0.01
        assert segment.end - segment.start <= 30
    timed = baldwhisper_mlx.transcribe(talk, bundled, word_timestamps=True, **options)
    assert len(timed.segments) >= len(stretches)
    assert spoken_words(timed.text) == spoken_words(found.text)


@pytest.mark.parametrize("way", WAYS)
def test_empty_audio_is_refused(bundled: LoadedModel, way: dict[str, Any]) -> None:
    """faster-whisper gives no segments: but where nothing was recorded, something went wrong."""
    empty = np.zeros(0, np.float32)
    with pytest.raises(ValueError, match="contains no audio"):
        baldwhisper_mlx.transcribe(empty, bundled, **way)
    with pytest.raises(ValueError, match="contains no audio"):
        baldwhisper_mlx.detect_language(empty, bundled)
    # What is too short for a frame is a recording without text.
    found = baldwhisper_mlx.transcribe(np.full(100, 0.1, np.float32), bundled, **way)
    assert (found.text, found.segments, found.language) == ("", (), None)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_times_with_vad_are_those_of_the_recording(bundled: LoadedModel, batch_size: int) -> None:
    """After two seconds without speech."""
    once = load_audio(SAMPLE)
    quiet = 1e-4 * np.random.default_rng(0).standard_normal(2 * SAMPLE_RATE).astype(np.float32)
    samples = np.concatenate([quiet, once, quiet])
    found = baldwhisper_mlx.transcribe(samples, bundled, vad=True, batch_size=batch_size)
    assert spoken_words(found.text) == spoken_words(SENTENCES)
    assert 1.5 < found.segments[0].start < 2.5
    assert 11.5 < found.segments[-1].end < 2 + len(once) / SAMPLE_RATE + 0.5
    assert found.duration == len(samples) / SAMPLE_RATE


def test_channels_by_themselves(bundled: LoadedModel, tmp_path: Path) -> None:
    """Two sentences at the same time, on the left and on the right."""
    samples = load_audio(SAMPLE)
    middle = round(3.1 * SAMPLE_RATE)
    left, right = samples[:middle], samples[middle:]
    stereo = np.zeros((len(right), 2), np.float32)
    stereo[: len(left), 0], stereo[:, 1] = left, right
    path = tmp_path / "call.wav"
    soundfile.write(path, stereo, SAMPLE_RATE)
    texts = [baldwhisper_mlx.transcribe(each, bundled).text for each in load_channels(path)]
    first, _, rest = SENTENCES.partition(". ")
    assert [spoken_words(text) for text in texts] == [spoken_words(first), spoken_words(rest)]
