"""Stands for the package sounddevice: a microphone that records given samples, and how it ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from baldwhisper_mlx.audio.buffer import Samples


class FakeDevices:
    """A speaker and a microphone.

    Args:
        samples: at 16 kHz, which it records.
        rate: Hz, a multiple of 16 kHz.
        ending: the signal that this process gets at the end; "finished" if the stream ends, or
            "nothing" if no more blocks come.
        overflows: blocks before which audio was lost.
        start_error: whether it can be opened and not started.
    """

    class PortAudioError(Exception):
        """As the package's."""

    def __init__(
        self,
        samples: Samples,
        rate: int = 16_000,
        *,
        ending: signal.Signals | str = signal.SIGINT,
        overflows: int = 0,
        start_error: bool = False,
    ) -> None:
        self.samples, self.rate, self.ending = np.repeat(samples, rate // 16_000), rate, ending
        self.overflows, self.start_error = overflows, start_error
        self.asked: list[Any] = []

    def query_devices(self, device: Any = None, kind: str | None = None) -> Any:
        microphone = {
            "name": "Desk", "max_input_channels": 1, "default_samplerate": float(self.rate),
        }  # fmt: skip
        speaker = {**microphone, "name": "Loud", "max_input_channels": 0}
        if kind is None:
            return [speaker, microphone]
        self.asked.append(device)
        if device not in (None, 1, "Desk"):
            raise ValueError(f"No input device matching {device!r}")
        return microphone

    def InputStream(self, *, callback: Any, finished_callback: Any, **options: Any) -> Any:
        assert options["samplerate"] == self.rate

        def speak() -> None:
            for number, first in enumerate(range(0, len(self.samples), 4800)):
                block = self.samples[first : first + 4800, None]
                status = SimpleNamespace(input_overflow=number < self.overflows)
                callback(block, len(block), None, status)
            if isinstance(self.ending, signal.Signals):
                while signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                    time.sleep(0.01)
                os.kill(os.getpid(), self.ending)
            elif self.ending == "finished":
                finished_callback()

        return _FakeStream(self, speak)


class _FakeStream:
    def __init__(self, devices: FakeDevices, speak: Callable[[], None]) -> None:
        self._devices, self._thread = devices, threading.Thread(target=speak)

    def __enter__(self) -> None:
        if self._devices.start_error:
            raise self._devices.PortAudioError("Device unavailable")
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        if isinstance(self._devices.ending, str):
            raise self._devices.PortAudioError("the device is gone")
