"""Segments as they are finished: the same as at once, and nothing held while nobody asks."""

from __future__ import annotations

import gc
import threading
import warnings
import weakref
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_mlx import Segment, Transcript, load_model, transcribe, transcribe_iter
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.decoding.decoder import Decoder
from baldwhisper_mlx.transcription import strategies
from baldwhisper_mlx.transcription.language import LanguageWarning
from baldwhisper_mlx.transcription.sequential import Transcription
from tests.runtime.audio.test_vad import RATE, SAMPLE, noise, talk
from tests.support.scripted import script, timed

GREEDY: dict[str, Any] = {"temperature": 0.0, "no_speech_threshold": None}
WAYS: dict[str, dict[str, Any]] = {
    "sequential": {},
    "vad": {"vad": True},
    "batches": {"batch_size": 2},
    "batches of speech": {"batch_size": 2, "vad": True},
}
PATIENCE = 60
"""Seconds after which a test fails that waits for another thread."""


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> LoadedModel:
    return load_model(model_folder, dtype="float32")


@pytest.fixture(scope="module")
def speech() -> Any:
    return load_audio(SAMPLE)


@pytest.fixture(scope="module")
def recording(speech: Any) -> Any:
    """More than one window, with pauses; ends at a sample that is no whole frame."""
    parts = [speech, noise(3, 0), speech, noise(2, 0.01), speech[: 9 * RATE]]
    return np.concatenate(parts)[:-77]


@pytest.fixture
def long_recording(speech: Any, loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Several groups of stretches, for a decoder that writes two segments in every window."""
    script(monkeypatch, [timed(loaded, (0.0, " a", 4.0), (5.0, " b", 28.0))] * 99)
    return np.concatenate([part for _ in range(8) for part in (speech, noise(3, 0))])


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_the_segments_are_those_of_transcribe(
    loaded: LoadedModel, recording: Any, way: str, words: bool
) -> None:
    options = GREEDY | WAYS[way] | {"word_timestamps": words}
    whole = transcribe(recording, loaded, **options)
    stream = transcribe_iter(recording, loaded, **options)
    assert stream.duration == whole.duration
    assert tuple(stream) == whole.segments
    assert stream.transcript() == whole
    assert len(whole.segments) > 2
    assert [s.id for s in whole.segments] == list(range(len(whole.segments)))


outputs = st.lists(
    st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 1500)), min_size=1, max_size=4),
    min_size=12,
    max_size=12,
)


@settings(deadline=None, max_examples=20)
@given(outputs, st.sampled_from(list(WAYS)), st.integers(1, 70 * RATE))
def test_whatever_the_model_writes(
    loaded: LoadedModel, outputs: Any, way: str, n_samples: int
) -> None:
    """Windows of any times, many behind the end of the audio."""
    results = []
    for window in outputs:
        bounds = sorted(edge for pair in window for edge in pair)
        pieces = [(a * 0.02, " a", b * 0.02) for a, b in pairwise(bounds) if b > a]
        results.append(timed(loaded, *pieces or [(0.0, " b", 1.0)]))
    options = GREEDY | WAYS[way] | {"language": "en"}
    samples = talk(70)[:n_samples]
    found = []
    for function in (transcribe, transcribe_iter):
        with pytest.MonkeyPatch.context() as patch:
            script(patch, results * 8)
            result = function(samples, loaded, **options)
            found.append(result.segments if isinstance(result, Transcript) else tuple(result))
    assert found[0] == found[1]
    assert all(0 <= s.start <= s.end <= n_samples / RATE for s in found[1])


@pytest.mark.parametrize("way", ["sequential", "vad", "batches of speech"])
def test_segments_come_before_the_recording_is_done(
    loaded: LoadedModel, long_recording: Any, way: str
) -> None:
    done: list[float] = []
    stream = transcribe_iter(
        long_recording, loaded, **GREEDY, **WAYS[way], on_progress=lambda s, _: done.append(s)
    )
    assert not done
    counts = []
    for _ in stream:
        counts.append(len(done))
    assert len(set(counts)) > 1
    assert counts == sorted(counts)
    # Two segments of a window, or of each of the two stretches in a group.
    assert counts.count(counts[0]) == (4 if "batch_size" in WAYS[way] else 2)


def on_thread(function: Callable[[], Any]) -> Any:
    """What a function returns on another thread; fails if that takes too long."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert results, "the other thread waits for the model"
    return results[0]


@pytest.mark.parametrize("way", WAYS)
def test_others_can_use_the_model_between_two_segments(
    loaded: LoadedModel, recording: Any, way: str
) -> None:
    options = GREEDY | WAYS[way]
    expected, other = (
        transcribe(audio, loaded, **chosen)
        for audio, chosen in ((recording, options), (talk(5), GREEDY))
    )
    found: list[Segment] = []
    for segment in transcribe_iter(recording, loaded, **options):
        found.append(segment)
        if len(found) % 20 == 1:
            assert on_thread(lambda: transcribe(talk(5), loaded, **GREEDY)) == other
    assert tuple(found) == expected.segments


def test_threads_share_a_stream(loaded: LoadedModel, recording: Any) -> None:
    expected = transcribe(recording, loaded, **GREEDY)
    stream = transcribe_iter(recording, loaded, **GREEDY)
    found: list[Segment] = []
    threads = [threading.Thread(target=lambda: found.extend(stream)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert tuple(sorted(found, key=lambda s: s.id)) == expected.segments
    assert stream.transcript() == expected


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("close", [False, True])
def test_an_abandoned_stream_frees_everything(
    loaded: LoadedModel,
    long_recording: Any,
    way: str,
    close: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held: list[Any] = []
    start = Transcription.start.__func__  # type: ignore[attr-defined]

    def started(cls: Any, *arguments: Any) -> Any:
        run = start(cls, *arguments)
        held.append(weakref.ref(run.mel))
        return run

    monkeypatch.setattr(Transcription, "start", classmethod(started))
    samples = long_recording.copy()
    held.append(weakref.ref(samples))
    stream = transcribe_iter(samples, loaded, **GREEDY, **WAYS[way])
    del samples
    next(stream)
    assert len(held) > 1
    if close:
        stream.close()
        assert list(stream) == []
        with pytest.raises(RuntimeError, match="not transcribed to its end: it was closed"):
            stream.transcript()
    else:
        del stream
    gc.collect()
    assert [reference() for reference in held] == [None] * len(held)


def test_a_suspended_stream_keeps_no_caches(loaded: LoadedModel, recording: Any) -> None:
    stream = transcribe_iter(recording, loaded, **GREEDY)
    next(stream)
    with pytest.raises(ValueError, match="read before anything was written"):
        loaded.decoder.encoded()
    assert list(stream)


def test_a_failure_is_raised_once_and_remembered(
    loaded: LoadedModel, recording: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = transcribe_iter(recording, loaded, **GREEDY)
    with monkeypatch.context() as patch:

        def failing(*_: Any, **__: Any) -> None:
            raise FloatingPointError("NaN in the logits")

        first = next(stream)
        patch.setattr(Decoder, "decode", failing)
        with pytest.raises(FloatingPointError, match="NaN"):
            list(stream)
    assert list(stream) == []
    with pytest.raises(RuntimeError, match="not transcribed to its end: NaN in the logits"):
        stream.transcript()
    assert next(transcribe_iter(recording, loaded, **GREEDY)) == first


def test_wrong_arguments_are_refused_at_once(loaded: LoadedModel) -> None:
    with pytest.raises(ValueError, match="klingon"):
        transcribe_iter(talk(1), loaded, language="klingon")
    with pytest.raises(ValueError, match="batch_size"):
        transcribe_iter(talk(1), loaded, batch_size=0)
    with pytest.raises(FileNotFoundError):
        transcribe_iter("absent.wav", loaded)


@pytest.mark.parametrize("way", WAYS)
def test_a_recording_without_speech(loaded: LoadedModel, way: str) -> None:
    stream = transcribe_iter(np.zeros(3 * RATE, np.float32), loaded, **WAYS[way])
    assert list(stream) == []
    assert stream.transcript() == Transcript("", (), None, 3.0)


def test_a_warning_names_the_line_of_the_caller(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strategies, "doubts", lambda attempts, tokenizer: "it is odd")
    calls = (
        lambda: transcribe(talk(2), loaded, **GREEDY),
        lambda: list(transcribe_iter(talk(2), loaded, **GREEDY)),
        lambda: transcribe_iter(talk(2), loaded, **GREEDY).transcript(),
    )
    for call in calls:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        (warning,) = [w for w in caught if issubclass(w.category, LanguageWarning)]
        assert warning.filename == __file__
