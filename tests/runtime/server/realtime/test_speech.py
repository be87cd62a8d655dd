"""Items of a stream that is cut, or in which something fails."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.server.realtime.events import Conversation, Event
from baldwhisper_mlx.server.realtime.speech import SpeechItems
from baldwhisper_mlx.transcription.live import LiveTranscriber
from baldwhisper_mlx.transcription.stream import TranscriptStream
from tests.runtime.server.realtime.conftest import CONTENT, SILENCE
from tests.runtime.test_bundled import SAMPLE, words


@pytest.fixture
def items(bundled: LoadedModel) -> SpeechItems:
    """Of utterances of 4 s at most, an hour after the session began."""

    def make() -> LiveTranscriber:
        return LiveTranscriber(bundled, longest=4.0, interval=None)

    return SpeechItems(make, Conversation(is_beta=False), 3600 * SAMPLE_RATE, lambda _: None)


@pytest.fixture(scope="module")
def sample() -> Samples:
    """Eleven seconds of speech, and a pause."""
    return np.concatenate([load_audio(SAMPLE), SILENCE])


def of(events: list[Event], kind: str) -> list[Any]:
    return [event for event in events if event["type"].endswith(kind)]


def test_speech_that_is_cut_is_several_items(items: SpeechItems, sample: Samples) -> None:
    events = items.feed(sample)
    started, stopped = of(events, "speech_started"), of(events, "speech_stopped")
    completed = of(events, ".completed")
    assert len(started) == len(stopped) == len(completed) >= 3
    ids = [event["item_id"] for event in started]
    assert ids == [event["item_id"] for event in stopped]
    assert ids == [event["item_id"] for event in completed]
    assert len(set(ids)) == len(ids)
    for ended, begun in itertools.pairwise(zip(stopped, started, strict=True)):
        assert begun[1]["audio_start_ms"] == ended[0]["audio_end_ms"]
    assert 3_600_000 <= started[0]["audio_start_ms"] < 3_601_000
    text = " ".join(event["transcript"] for event in completed)
    assert len(set(words(text)) & set(words(SAMPLE.with_suffix(".txt").read_text()))) > 15
    previous = [event["previous_item_id"] for event in of(events, "committed")]
    assert previous == [None, *ids[:-1]]


def test_one_of_several_fails(
    items: SpeechItems, sample: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcript, calls = TranscriptStream.transcript, itertools.count()

    def fail_once(self: TranscriptStream) -> Any:
        if next(calls) == 1:
            raise FloatingPointError("NaN logits")
        return transcript(self)

    monkeypatch.setattr(TranscriptStream, "transcript", fail_once)
    events = items.feed(sample) + items.finish()
    ends = [event for event in events if event["type"] in (f"{CONTENT}.completed",
                                                           f"{CONTENT}.failed")]  # fmt: skip
    assert [event["type"].rpartition(".")[2] for event in ends][:3] == [
        "completed", "failed", "completed",
    ]  # fmt: skip
    ids = [event["item_id"] for event in of(events, "speech_started")]
    assert ids == [event["item_id"] for event in of(events, "committed")]
    assert ids == [event["item_id"] for event in ends]
