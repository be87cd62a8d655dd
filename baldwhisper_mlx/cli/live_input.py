"""Where live audio comes from: a microphone, a file at the speed of time, raw PCM.

Each is an iterator over blocks of samples at 16 kHz. A block is everything that has arrived since
the last one was asked for, so whoever is late catches up.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import soxr

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.cli.streams import Stdin, is_closed
from baldwhisper_mlx.cli.usage import check_input
from baldwhisper_mlx.config import SAMPLE_RATE

BLOCK_SECONDS = 0.1
_FILE_BLOCK = SAMPLE_RATE // 2
_MOST_WAITING = 600
"""Blocks of raw PCM that are read ahead; then whoever writes them has to wait."""
_INSTALL = "pip install 'baldwhisper-mlx[live]'"

Arrivals = queue.Queue[Samples | BaseException | None]
"""Blocks as they arrive; an error, or None, at the end."""


def file_blocks(source: str | Path, stop: threading.Event, *, realtime: bool) -> Iterator[Samples]:
    """An audio file, half a second at a time.

    Args:
        source: path.
        stop: ends it when it is set.
        realtime: at the speed of time: a block is then what was spoken since the last one.

    Raises:
        FileNotFoundError, ValueError: see `load_audio`.
    """
    samples = load_audio(source)
    began, position = time.monotonic(), 0
    while position < len(samples) and not stop.is_set():
        end = position + _FILE_BLOCK
        if realtime:
            due = began + (position / SAMPLE_RATE + BLOCK_SECONDS) - time.monotonic()
            time.sleep(max(0.0, due))
            end = max(position + 1, round((time.monotonic() - began) * SAMPLE_RATE))
        yield samples[position:end]
        position = end


def pcm_blocks(rate: int, stop: threading.Event) -> Iterator[Samples]:
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
    return resampled(_arrived(arrivals, stop), rate)


def microphones() -> list[str]:
    """The devices that record, one line each: number, name and channels.

    Raises:
        click.ClickException: as `microphone`.
    """
    sounddevice = _sounddevice()
    lines = [
        f"{number}: {device['name']} ({device['max_input_channels']} channels, "
        f"{device['default_samplerate']:.0f} Hz)"
        for number, device in enumerate(sounddevice.query_devices())
        if device["max_input_channels"] > 0
    ]
    if not lines:
        raise click.ClickException("there is no microphone: connect one, or give --input FILE")
    return lines


@contextlib.contextmanager
def microphone(device: str | None, stop: threading.Event) -> Iterator[Iterator[Samples]]:
    """Records from a microphone; gives its blocks.

    Args:
        device: number or part of its name; None for the system's.
        stop: ends the blocks when it is set.

    Raises:
        click.ClickException: the library or the microphone is missing.
    """
    sounddevice = _sounddevice()
    arrivals: Arrivals = queue.Queue()
    chosen: int | str | None = int(device) if device and device.isdecimal() else device

    def arrived(data: Any, frames: int, when: Any, status: Any) -> None:
        if status.input_overflow:
            click.echo("warning: the microphone lost audio: the machine is too busy", err=True)
        arrivals.put(data[:, 0].copy())

    try:
        rate = round(sounddevice.query_devices(chosen, "input")["default_samplerate"])
        stream = sounddevice.InputStream(
            samplerate=rate, channels=1, dtype="float32", device=chosen,
            blocksize=round(BLOCK_SECONDS * rate), callback=arrived,
        )  # fmt: skip
    except (ValueError, sounddevice.PortAudioError) as error:
        raise click.ClickException(
            f"cannot record from {'the microphone' if device is None else device}: {error}; "
            "--list-devices prints the microphones, --input FILE reads a file"
        ) from None
    with stream:
        yield resampled(_arrived(arrivals, stop), rate)


def resampled(blocks: Iterator[Samples], rate: int) -> Iterator[Samples]:
    """Blocks at some rate (Hz) as blocks at 16 kHz."""
    if rate == SAMPLE_RATE:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


@contextlib.contextmanager
def interruption() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that the utterance at hand is finished; again, it interrupts.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed twice.
    """
    stop = threading.Event()

    def on_interrupt(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


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
            raise ValueError("raw PCM: the input ends within a 16-bit sample")
        arrivals.put(None)
    except BaseException as error:
        arrivals.put(error)


def _arrived(arrivals: Arrivals, stop: threading.Event) -> Iterator[Samples]:
    """Everything that has arrived, again and again, until the end or `stop`."""
    is_last = False
    while not is_last:
        is_last = stop.is_set()
        waiting = []
        with contextlib.suppress(queue.Empty):
            waiting.append(arrivals.get(timeout=BLOCK_SECONDS))
            while True:
                waiting.append(arrivals.get_nowait())
        blocks = [item for item in waiting if isinstance(item, np.ndarray)]
        if blocks:
            yield np.concatenate(blocks)
        for item in waiting:
            if isinstance(item, BaseException):
                raise item
            is_last = is_last or item is None


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ImportError:
        raise click.ClickException(
            f"the microphone needs the package sounddevice: {_INSTALL}, or give --input FILE"
        ) from None
    except OSError as error:
        raise click.ClickException(
            f"sounddevice cannot be used: {error}; install PortAudio (on Debian and Ubuntu the "
            "package libportaudio2), or give --input FILE"
        ) from None
    return sounddevice
