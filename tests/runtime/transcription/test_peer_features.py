"""What the tests of openai-whisper and faster-whisper expect, of options that came later.

| theirs, of faster-whisper | ours, with the bundled model |
|---|---|
| test_transcribe: segments as they are decoded | test_segments_one_by_one |
| test_prefix_with_timestamps | test_a_prefix_begins_the_transcript |
| test_cliptimestamps_segments, test_cliptimestamps_timings | test_ranges_alone_are_transcribed |
| test_suppressed_tokens_minus_value | test_a_suppressed_token_is_not_written |
| test_transcribe: five beams, their default | test_beams_write_what_is_spoken |
| test_multilingual_transcription | test_a_model_of_one_language_refuses_to_look_for_others |

tests/real/test_peer_features.py has them with their recordings.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import baldwhisper_mlx
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from tests.support.transcripts import check_transcript, spoken_words

SAMPLE = Path(__file__).parents[3] / "examples" / "sample.wav"
FIRST, SECOND, THIRD = (
    spoken_words(part) for part in SAMPLE.with_suffix(".txt").read_text().strip(" .\n").split(". ")
)


@pytest.fixture(scope="module")
def bundled() -> LoadedModel:
    return load_model()


@pytest.mark.parametrize("batch_size", [1, 2])
def test_segments_one_by_one(bundled: LoadedModel, batch_size: int) -> None:
    """The iterator gives the segments of the transcript, and a transcript at its end."""
    samples = np.tile(load_audio(SAMPLE), 3)
    whole = baldwhisper_mlx.transcribe(samples, bundled, batch_size=batch_size, temperature=0.0)
    stream = baldwhisper_mlx.transcribe_iter(
        samples, bundled, batch_size=batch_size, temperature=0.0
    )
    assert iter(stream) is stream
    assert tuple(stream) == whole.segments
    assert stream.transcript() == whole


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_prefix_begins_the_transcript(bundled: LoadedModel, batch_size: int) -> None:
    found = baldwhisper_mlx.transcribe(
        SAMPLE, bundled, prefix="A small model can", batch_size=batch_size
    )
    check_transcript(found, bundled)
    assert found.text.startswith(" A small model can learn")
    assert spoken_words(found.text) == [*FIRST, *SECOND, *THIRD]
    assert found.segments[0].start < 0.2
    assert 10 < found.segments[-1].end <= found.duration


@pytest.mark.parametrize("batch_size", [1, 2])
def test_ranges_alone_are_transcribed(bundled: LoadedModel, batch_size: int) -> None:
    ranges = [(0.0, 2.9), (3.0, 7.0)]  # the third sentence is left out
    found = baldwhisper_mlx.transcribe(
        SAMPLE, bundled, clip_timestamps=ranges, batch_size=batch_size
    )
    check_transcript(found, bundled)
    own = [
        [s for s in found.segments if start - 0.01 <= s.start and s.end <= end + 0.01]
        for start, end in ranges
    ]
    texts = [spoken_words("".join(s.text for s in part)) for part in own]
    assert texts == [FIRST, SECOND]
    assert sum(map(len, own)) == len(found.segments)


def test_a_suppressed_token_is_not_written(bundled: LoadedModel) -> None:
    """A full stop; -1 stands for the default list, which an own list replaces."""
    (stop,) = bundled.tokenizer.encode(".")
    plain = baldwhisper_mlx.transcribe(SAMPLE, bundled, temperature=0.0)
    assert stop in plain.segments[0].tokens
    for suppressed in ([stop], [-1, stop], f"-1,{stop}"):
        found = baldwhisper_mlx.transcribe(
            SAMPLE, bundled, temperature=0.0, suppress_tokens=suppressed
        )
        assert all(stop not in segment.tokens for segment in found.segments)
        assert len(spoken_words(found.text)) > 25


def test_beams_write_what_is_spoken(bundled: LoadedModel) -> None:
    found = baldwhisper_mlx.transcribe(SAMPLE, bundled, beam_size=2, word_timestamps=True)
    check_transcript(found, bundled)
    assert spoken_words(found.text) == [*FIRST, *SECOND, *THIRD]


def test_a_model_of_one_language_refuses_to_look_for_others(bundled: LoadedModel) -> None:
    """faster-whisper warns, and transcribes in the one language."""
    with pytest.raises(ValueError, match=r"multilingual: .* only en \(english\)"):
        baldwhisper_mlx.transcribe(SAMPLE, bundled, multilingual=True)
