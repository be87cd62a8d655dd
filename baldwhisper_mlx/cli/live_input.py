"""Where live audio comes from: a file at the speed of time, or raw PCM.

Each is an iterator over blocks of samples at 16 kHz. A block is everything that has arrived since
the last one was asked for, so whoever is late catches up.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import soxr

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.cli.live_signals import StopSignal
from baldwhisper_mlx.cli.streams import Stdin, is_closed
from baldwhisper_mlx.cli.usage import check_input
from baldwhisper_mlx.config import SAMPLE_RATE

BLOCK_SECONDS = 0.1
_FILE_BLOCK = SAMPLE_RATE // 2
_MOST_WAITING = 600
"""Blocks of raw PCM that are read ahead; then whoever writes them has to wait."""

Arrivals = queue.Queue[Samples | BaseException | None]
"""Blocks as they arrive; an error, or None, at the end."""


def file_blocks(source: str | Path, stop: StopSignal, *, realtime: bool) -> Iterator[Samples]:
    """An audio file, half a second at a time.

    Args:
        source: path.
        stop: ends it when it is set.
        realtime: at the speed of time: a block is then what was spoken since the last one.

    Raises:
        FileNotFoundError, ValueError: see `load_audio`.
    """
    return _paced(load_audio(source), stop, realtime=realtime)


def _paced(samples: Samples, stop: StopSignal, *, realtime: bool) -> Iterator[Samples]:
    began, position = time.monotonic(), 0
    while position < len(samples) and not stop.is_set():
        end = position + _FILE_BLOCK
        if realtime:
            due = began + (position / SAMPLE_RATE + BLOCK_SECONDS) - time.monotonic()
            time.sleep(max(0.0, due))
            end = max(position + 1, round((time.monotonic() - began) * SAMPLE_RATE))
        yield samples[position:end]
        position = end


def pcm_blocks(rate: int, stop: StopSignal) -> Iterator[Samples]:
    """Raw PCM from standard input: 16-bit signed integers, little-endian, one channel.

    Args:
        rate: of the samples, in Hz.
        stop: ends it when it is set.

    Raises:
        click.ClickException, click.UsageError: standard input is closed, or a terminal.
        ValueError: it ends within a number.
    """
    check_input(["-"], None, None, "mix")
    assert not is_closed("stdin")
    arrivals: Arrivals = queue.Queue(_MOST_WAITING)
    threading.Thread(target=_read_pcm, args=(arrivals, rate), daemon=True).start()
    return resampled(arrived(arrivals, stop), rate)


def resampled(blocks: Iterator[Samples], rate: int) -> Iterator[Samples]:
    """Blocks at some rate (Hz) as blocks at 16 kHz."""
    if rate == SAMPLE_RATE:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _read_pcm(arrivals: Arrivals, rate: int) -> None:
    """Reads standard input to its end."""
    stdin, half = Stdin(lambda: None), b""
    try:
        while data := stdin.read(2 * max(1, round(BLOCK_SECONDS * rate))):
            data = half + data
            whole = len(data) // 2 * 2
            half = data[whole:]
            numbers = np.frombuffer(data[:whole], "<i2")
            arrivals.put(numbers.astype(np.float32) / np.float32(32768))
        if half:
            raise ValueError(
                "raw PCM: the input ends within a 16-bit sample; what came before is transcribed"
            )
        arrivals.put(None)
    except BaseException as error:
        arrivals.put(error)


def arrived(
    arrivals: Arrivals,
    stop: StopSignal,
    *,
    longest_wait: float | None = None,
    ended: str = "",
) -> Iterator[Samples]:
    """Everything that has arrived, again and again, until the end or `stop`.

    Args:
        arrivals: blocks from another thread.
        stop: ends it.
        longest_wait: seconds without a block after which it fails; None to wait as long as it
            takes.
        ended: what it then says.

    Raises:
        click.ClickException: nothing has come for `longest_wait`. Errors that arrive.
    """
    is_last, n_empty = False, 0
    while not is_last:
        is_last = stop.is_set()
        waiting = []
        with contextlib.suppress(queue.Empty):
            waiting.append(arrivals.get(timeout=BLOCK_SECONDS))
            while True:
                waiting.append(arrivals.get_nowait())
        # Waits are counted, and not the time: while something is decoded, blocks pile up.
        n_empty = 0 if waiting else n_empty + 1
        blocks = [item for item in waiting if isinstance(item, np.ndarray)]
        if blocks:
            yield np.concatenate(blocks)
        for item in waiting:
            if isinstance(item, BaseException):
                raise item
            is_last = is_last or item is None
        if longest_wait is not None and n_empty * BLOCK_SECONDS >= longest_wait:
            raise click.ClickException(ended)
