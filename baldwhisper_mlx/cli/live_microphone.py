"""The microphone of `baldwhisper live`, by the package sounddevice."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from queue import Queue
from typing import Any

import click

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.cli.live_input import BLOCK_SECONDS, Arrivals, arrived, resampled
from baldwhisper_mlx.cli.live_signals import StopSignal

_LONGEST_WAIT = 5.0
"""Seconds without audio after which the microphone is taken for unplugged."""
_GONE = (
    "the microphone stopped sending audio: is it still plugged in? What was said before is "
    "transcribed; run the command again to continue"
)
_INSTALL = "pip install 'baldwhisper-mlx[live]'"


def microphones() -> list[str]:
    """The devices that record, one line each: number, name and channels.

    Raises:
        click.ClickException: as `microphone`.
    """
    sounddevice = _sounddevice()
    try:
        devices = list(sounddevice.query_devices())
    except sounddevice.PortAudioError as error:
        raise click.ClickException(f"cannot list the microphones: {error}") from None
    lines = [
        f"{number}: {device['name']} ({device['max_input_channels']} channels, "
        f"{device['default_samplerate']:.0f} Hz)"
        for number, device in enumerate(devices)
        if device["max_input_channels"] > 0
    ]
    if not lines:
        raise click.ClickException("there is no microphone: connect one, or give --input FILE")
    return lines


@contextlib.contextmanager
def microphone(
    device: str | None, stop: StopSignal, warn: Callable[[str], None]
) -> Iterator[Iterator[Samples]]:
    """Records from a microphone; gives its blocks.

    Lost audio is warned of once, and with its total at the end.

    Args:
        device: number or part of its name; None for the system's.
        stop: ends the blocks when it is set.
        warn: prints a warning.

    Raises:
        click.ClickException: the library or the microphone is missing. The blocks raise it if the
            microphone stops.
    """
    sounddevice = _sounddevice()
    arrivals: Arrivals = Queue()
    chosen: int | str | None = int(device) if device and device.isdecimal() else device
    lost = 0

    def on_block(data: Any, frames: int, when: Any, status: Any) -> None:
        nonlocal lost
        lost += bool(status.input_overflow)
        arrivals.put(data[:, 0].copy())

    def on_end() -> None:  # also when it is closed below, where nobody reads any more
        arrivals.put(click.ClickException(_GONE))

    try:
        rate = round(sounddevice.query_devices(chosen, "input")["default_samplerate"])
        stream = sounddevice.InputStream(
            samplerate=rate, channels=1, dtype="float32", device=chosen,
            blocksize=round(BLOCK_SECONDS * rate), callback=on_block, finished_callback=on_end,
        )  # fmt: skip
        stream.__enter__()
    except (ValueError, sounddevice.PortAudioError) as error:
        raise click.ClickException(
            f"cannot record from {'the microphone' if device is None else device}: {error}; "
            "--list-devices prints the microphones, --input FILE reads a file"
        ) from None
    blocks = arrived(arrivals, stop, longest_wait=_LONGEST_WAIT, ended=_GONE)
    watched = _watched(resampled(blocks, rate), lambda: lost, warn)
    try:
        yield watched
    finally:
        watched.close()
        with contextlib.suppress(sounddevice.PortAudioError):  # it is unplugged
            stream.__exit__(None, None, None)


def _watched(
    blocks: Iterator[Samples], lost: Callable[[], int], warn: Callable[[str], None]
) -> Generator[Samples, None, None]:
    """The blocks, with warnings about what was lost before them."""
    warned = False
    try:
        for block in blocks:
            if lost() and not warned:
                warned = True
                warn("the microphone lost audio, because the machine is too busy")
            yield block
    finally:
        if lost():
            warn(f"the microphone lost audio {lost()} times; words may be missing")


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
