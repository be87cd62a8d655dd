"""When drafts are made, and in which language."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.decoding.alignment import Alignment
from baldwhisper_mlx.decoding.decoder import Decoder
from baldwhisper_mlx.transcription.live import LiveTranscriber
from baldwhisper_mlx.transcription.live_draft import DraftDecoder
from baldwhisper_mlx.transcription.live_events import Draft, LiveEvent, Utterance
from baldwhisper_mlx.transcription.options import TranscribeOptions
from tests.runtime.conftest import tiny_config, write_model
from tests.runtime.test_bundled import SAMPLE


class NothingConfirmed:
    """A policy that confirms no word, so that no language is kept because of one."""

    def confirm(self, words: object, received: float) -> int:
        return 0

    def reset(self) -> None:
        """Nothing to forget."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(write_model(tmp_path_factory.mktemp("model") / "tiny", tiny_config()))


@pytest.fixture(scope="module")
def speech() -> Samples:
    return load_audio(SAMPLE)[: 5 * SAMPLE_RATE]


def stream(tiny: LoadedModel, **settings: Any) -> LiveTranscriber:
    """A stream whose drafts are made whenever the interval says, however long they take."""
    return LiveTranscriber(tiny, temperature=0.0, clock=lambda: 0.0, **settings)


def feed(live: LiveTranscriber, samples: Samples) -> list[LiveEvent]:
    blocks = [samples[first : first + 1600] for first in range(0, len(samples), 1600)]
    return [event for block in blocks for event in live.feed(block)] + live.finish()


@pytest.mark.parametrize(("taken", "least"), [(0.1, 0.5), (0.4, 0.8), (0.75, 1.5)])
def test_drafts_take_at_most_half_of_the_time(
    tiny: LoadedModel,
    speech: Samples,
    monkeypatch: pytest.MonkeyPatch,
    taken: float,
    least: float,
) -> None:
    now = 5.0
    words = DraftDecoder.words

    def slow(self: DraftDecoder, *arguments: Any) -> Any:
        nonlocal now
        now += taken
        return words(self, *arguments)

    monkeypatch.setattr(DraftDecoder, "words", slow)
    live = LiveTranscriber(tiny, language="en", temperature=0.0, clock=lambda: now)
    drafts = [event.received for event in feed(live, speech) if isinstance(event, Draft)]
    steps = np.diff(drafts)
    assert len(drafts) >= 3
    assert steps.min() == pytest.approx(least, abs=0.11)
    assert steps.max() == pytest.approx(least, abs=0.11)


@pytest.fixture
def detections(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The probability of French in every detection, which the test sets, and their number."""
    state: dict[str, Any] = {"french": 0.9, "count": 0}

    def detect(self: Decoder, tokens: Any) -> Any:
        state["count"] += 1
        return np.array([[1 - state["french"], state["french"]]], np.float32)

    monkeypatch.setattr(Decoder, "detect_language", detect)
    return state


def test_the_language_is_detected_once_when_it_is_sure(
    tiny: LoadedModel, speech: Samples, detections: dict[str, Any]
) -> None:
    live = LiveTranscriber(
        tiny, policy=NothingConfirmed(), interval=1.0, temperature=0.0, clock=lambda: 0.0
    )
    counts = []
    events = []
    for first in range(0, len(speech), SAMPLE_RATE):
        events += live.feed(speech[first : first + SAMPLE_RATE])
        counts.append(detections["count"])
    # The first draft has too little speech. Every later detection would say English.
    assert counts == [0, 1, 2, 2, 2]
    detections["french"] = 0.0
    events += live.finish()
    assert detections["count"] == counts[-1]
    (found,) = [event for event in events if isinstance(event, Utterance)]
    assert found.language == "fr"
    assert {event.language for event in events if isinstance(event, Draft)} == {"fr"}


def test_a_language_that_is_not_sure_is_detected_again(
    tiny: LoadedModel, speech: Samples, detections: dict[str, Any]
) -> None:
    detections["french"] = 0.6
    live = LiveTranscriber(
        tiny, policy=NothingConfirmed(), interval=1.0, temperature=0.0, clock=lambda: 0.0
    )
    events = list(itertools.chain(*(live.feed(part) for part in np.split(speech, 5))))
    n_drafts = sum(isinstance(event, Draft) for event in events)
    assert detections["count"] == n_drafts >= 4
    detections["french"] = 0.1
    events += live.finish()
    assert detections["count"] == n_drafts + 1
    assert [event.language for event in events if isinstance(event, Utterance)] == ["en"]


def test_every_utterance_has_its_own_language(
    tiny: LoadedModel, speech: Samples, detections: dict[str, Any]
) -> None:
    live = stream(tiny, interval=1.0)
    silence = np.zeros(2 * SAMPLE_RATE, np.float32)
    events = []
    for probability in (1.0, 0.0):
        detections["french"] = probability
        for part in np.split(np.concatenate([speech, silence]), 7):
            events += live.feed(part)
    found = [event.language for event in events if isinstance(event, Utterance)]
    assert found == ["fr", "en"]


def test_a_multilingual_stream_detects_in_every_window(
    tiny: LoadedModel, speech: Samples, detections: dict[str, Any]
) -> None:
    live = LiveTranscriber(tiny, interval=1.0, multilingual=True, clock=lambda: 0.0)
    events = live.feed(speech)
    count = detections["count"]
    events += live.finish()
    assert detections["count"] > count


def test_a_language_token_inside_a_draft_is_no_text(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model that writes one where the language changes; what follows it is in the draft."""
    tokenizer = tiny.tokenizer
    said, then = (tokenizer.encode(text) for text in (" the fox", " le chien"))
    tokens = [*said, tokenizer.languages["fr"], *then]
    assert tokens[len(said)] not in tokenizer.suppressed_tokens
    places = [float(i) for i in range(len(tokens))]
    known = tuple(np.nan if i == len(said) else i for i in places)  # as of what is no text
    times = Alignment(known, tuple(i + 1 for i in known), (0.5,) * len(tokens), known)

    def decode(self: Decoder, *arguments: Any, **more: Any) -> list[SimpleNamespace]:
        return [SimpleNamespace(tokens=tokens, alignment=times)]

    monkeypatch.setattr(Decoder, "decode", decode)
    drafts = DraftDecoder(tiny, TranscribeOptions(language="en"))
    mel: Any = SimpleNamespace(n_frames=500)
    words = drafts.words(mel, [], 0.0, "en")
    assert "".join(word.text for word in words) == " the fox le chien"
    assert [token for word in words for token in word.tokens] == [*said, *then]
    assert words[-1].end == words[-1].attended + 1 == len(tokens)
    assert words[0].start == 0
