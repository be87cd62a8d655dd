"""What holds for every transcript, whatever was spoken and however it was transcribed."""

from __future__ import annotations

from itertools import pairwise

from baldwhisper_mlx import Transcript
from baldwhisper_mlx.checkpoint.load import LoadedModel


def spoken_words(text: str) -> list[str]:
    """Words without capitals and punctuation."""
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


def check_transcript(found: Transcript, loaded: LoadedModel) -> None:
    """Text, segments, tokens and words say the same, and time goes forward within the audio."""
    segments = found.segments
    assert segments
    assert found.text == "".join(segment.text for segment in segments)
    tokens = [token for segment in segments for token in segment.tokens]
    assert loaded.tokenizer.decode(tokens) == found.text
    assert [segment.id for segment in segments] == list(range(len(segments)))
    for before, after in pairwise(segments):
        assert before.end <= after.start
    for segment in segments:
        assert 0 <= segment.start < segment.end <= found.duration
        if segment.words is None:
            continue
        assert "".join(word.word for word in segment.words) == segment.text
        assert segment.start == segment.words[0].start
        assert segment.end == segment.words[-1].end
        assert all(word.start <= word.end for word in segment.words)
        for one, next_one in pairwise(segment.words):
            assert one.end <= next_one.start
