"""The thread that owns the decoder: waiting recordings are transcribed together, window by window.

A recording that arrives joins the others at their next window, so that requests with the same
options share a batch (transcription/batched.py). Each gets the transcript that it gets by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from baldwhisper_mlx.server.jobs import Job, Result
from baldwhisper_mlx.transcription.batched import alike, transcribe_windows
from baldwhisper_mlx.transcription.sequential import Transcription
from baldwhisper_mlx.transcription.stream import TranscriptStream


@dataclass(eq=False)
class _Active:
    """A job that has begun, and how: in batches with others, or by itself."""

    job: Job
    run: Transcription | TranscriptStream
    is_done: bool = False

    @classmethod
    def start(cls, job: Job) -> _Active:
        with job.loaded.in_use():
            # What leaves out pauses is a recording of its own making.
            if job.options.vad:
                stream = TranscriptStream(job.samples, job.loaded, job.options, on_warning=job.warn)
                return cls(job, stream)
            return cls(job, Transcription.start(job.samples, job.loaded, job.options))

    def finish(self, result: Result) -> None:
        self.is_done = True
        self.job.deliver(result)


class Worker:
    """Transcribes jobs on a thread of its own.

    Example:
        >>> with Worker() as worker:  # doctest: +SKIP
        ...     worker.submit(Job(samples, loaded, TranscribeOptions(), print))
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[Job] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="baldwhisper-decoder", daemon=True)

    def __enter__(self) -> Worker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Waits for the jobs in hand."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def submit(self, job: Job) -> None:
        """Has a job done; it begins with the next window.

        Raises:
            RuntimeError: the worker has been stopped.
        """
        with self._changed:
            if self._stopping:
                raise RuntimeError("the worker has been stopped")
            self._waiting.append(job)
            self._changed.notify()

    def _work(self) -> None:
        active: list[_Active] = []
        while True:
            with self._changed:
                while not (active or self._waiting or self._stopping):
                    self._changed.wait()
                new, self._waiting = self._waiting, []
                if self._stopping and not (active or new):
                    return
            for job in new:
                try:
                    active.append(_Active.start(job))
                except Exception as error:
                    job.deliver(error)
            active = [one for one in active if not one.job.is_cancelled]
            for group in _groups(active):
                _step(group)
            active = [one for one in active if not one.is_done]


def _groups(active: Sequence[_Active]) -> list[list[_Active]]:
    """Jobs that can share batches: of one model, and with the same options."""
    groups: list[list[_Active]] = []
    for one in active:
        for group in groups:
            first = group[0].job
            if first.loaded is one.job.loaded and first.options == one.job.options:
                group.append(one)
                break
        else:
            groups.append([one])
    return groups


def _step(group: Sequence[_Active]) -> None:
    """One window of each job."""
    together = {id(one.run): one for one in group if isinstance(one.run, Transcription)}
    runs = [one.run for one in together.values() if isinstance(one.run, Transcription)]
    unfinished = [run for run in runs if run.window_frames]
    with group[0].job.loaded.in_use():
        for batch in alike(unfinished):
            _advance([together[id(run)] for run in batch], batch)
    for one in group:
        if isinstance(one.run, TranscriptStream):
            _next_segment(one, one.run)
        elif not one.is_done and not one.run.window_frames:
            one.job.warn_of(one.run.decoding.first_attempts)
            one.finish(one.run.transcript())


def _advance(batch: Sequence[_Active], runs: Sequence[Transcription]) -> None:
    done = [len(run.segments) for run in runs]
    try:
        transcribe_windows(batch[0].job.loaded, runs)
    except Exception as error:
        for one in batch:
            one.finish(error)
        return
    for one, run, n_before in zip(batch, runs, done, strict=True):
        if segments := run.segments[n_before:]:
            one.job.deliver(segments)


def _next_segment(one: _Active, stream: TranscriptStream) -> None:
    try:
        segment = next(stream, None)
        if segment is not None:
            one.job.deliver([segment])
        else:
            one.finish(stream.transcript())
    except Exception as error:
        one.finish(error)
