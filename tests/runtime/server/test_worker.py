"""The worker: jobs share batches, and each gets the transcript that it gets by itself."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import baldwhisper_mlx
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.decoding.decoder import Decoder
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.server.jobs import Job, Result
from baldwhisper_mlx.server.worker import Worker
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.sequential import Transcription

Results = queue.Queue[Result]
SECONDS = (1, 40, 3, 5)
NOISE = [
    np.random.default_rng(i).normal(0, 0.05, seconds * 16_000).astype(np.float32)
    for i, seconds in enumerate(SECONDS)
]
OPTIONS = TranscribeOptions(temperature=0.0, language="en")
_PATIENCE = 60


def job(
    loaded: LoadedModel, number: int, options: TranscribeOptions = OPTIONS
) -> tuple[Job, Results]:
    results: Results = queue.Queue()
    return Job(NOISE[number], loaded, options, results.put), results


def end_of(results: Results) -> tuple[list[Any], Transcript]:
    """All segments that were delivered, and the transcript behind them."""
    segments: list[Any] = []
    while True:
        result = results.get(timeout=_PATIENCE)
        if isinstance(result, Exception):
            raise result
        if isinstance(result, Transcript):
            return segments, result
        segments += result


def written(transcript: Transcript) -> list[Any]:
    """All but probabilities, whose last digits depend on the size of a batch."""
    segments = [(one.start, one.end, one.text, one.tokens) for one in transcript.segments]
    words = [
        (word.start, word.end, word.word)
        for segment in transcript.segments
        for word in segment.words or ()
    ]
    return [transcript.text, transcript.language, transcript.duration, segments, words]


def by_itself(loaded: LoadedModel, number: int, **options: Any) -> Transcript:
    return baldwhisper_mlx.transcribe(
        NOISE[number], loaded, temperature=0.0, language="en", **options
    )


@pytest.mark.parametrize("words", [False, True])
def test_jobs_share_batches(bilingual: LoadedModel, encoded_sizes: list[int], words: bool) -> None:
    expected = [by_itself(bilingual, i, word_timestamps=words) for i in range(4)]
    encoded_sizes.clear()
    options = TranscribeOptions(temperature=0.0, language="en", word_timestamps=words)
    worker = Worker()
    jobs = [job(bilingual, i, options) for i in range(4)]
    for one, _ in jobs:  # before it starts, so that all are there at its first window
        worker.submit(one)
    with worker:
        found = [end_of(results) for _, results in jobs]
    assert encoded_sizes[0] == 4
    assert [written(transcript) for _, transcript in found] == [written(one) for one in expected]
    assert all(tuple(segments) == transcript.segments for segments, transcript in found)


def test_different_options_do_not_mix(bilingual: LoadedModel, bundled: LoadedModel) -> None:
    other = TranscribeOptions(temperature=0.0, language="en", initial_prompt="Hello")
    worker = Worker()
    jobs = [job(bilingual, 0), job(bilingual, 0, other), job(bundled, 0), job(bilingual, 2)]
    for one, _ in jobs:
        worker.submit(one)
    with worker:
        found = [written(end_of(results)[1]) for _, results in jobs]
    assert found == [
        written(by_itself(bilingual, 0)),
        written(by_itself(bilingual, 0, initial_prompt="Hello")),
        written(by_itself(bundled, 0)),
        written(by_itself(bilingual, 2)),
    ]


def test_a_job_that_arrives_later_joins(bilingual: LoadedModel) -> None:
    with Worker() as worker:
        first, results = job(bilingual, 1)  # two windows
        late, late_results = job(bilingual, 0)
        deliver = first.deliver

        def joined(result: Result) -> None:
            if not isinstance(result, (Transcript, Exception)) and late.options is OPTIONS:
                late.options = TranscribeOptions(temperature=0.0, language="en")
                worker.submit(late)
            deliver(result)

        first.deliver = joined
        worker.submit(first)
        assert written(end_of(results)[1]) == written(by_itself(bilingual, 1))
        assert written(end_of(late_results)[1]) == written(by_itself(bilingual, 0))


def test_cancelled_jobs_deliver_nothing(bilingual: LoadedModel) -> None:
    worker = Worker()
    cancelled, nothing = job(bilingual, 1)
    kept, results = job(bilingual, 0)
    worker.submit(cancelled)
    worker.submit(kept)
    cancelled.cancel()
    with worker:
        assert written(end_of(results)[1]) == written(by_itself(bilingual, 0))
    assert nothing.empty()


def fail(*_: Any) -> Any:
    raise FloatingPointError("nan")


def test_errors_are_delivered_and_the_worker_lives_on(
    bilingual: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Worker() as worker:
        one, results = job(bilingual, 0, TranscribeOptions(language="de"))
        worker.submit(one)
        with pytest.raises(ValueError, match="german"):
            end_of(results)
        for name in ("worker.transcribe_windows", "worker.alike", "jobs.Job.segments"):
            with monkeypatch.context() as patch:
                patch.setattr(f"baldwhisper_mlx.server.{name}", fail)
                one, results = job(bilingual, 1)
                worker.submit(one)
                with pytest.raises(FloatingPointError):
                    end_of(results)
        one, results = job(bilingual, 0)
        one.deliver = fail
        worker.submit(one)
        one, results = job(bilingual, 0)
        worker.submit(one)
        assert written(end_of(results)[1]) == written(by_itself(bilingual, 0))


@pytest.mark.parametrize("where", ["together", "alone"])
def test_one_recording_does_not_spoil_its_batch(
    bilingual: LoadedModel, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The worst of a batch: the model gives NaN for it, or its own window fails."""
    decode, transcribe_window = Decoder.decode, Transcription.transcribe_window

    def of_a_batch(self: Decoder, prompt: Any, *args: Any, **options: Any) -> Any:
        if where == "together" and [7] in [list(row[:1]) for row in np.atleast_2d(prompt)]:
            raise FloatingPointError("nan")
        return decode(self, prompt, *args, **options)

    def of_one(self: Transcription, *args: Any) -> None:
        if where == "alone" and self is bad.run:
            raise FloatingPointError("nan")
        transcribe_window(self, *args)

    monkeypatch.setattr(Decoder, "decode", of_a_batch)
    monkeypatch.setattr(Transcription, "transcribe_window", of_one)
    worker = Worker()
    jobs = [job(bilingual, i) for i in (0, 2, 3)]
    bad, failed = jobs[1]
    bad.prepare()
    assert bad.run is not None
    prompt = bad.run.decoding.prompt()
    monkeypatch.setattr(bad.run.decoding, "prompt", lambda: [7, *prompt[1:]])
    for one, _ in jobs:
        worker.submit(one)
    with worker:
        with pytest.raises(FloatingPointError):
            end_of(failed)
        for number, (_, results) in zip((0, 3), (jobs[0], jobs[2]), strict=True):
            assert written(end_of(results)[1]) == written(by_itself(bilingual, number))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_has_ended_is_visible(
    bilingual: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: Any) -> None:
        raise SystemExit

    with Worker() as worker:
        worker.check()
        monkeypatch.setattr(worker, "_step", end)
        one, results = job(bilingual, 0)
        worker.submit(one)
        with pytest.raises(RuntimeError, match="has ended"):
            end_of(results)
        with pytest.raises(RuntimeError, match="has ended"):
            worker.submit(one)
        with pytest.raises(RuntimeError, match="has ended"):
            worker.check()


def test_a_long_recording_does_not_hold_up_a_short_one(bilingual: LoadedModel) -> None:
    """Each has one window in turn."""
    finished: list[str] = []

    def note(name: str) -> Any:
        return lambda result: isinstance(result, Transcript) and finished.append(name)

    long = np.tile(NOISE[1], 5)  # of 200 s
    with Worker() as worker:
        worker.submit(Job(long, bilingual, OPTIONS, note("long")))
        worker.submit(Job(NOISE[0], bilingual, OPTIONS, note("short")))
    assert finished == ["short", "long"]


def test_the_end_waits_for_the_jobs_in_hand(bilingual: LoadedModel) -> None:
    worker = Worker()
    with worker:
        one, results = job(bilingual, 1)
        worker.submit(one)
    assert any(isinstance(result, Transcript) for result in list(results.queue))
    with pytest.raises(RuntimeError, match="stopped"):
        worker.submit(one)


SPEECH = load_audio(Path(baldwhisper_mlx.__file__).parent / "assets/speech.flac")
PAUSES = np.concatenate([SPEECH, np.zeros(80_000, np.float32), SPEECH])


@pytest.mark.parametrize("language", ["en", None])
@pytest.mark.parametrize("samples", [NOISE[0], PAUSES], ids=["noise", "speech"])
def test_pauses_are_left_out(
    bundled: LoadedModel, encoded_sizes: list[int], language: str | None, samples: Any
) -> None:
    expected = baldwhisper_mlx.transcribe(samples, bundled, vad=True, language=language)
    encoded_sizes.clear()
    options = TranscribeOptions(vad=True, language=language)
    worker = Worker()
    results: list[Results] = [queue.Queue() for _ in range(3)]
    for one in results:
        worker.submit(Job(samples, bundled, options, one.put))
    with worker:
        for one in results:
            segments, transcript = end_of(one)
            assert written(transcript) == written(expected)
            assert tuple(segments) == transcript.segments
    assert encoded_sizes[:1] == ([3] if expected.segments else [])
