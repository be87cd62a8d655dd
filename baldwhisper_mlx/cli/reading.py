"""Reads and decodes the next file while the model works on the current one."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from baldwhisper_mlx.cli.inputs import STDIN
from baldwhisper_mlx.cli.progress import beside_bars
from baldwhisper_mlx.cli.streams import Stdin
from baldwhisper_mlx.terminal import printable

if TYPE_CHECKING:
    from baldwhisper_mlx.audio.buffer import Samples

Audio = TypeVar("Audio")

_THREAD_NAME = "baldwhisper-reader"
_PATIENCE = 0.5
"""Seconds that an interrupted program waits for a file that is being read."""


class _Stopped(Exception):
    """The audio is not wanted any more."""


class Stop:
    """Ends the reading from another thread."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Nothing more is wanted."""
        self._event.set()

    def check(self) -> None:
        """Raises an exception if nothing more is wanted."""
        if self._event.is_set():
            raise _Stopped


def decoded_ahead(
    names: Sequence[str], read: Callable[[str], Audio], stop: Stop | None = None
) -> Iterator[tuple[str, Future[Audio]]]:
    """Each name with the future of its samples; a thread reads one file ahead of the caller.

    Args:
        names: of the files.
        read: gives the samples of one.
        stop: which `read` asks; it is set when the caller is done, or interrupted.
    """
    stop = stop or Stop()
    # No further ahead: each decoded file takes memory.
    permits = threading.Semaphore(1)
    futures: deque[Future[Audio]] = deque(Future() for _ in names)
    upcoming = futures.copy()

    def work() -> None:
        for name in names:
            permits.acquire()
            future = upcoming.popleft()
            try:
                stop.check()
                future.set_result(read(name))
            except BaseException as error:  # the caller gets it
                future.set_exception(error)
            del future  # with its samples

    # A daemon, because nothing ends a thread that waits for a pipe without a writer.
    thread = threading.Thread(target=work, name=_THREAD_NAME, daemon=True)
    thread.start()
    try:
        for name in names:
            permits.release()
            yield name, futures.popleft()
    finally:
        stop.set()
        for _ in names:
            permits.release()
        thread.join(_PATIENCE)


def audio_of_files(
    names: Sequence[str], pcm_rate: int | None = None, **audio_options: Any
) -> Iterator[tuple[str, Future[Samples | list[Samples]]]]:
    """Each name with the future of its samples, or of those of its channels.

    Warnings about them, and others that come meanwhile, are printed as one line each.

    Args:
        names: of the files, or `-` for standard input.
        pcm_rate: Hz, if standard input is raw PCM.
        audio_options: track, channels and max_duration, as for `load_audio`; "split" for each
            channel by itself.
    """

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        with beside_bars(sys.stderr):
            click.echo(f"warning: {printable(str(message))}", err=True)

    stop = Stop()
    read = partial(_read, pcm_rate=pcm_rate, stop=stop, **audio_options)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield from decoded_ahead(names, read, stop)


def _read(
    name: str,
    *,
    pcm_rate: int | None,
    stop: Stop,
    track: int | None = None,
    channels: str = "mix",
    max_duration: float | None = None,
) -> Samples | list[Samples]:
    """The samples of a file, or of each of its channels."""
    from baldwhisper_mlx.audio.load import load_audio, load_channels, load_pcm

    source: Any = Stdin(stop.check) if name == STDIN else name
    limits: dict[str, Any] = {"check": stop.check}
    if max_duration is not None:
        limits["max_duration"] = max_duration
    if pcm_rate is not None:
        return load_pcm(source, pcm_rate, **limits)
    if channels == "split":
        return load_channels(source, track=track, **limits)
    return load_audio(source, track=track, channels=channels, **limits)


def exit_program(code: int) -> None:
    """Ends the program, even where a thread still waits for a file.

    Args:
        code: of the program.
    """
    code = _flush(code)
    if not any(thread.name == _THREAD_NAME for thread in threading.enumerate()):
        sys.exit(code)
    # The interpreter would wait for the thread, or abort over the lock that it holds.
    os._exit(code)


def _flush(code: int) -> int:
    """Writes what the standard streams hold; the exit code, which is not 0 if that fails."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            if code == 0 and stream is sys.stdout:
                click.echo(f"Error: standard output: {error}", err=True)
            code = code or 1
            # Or the interpreter would try again, and exit with 120.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code
