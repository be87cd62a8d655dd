"""Collects what a decoder gives: chooses channels, resamples to 16 kHz, limits the length."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import soxr

from baldwhisper_mlx.audio.buffer import SampleBuffer, Samples
from baldwhisper_mlx.audio.channels import ChannelSelector, Frames
from baldwhisper_mlx.audio.source import no_check
from baldwhisper_mlx.config import SAMPLE_RATE

MAX_DURATION = 24 * 3600.0
"""Seconds of a recording by default. A small file can claim, and decode to, days of silence."""
_LOWEST_RATE = 1000
"""Hz; telephones have 8000."""
_HIGHEST_RATE = 2**24
_JOINED = 2**16
"""Samples that are handled at a time, because frames of a thousand cost a call each."""


class AudioWarning(UserWarning):
    """Something about a recording that its listener should know; it is transcribed all the same."""


class MissingAudioWarning(AudioWarning):
    """Audio is missing: a file is cut off or damaged."""


class TooLongError(ValueError):
    """A recording is longer than allowed."""


OnWarning = Callable[[AudioWarning], None]


def warn(warning: AudioWarning) -> None:
    """Issues a warning of Python, for the code that called the caller of this function."""
    warnings.warn(warning, stacklevel=3)


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """What of a recording is decoded.

    Raises:
        ValueError: a value that is not possible.
    """

    track: int | None = None
    """Number of the audio track, from 1; None for the default one, or else the first."""
    channels: str = "mix"
    """One of `channels.CHANNELS`."""
    max_duration: float = MAX_DURATION
    """Seconds; longer recordings are refused."""
    strict: bool = False
    """Whether missing audio is an error."""
    check: Callable[[], None] = no_check
    """Called before every block; what it raises ends the decoding."""
    on_warning: OnWarning = warn
    """Called with what the user should know of the recording."""

    def __post_init__(self) -> None:
        ChannelSelector(self.channels)  # which checks it
        if self.track is not None and self.track < 1:
            raise ValueError(f"track must be 1 or more, not {self.track}")
        if not self.max_duration > 0:
            raise ValueError(f"max_duration must be more than 0 s, not {self.max_duration}")


class Recording:
    """The samples of one recording in use, 16 kHz, one buffer for each channel.

    Args:
        name: for messages.
        options: what is wanted.
    """

    def __init__(self, name: str, options: LoadOptions) -> None:
        self.name = name
        self.options = options
        self.seconds = 0.0
        """So far."""
        self._selector = ChannelSelector(options.channels)
        self._outputs: list[_Resampled] = []
        self._waiting: list[Frames] = []
        self._n_waiting = self._rate = 0
        self._leading = 0.0

    def check_length(self, seconds: float) -> None:
        """Refuses a recording that is, or says that it is, longer than allowed."""
        if seconds > self.options.max_duration:
            raise TooLongError(
                f"{self.name}: longer than {self.options.max_duration:g} s; allow more with "
                "--max-duration (max_duration in Python)"
            )

    def check_rate(self, rate: int) -> None:
        """Refuses rates at which a small file would become hours of samples."""
        if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
            raise ValueError(f"{self.name}: a sample rate of {rate} Hz, which no speech has")

    def add(self, frames: Frames, rate: int) -> None:
        """Appends samples (channels, n) at a rate in Hz.

        Raises:
            ValueError: NaN or infinite samples, an impossible rate, or the recording is too long.
        """
        if not frames.size:
            return
        self.check_rate(rate)
        self.seconds += frames.shape[1] / rate
        self.check_length(self.seconds)
        alike = self._waiting and len(self._waiting[0]) == len(frames) and self._rate == rate
        if not alike:
            self._flush()
        self._waiting.append(frames)
        self._n_waiting += frames.shape[1]
        self._rate = rate
        if self._n_waiting >= _JOINED:
            self._flush()

    def add_silence(self, seconds: float) -> None:
        """Appends silence to every channel.

        Raises:
            ValueError: the recording is too long.
        """
        self.seconds += seconds
        self.check_length(self.seconds)
        self._flush()
        if not self._outputs:
            self._leading += seconds
        for output in self._outputs:
            output.add_silence(seconds)

    def missing(self, what: str) -> None:
        """Warns that audio is missing, or refuses the recording where that is wanted."""
        if self.options.strict:
            raise ValueError(f"{self.name}: {what}")
        self.options.on_warning(MissingAudioWarning(f"{self.name}: {what}"))

    def note(self, what: str) -> None:
        """Warns of something that is worth knowing."""
        self.options.on_warning(AudioWarning(f"{self.name}: {what}"))

    def finish(self) -> list[Samples]:
        """Samples (n,) of each channel in use; nothing can be added after that.

        Raises:
            ValueError: there are none.
        """
        self._flush()
        samples = [output.samples() for output in self._outputs]
        if not samples or samples[0].size == 0:
            raise ValueError(f"{self.name}: contains no audio (0 samples)")
        if self._selector.is_opposite:
            self.note(
                "its channels are the same with opposite signs and cancel out; only one of them "
                "is used there"
            )
        wanted = self.options.channels
        if wanted != "mix" and self._selector.n_channels == 1:
            self.note(f"it has only one channel, which is used (channels: {wanted})")
        return samples

    def _flush(self) -> None:
        if not self._waiting:
            return
        self.options.check()
        frames = np.concatenate(self._waiting, axis=1)
        self._waiting, self._n_waiting = [], 0
        try:
            selected = self._selector.select(frames, self._rate)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None
        if not np.isfinite(selected).all():
            raise ValueError(f"{self.name}: contains NaN or infinite samples")
        if not self._outputs:
            self._outputs = [_Resampled() for _ in selected]
            for output in self._outputs:
                output.add_silence(self._leading)
        for output, samples in zip(self._outputs, selected, strict=True):
            output.change_rate(self._rate)
            output.add(samples)


class _Resampled:
    """Collects samples (n,) at some rate, and gives them at 16 kHz."""

    def __init__(self) -> None:
        self._collector = SampleBuffer()
        self._rate = SAMPLE_RATE
        self._stream: soxr.ResampleStream | None = None

    def change_rate(self, rate: int) -> None:
        """For what is added from here on."""
        if rate != self._rate:
            self._finish()
            self._rate = rate
            if rate != SAMPLE_RATE:
                self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")

    def add(self, samples: Samples) -> None:
        if self._stream is not None:
            samples = self._stream.resample_chunk(np.ascontiguousarray(samples))
        self._collector.add(samples)

    def add_silence(self, seconds: float) -> None:
        self.change_rate(SAMPLE_RATE)
        self._collector.add_silence(round(seconds * SAMPLE_RATE))

    def samples(self) -> Samples:
        """All of them; nothing can be added after that."""
        self._finish()
        return self._collector.samples()

    def _finish(self) -> None:
        """Collects what the resampler holds back."""
        if self._stream is not None:
            self._collector.add(self._stream.resample_chunk(np.zeros(0, np.float32), last=True))
            self._stream = None
