"""LiveTranscriber after an error: nothing is lost but the decoding that failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.transcription.live import LiveTranscriber
from baldwhisper_mlx.transcription.live_draft import DraftDecoder
from baldwhisper_mlx.transcription.live_events import Draft, LiveEvent, Utterance
from baldwhisper_mlx.transcription.live_final import FinalTranscriber
from tests.runtime.conftest import tiny_config, write_model
from tests.runtime.test_bundled import SAMPLE

ERRORS = [FloatingPointError, KeyboardInterrupt]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(write_model(tmp_path_factory.mktemp("model") / "tiny", tiny_config()))


@pytest.fixture(scope="module")
def three_utterances() -> Samples:
    said, silence = load_audio(SAMPLE)[: 2 * SAMPLE_RATE], np.zeros(SAMPLE_RATE, np.float32)
    return np.concatenate([silence, said, silence, said, silence, said, silence])


@pytest.fixture(scope="module")
def expected(tiny: LoadedModel, three_utterances: Samples) -> list[LiveEvent]:
    """The events without any error."""
    live = stream(tiny)
    events = live.feed(three_utterances) + live.finish()
    assert sum(isinstance(event, Utterance) for event in events) == 3
    return events


def stream(tiny: LoadedModel, interval: float | None = None) -> LiveTranscriber:
    return LiveTranscriber(
        tiny, interval=interval, language="en", temperature=0.0, clock=lambda: 0.0
    )


def fail_once(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int, error: type[BaseException]
) -> None:
    """Lets a method fail in its call number `at`, when it has begun its work."""
    method: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise error
        return method(*arguments, **options)

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize("size", [10**9, 7 * SAMPLE_RATE, SAMPLE_RATE // 2])
@pytest.mark.parametrize("error", ERRORS)
def test_events_before_an_error_come_with_the_next_call(
    tiny: LoadedModel,
    three_utterances: Samples,
    expected: list[LiveEvent],
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    size: int,
) -> None:
    fail_once(monkeypatch, FinalTranscriber, "transcribe", 2, error)
    live, events, n_errors = stream(tiny), [], 0
    for first in range(0, len(three_utterances), size):
        try:
            events += live.feed(three_utterances[first : first + size])
        except error:
            n_errors += 1
    events += live.finish()
    assert n_errors == 1
    second = [event for event in expected if isinstance(event, Utterance)][1]
    if error is FloatingPointError:  # it would fail again
        assert len(events) == len(expected) - 1
        texts = [(e.start, e.end) for e in expected if isinstance(e, Utterance) and e != second]
        assert [(e.start, e.end) for e in events if isinstance(e, Utterance)] == texts
    else:
        assert events == expected


def test_events_can_be_taken_without_decoding(
    tiny: LoadedModel,
    three_utterances: Samples,
    expected: list[LiveEvent],
    monkeypatch: pytest.MonkeyPatch,
    encoded_sizes: list[int],
) -> None:
    fail_once(monkeypatch, FinalTranscriber, "transcribe", 2, KeyboardInterrupt)
    live = stream(tiny)
    with pytest.raises(KeyboardInterrupt):
        live.feed(three_utterances)
    assert encoded_sizes == [1]
    assert live.take_events() == expected[:3]
    assert live.take_events() == []
    assert encoded_sizes == [1]
    assert live.feed(np.zeros(0, np.float32)) + live.finish() == expected[3:]


def test_the_detector_gets_every_hop_once(
    tiny: LoadedModel,
    three_utterances: Samples,
    expected: list[LiveEvent],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = stream(tiny)
    network, chunks = live._detector._network, list[list[float]]()

    class Recorded:
        def process_samples(self, chunk: list[float]) -> float:
            if len(chunks) == 99 and not interrupted:
                interrupted.append(True)
                raise KeyboardInterrupt
            chunks.append(chunk)
            probability: float = network.process_samples(chunk)
            return probability

    interrupted: list[bool] = []
    monkeypatch.setattr(live._detector, "_network", Recorded())
    fail_once(monkeypatch, FinalTranscriber, "transcribe", 1, KeyboardInterrupt)
    events = []
    for first in range(0, len(three_utterances), 7 * SAMPLE_RATE):
        try:
            events += live.feed(three_utterances[first : first + 7 * SAMPLE_RATE])
        except KeyboardInterrupt:
            events += live.take_events()
    assert events + live.finish() == expected
    assert interrupted
    received = np.concatenate(chunks)[: len(three_utterances)]
    np.testing.assert_array_equal(received, three_utterances)


@pytest.mark.parametrize("error", ERRORS)
def test_a_draft_that_fails_is_left_out(
    tiny: LoadedModel,
    three_utterances: Samples,
    expected: list[LiveEvent],
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    fail_once(monkeypatch, DraftDecoder, "words", 2, error)
    live, events, n_errors = stream(tiny, interval=1.0), [], 0
    for first in range(0, len(three_utterances), SAMPLE_RATE // 4):
        try:
            events += live.feed(three_utterances[first : first + SAMPLE_RATE // 4])
        except error:
            n_errors += 1
    events += live.finish()
    assert n_errors == 1
    assert sum(isinstance(event, Draft) for event in events) >= 2
    assert [event for event in events if not isinstance(event, Draft)] == expected


def test_finish_can_be_called_again_after_an_error(
    tiny: LoadedModel,
    three_utterances: Samples,
    expected: list[LiveEvent],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without the last silence, and with a part of 32 ms: the utterance ends with the stream.
    samples = three_utterances[: -SAMPLE_RATE - 100]
    fail_once(monkeypatch, FinalTranscriber, "transcribe", 3, KeyboardInterrupt)
    live = stream(tiny)
    events = live.feed(samples)
    with pytest.raises(KeyboardInterrupt):
        live.finish()
    with pytest.raises(RuntimeError, match="make another LiveTranscriber"):
        live.feed(samples)
    (last,) = live.finish()
    assert events == expected[:-1]
    assert isinstance(last, Utterance)
    assert last.end == len(samples) / SAMPLE_RATE
    with pytest.raises(RuntimeError, match="make another LiveTranscriber"):
        live.finish()
