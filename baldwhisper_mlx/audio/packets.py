"""Packets of an audio track to pieces of samples at their times, past damaged packets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.audio.containers import GuardedFile
from baldwhisper_mlx.audio.timeline import Piece

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

_UNTIMED = {"aac", "ac3", "amr", "amrnb", "amrwb", "dts", "dtshd", "eac3", "loas", "mp3"}
"""Formats that are nothing but frames: FFmpeg counts times from the frames that it finds."""
_MOST_DAMAGED = 100_000
"""Packets that give nothing, one after another, after which the rest is given up."""
_SOUGHT = 64
"""Bytes by which a packet is found in its file."""
_LONGEST_PACKET = 60
"""Seconds; the last packet of an Ogg may have a negative length, which FFmpeg does not show."""
_MOST_ERRORS = 20
"""Errors of the container, without a packet between them, after which the rest is given up."""


class TrackReader:
    """Decodes a track.

    Args:
        container: from `containers.opened`.
        track: one of its audio tracks.
        file: that the container reads.
    """

    def __init__(self, container: InputContainer, track: AudioStream, file: GuardedFile) -> None:
        self.n_damaged = 0
        """Packets that could not be decoded."""
        self.n_packets = 0
        self.is_cut = False
        """Whether the last packet was incomplete."""
        self._container = container
        self._track = track
        self._file = file
        self.is_untimed = container.format.name in _UNTIMED
        self._origin: float | None = None
        self._last = 0.0
        self._lost = _LostBytes(file)
        self._n_fruitless = 0

    @property
    def end(self) -> float:
        """Seconds up to which there are packets, decodable or not."""
        return self._last - (self._origin or 0.0) + self._lost.seconds

    def pieces(self) -> Iterator[Piece]:
        """All that can be decoded, in order.

        Raises:
            av.FFmpegError: the container cannot be read, from its first packet on.
        """
        is_after_damage = False
        for packet in self._packets():
            self.n_packets += packet.size > 0
            if self.is_untimed and self._lost.is_tag(packet):
                continue
            frames = self._decoded(packet)
            is_after_damage |= frames is None
            for frame in frames or ():
                start, samples = self._start(frame), _frames(frame)
                if not np.isfinite(samples).all():  # of a damaged packet
                    is_after_damage = True
                    continue
                yield Piece(samples, frame.sample_rate, start, is_after_damage)
                is_after_damage = False
                self._n_fruitless = 0
            self._n_fruitless += packet.size > 0
            if self._n_fruitless > _MOST_DAMAGED:
                break

    def _packets(self) -> Iterator[Packet[Any]]:
        import av

        n_errors = 0
        while n_errors < _MOST_ERRORS:
            n_before = self.n_packets
            try:
                for packet in self._container.demux(self._track):
                    self._file.has_packet(self._container.format.name)
                    yield packet
                return
            except IndexError:  # PyAV's, of a packet of a track that was not there at the start
                self._n_fruitless += 1
                if self._n_fruitless > _MOST_DAMAGED:
                    return
            except av.FFmpegError:
                if self.n_packets == 0:
                    raise
                self.n_damaged += 1
                n_errors = n_errors + 1 if self.n_packets == n_before else 0

    def _decoded(self, packet: Packet[Any]) -> list[AudioFrame] | None:
        """The frames of a packet; None if it is damaged."""
        import av

        try:
            frames: list[AudioFrame] | None = packet.decode()  # type: ignore[assignment]
        except av.FFmpegError:
            frames = None
            self.n_damaged += 1
            self.is_cut = True
        else:
            if packet.size:  # the last packet is empty and asks for what the decoder holds back
                self.is_cut = packet.is_corrupt
        if packet.pts is not None and packet.time_base is not None:
            length = float((packet.duration or 0) * packet.time_base)
            last = float(packet.pts * packet.time_base)
            self._last = max(self._last, last + (length if length < _LONGEST_PACKET else 0))
        if self.is_untimed:
            self._lost.add(packet, is_damaged=frames is None)
        return frames

    def _zero(self, first: float) -> float:
        """The container's time at the start of the recording, of video too if there is any."""
        if self._origin is None:
            start = self._container.start_time
            alone = self.is_untimed or start is None
            self._origin = first if alone or start is None else start / 1e6
        return self._origin

    def _start(self, frame: AudioFrame) -> float | None:
        if frame.pts is None or frame.time_base is None:
            return None
        time = float(frame.pts * frame.time_base)
        return time - self._zero(time) + self._lost.seconds


class _LostBytes:
    """How long what was lost of a stream of frames has lasted, from the bytes it took.

    `seconds` is what FFmpeg's times lack: it counts a damaged stretch as the frames that it seems
    to have.
    """

    def __init__(self, file: GuardedFile) -> None:
        self.seconds = 0.0
        self._file = file
        self._good_bytes = 0
        self._good_seconds = 0.0
        self._pending = 0.0
        self._is_damaged = False
        self._tag_end = 0
        self._next_position: int | None = None
        # FFmpeg's positions lack what its demuxer of AAC has skipped.
        self._unseen = 0

    def is_tag(self, packet: Packet[Any]) -> bool:
        """Whether a packet is a part of a tag, such as those between recordings that were joined.

        FFmpeg takes it for audio, and finds frames of noise in its pictures.
        """
        if packet.pos is None or not packet.size:
            return False
        expected = packet.pos if self._next_position is None else self._next_position
        for start in {expected, packet.pos}:
            self._tag_end = max(self._tag_end, self._file.end_of_tag(start + self._unseen))
        # The last one may have a frame behind the tag, which is silent after most tags.
        if packet.pos + self._unseen >= self._tag_end:
            return False
        self._next_position = packet.pos + packet.size
        self.seconds -= float((packet.duration or 0) * (packet.time_base or 0))
        return True

    def add(self, packet: Packet[Any], *, is_damaged: bool) -> None:
        if not packet.size:
            return
        duration = float((packet.duration or 0) * (packet.time_base or 0))
        skipped = 0
        if packet.pos is not None:
            if self._next_position is not None:
                skipped = max(0, packet.pos - max(self._next_position, self._tag_end))
            self._next_position = packet.pos + packet.size
            if self._is_damaged and not is_damaged:
                unseen = self._file.distance(bytes(packet)[:_SOUGHT], packet.pos + self._unseen)
                self._unseen += unseen
                skipped += unseen
        rate = self._good_seconds / self._good_bytes if self._good_bytes else 0.0
        self._is_damaged = is_damaged
        if is_damaged:
            self._pending += (skipped + packet.size) * rate - duration
            return
        # A false frame is longer than the bytes it was found in.
        self.seconds += max(0.0, self._pending + skipped * rate)
        self._pending = 0.0
        self._good_bytes += packet.size
        self._good_seconds += duration


def _frames(frame: AudioFrame) -> npt.NDArray[np.float32]:
    """Samples (channels, n) of a frame in any of FFmpeg's sample formats, full scale at 1.0.

    What exceeds the full scale, as damaged packets do a thousand times, is clipped, as FFmpeg
    does when it makes 16-bit samples.
    """
    samples: npt.NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == "f":
        clipped: npt.NDArray[np.float32] = np.clip(samples, -1, 1).astype(np.float32, copy=False)
        return clipped
    full_scale = np.float32(2.0 ** (8 * samples.dtype.itemsize - 1))
    scaled: npt.NDArray[np.float32] = samples.astype(np.float32)
    if samples.dtype.kind == "u":  # whose silence is in the middle
        scaled -= full_scale
    scaled /= full_scale
    return scaled
