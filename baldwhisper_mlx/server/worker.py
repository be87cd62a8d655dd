"""The thread that owns the decoder: waiting recordings are transcribed together, window by window.

A recording that arrives joins the others at their next window, so that requests which are decoded
in the same way share a batch (transcription/batched.py). Each gets the transcript that it gets by
itself, and every recording in hand gets a window in turn, however long it is.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from baldwhisper_mlx.server.jobs import Job, Result
from baldwhisper_mlx.transcription.batched import alike, transcribe_windows

_STOPPED = "the worker has been stopped"
_log = logging.getLogger("baldwhisper_mlx.server")


class Worker:
    """Transcribes jobs on a thread of its own.

    Example:
        >>> with Worker() as worker:  # doctest: +SKIP
        ...     worker.submit(Job(samples, loaded, TranscribeOptions(), print))
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[Job] = []
        self._active: list[Job] = []
        self._stopping = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="baldwhisper-decoder", daemon=True)

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
            RuntimeError: the worker has been stopped, or its thread has ended.
        """
        with self._changed:
            self.check()
            self._waiting.append(job)
            self._changed.notify()

    def check(self) -> None:
        """Makes sure that jobs are taken.

        Raises:
            RuntimeError: the worker has been stopped, or its thread has ended.
        """
        if self._failure is not None:
            raise RuntimeError("the worker's thread has ended") from self._failure
        if self._stopping:
            raise RuntimeError(_STOPPED)

    def _run(self) -> None:
        try:
            while self._take_jobs():
                self._step()
        except BaseException as failure:  # which no job can have caused: see `_step`
            _log.exception("the worker's thread has ended; restart the server")
            with self._changed:
                self._failure = failure
                jobs, self._waiting = self._active + self._waiting, []
            for job in jobs:
                job.deliver(RuntimeError("the worker's thread has ended"))

    def _take_jobs(self) -> bool:
        """Waits for jobs; False if the worker has been stopped and there are none."""
        with self._changed:
            while not (self._active or self._waiting or self._stopping):
                self._changed.wait()
            new, self._waiting = self._waiting, []
        for job in new:
            try:
                if not job.is_prepared:
                    job.prepare()
                if job.has_window:
                    self._active.append(job)
                else:
                    _deliver(job, job.transcript())
            except Exception as error:
                _deliver(job, error)
        with self._changed:
            return bool(self._active or self._waiting) or not self._stopping

    def _step(self) -> None:
        """One window of each job."""
        unfinished: list[Job] = []
        for group in _of_one_model([job for job in self._active if not job.is_cancelled]):
            try:
                unfinished += _next_windows(group)
            except Exception as error:
                for job in group:
                    _deliver(job, error)
        self._active = unfinished


def _next_windows(group: Sequence[Job]) -> list[Job]:
    """One window of each job of a model; the jobs that have more."""
    loaded = group[0].loaded
    by_run = {id(job.run): job for job in group}
    unfinished: list[Job] = []

    with loaded.in_use():
        for batch in alike([job.run for job in group if job.run is not None]):
            done = [len(run.segments) for run in batch]
            errors = transcribe_windows(loaded, batch)
            for run, n_before, error in zip(batch, done, errors, strict=True):
                job = by_run[id(run)]
                if error is not None:
                    _deliver(job, error)
                    continue
                if segments := job.segments(n_before):
                    _deliver(job, segments)
                if job.has_window:
                    unfinished.append(job)
                else:
                    _deliver(job, job.transcript())
    return unfinished


def _deliver(job: Job, result: Result) -> None:
    try:
        job.deliver(result)
    except Exception:  # its own problem, and not that of the other jobs
        _log.exception("a result could not be delivered")


def _of_one_model(jobs: Sequence[Job]) -> list[list[Job]]:
    groups: dict[int, list[Job]] = {}
    for job in jobs:
        groups.setdefault(id(job.loaded), []).append(job)
    return list(groups.values())
