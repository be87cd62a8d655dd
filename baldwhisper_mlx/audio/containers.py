"""Audio of containers that libsndfile does not know, video included, by FFmpeg's libraries (PyAV).

Only the file itself is read: FFmpeg gets an open file and no name to open another by, and its
demuxers of playlists are left out. PyAV is imported when a file needs it, which few do.
"""

from __future__ import annotations

import errno
import warnings
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

_DEMUXERS = (
    "aa,aac,aax,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dhav,dsf,dss,dts,dtshd,dv,eac3,flac,"
    "flv,gxf,ircam,kux,latm,live_flv,loas,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,"
    "nsv,nut,ogg,oma,qcp,qoa,rm,shn,sox,swf,tak,tta,ty,voc,vqf,w64,wav,webm,wsd,wtv,wv,xwma"
)
"""Formats of recordings. hls, dash, concat, sdp, imf and the like would open what a file names."""
_BUFFER = 2**18
"""Bytes read at a time."""
_BLOCK = 2**16
"""Samples given at a time, because frames of a thousand cost the resampler a call each."""
_MOST_DAMAGED = 0.1
"""Share of undecodable packets beyond which what is left is no recording."""

Block = tuple[npt.NDArray[np.float32], int]
"""Samples (n,), full scale at 1.0, and their rate in Hz."""


def decode(path: Path, name: str) -> Generator[Block, None, None]:
    """Decodes the default audio track of a file, or the first, block by block.

    A packet that cannot be decoded becomes silence of its length, and is warned of at the end.

    Args:
        path: of the file.
        name: for it in messages.

    Yields:
        Samples (n,), float32, full scale at 1.0, channels averaged, and their rate in Hz. The
        rate may change within a file.

    Raises:
        ValueError: not a known container, no audio in it, a damaged or a cut-off file.
    """
    import av

    with path.open("rb", buffering=0) as file:
        try:
            container = av.open(
                file,
                mode="r",
                container_options={"format_whitelist": _DEMUXERS, "protocol_whitelist": "none"},
                metadata_errors="replace",
                buffer_size=_BUFFER,
                io_open=_refuse,
            )
        except (av.FFmpegError, _OtherFile) as error:
            reason = _reason(error)
            if getattr(error, "errno", None) == errno.EINVAL:  # FFmpeg's answer to other formats
                reason = "it is a playlist or something else that is no recording"
            raise ValueError(
                f"{name}: neither libsndfile nor FFmpeg can decode it ({reason})"
            ) from None
        with container:
            try:
                track = _audio_track(container, name)
                yield from _joined(_decode_track(container, track, name))
            except (av.FFmpegError, _OtherFile) as error:
                raise ValueError(f"{name}: damaged audio ({_reason(error)})") from None


class _OtherFile(Exception):
    """The file asks for another one, which it does not get."""


def _refuse(url: str, flags: int, options: dict[str, str]) -> Any:
    raise _OtherFile(f"it refers to another file, {url}")


def _reason(error: Exception) -> str:
    """FFmpeg's own words, without the number and the name that PyAV puts around them."""
    return str(getattr(error, "strerror", None) or error)


def _audio_track(container: InputContainer, name: str) -> AudioStream:
    from av.stream import Disposition

    tracks = container.streams.audio
    if not tracks:
        raise ValueError(f"{name}: there is no audio track in it")
    track = next((track for track in tracks if track.disposition & Disposition.default), tracks[0])
    if track.codec_context is None:
        raise ValueError(f"{name}: FFmpeg has no decoder for its audio track")
    # Audio gains nothing from decoder threads, and they could wait for Python's lock.
    track.codec_context.thread_count = 1
    return track


def _decode_track(container: InputContainer, track: AudioStream, name: str) -> Iterator[Block]:
    import av

    rate = track.rate or 0
    n_packets = n_damaged = 0
    is_cut = False
    for packet in container.demux(track):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            frames = []
            n_damaged += 1
            is_cut = True
            if packet.duration and packet.time_base and rate:
                yield np.zeros(round(packet.duration * packet.time_base * rate), np.float32), rate
        else:
            if packet.size:  # the last packet is empty and asks for what the decoder holds back
                is_cut = packet.is_corrupt
        n_packets += packet.size > 0
        for frame in frames:
            rate = frame.sample_rate
            yield _mono(frame), rate
    # What ends within a packet has lost the rest; damage in the middle has a packet after it.
    if is_cut:
        raise ValueError(f"{name}: truncated, its last packet is incomplete")
    if n_damaged > _MOST_DAMAGED * n_packets:
        raise ValueError(f"{name}: damaged, {n_damaged} of {n_packets} packets cannot be decoded")
    if n_damaged:
        warnings.warn(
            f"{name}: {n_damaged} of {n_packets} packets are damaged and were taken for silence",
            stacklevel=2,
        )


def _joined(frames: Iterator[Block]) -> Iterator[Block]:
    """The same samples in longer pieces, each of one rate."""
    waiting: list[npt.NDArray[np.float32]] = []
    n_waiting = last_rate = 0
    for samples, rate in frames:
        if waiting and (rate != last_rate or n_waiting >= _BLOCK):
            yield np.concatenate(waiting), last_rate
            waiting, n_waiting = [], 0
        waiting.append(samples)
        n_waiting += len(samples)
        last_rate = rate
    if waiting:
        yield np.concatenate(waiting), last_rate


def _mono(frame: AudioFrame) -> npt.NDArray[np.float32]:
    """Samples (n,) of a frame in any of FFmpeg's sample formats, channels averaged."""
    samples: npt.NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    mono: npt.NDArray[np.float32] = samples.mean(axis=0, dtype=np.float32)
    if samples.dtype.kind == "f":
        return mono
    full_scale = np.float32(2.0 ** (8 * samples.dtype.itemsize - 1))
    if samples.dtype.kind == "u":  # whose silence is in the middle
        mono -= full_scale
    mono /= full_scale
    return mono
