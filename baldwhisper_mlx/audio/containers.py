"""Compressed audio and the containers of video, by FFmpeg's libraries (PyAV).

Only the file itself is read: FFmpeg gets an open file and no name to open another by, and only
formats and codecs of recordings. PyAV is imported when a file needs it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from baldwhisper_mlx.audio.folders import SUFFIXES
from baldwhisper_mlx.audio.integrity import tag_length
from baldwhisper_mlx.audio.source import no_check

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

_DEMUXERS = (
    "aa,aac,aax,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dhav,dsf,dss,dts,dtshd,dv,eac3,flac,"
    "flv,gxf,ircam,kux,latm,live_flv,loas,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,"
    "nsv,nut,ogg,oma,qcp,qoa,rm,shn,sox,swf,tak,tta,ty,voc,vqf,w64,wav,webm,wsd,wtv,wv,xwma"
)
"""Formats of recordings. hls, dash, concat, sdp, imf and the like would open what a file names."""
_DECODERS = (
    "aac,aac_latm,ac3,acelp.kelvin,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,adpcm_swf,adpcm_yamaha,"
    "alac,als,amrnb,amrwb,ape,atrac1,atrac3,atrac3al,atrac3plus,atrac3plusal,cook,dca,dsd_lsbf,"
    "dsd_lsbf_planar,dsd_msbf,dsd_msbf_planar,dss_sp,eac3,evrc,flac,g722,g723_1,g726,g726le,g729,"
    "gsm,gsm_ms,ilbc,imc,libopencore_amrnb,libopencore_amrwb,libopus,libvorbis,libspeex,mlp,mp1,"
    "mp1float,mp2,mp2float,mp3,mp3adu,mp3adufloat,mp3float,mp3on4,mp3on4float,mpc7,mpc8,nellymoser,"
    "opus,pcm_alaw,pcm_bluray,pcm_dvd,pcm_f16le,pcm_f24le,pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,"
    "pcm_mulaw,pcm_s16be,pcm_s16be_planar,pcm_s16le,pcm_s16le_planar,pcm_s24be,pcm_s24le,"
    "pcm_s24le_planar,pcm_s32be,pcm_s32le,pcm_s32le_planar,pcm_s64be,pcm_s64le,pcm_s8,"
    "pcm_s8_planar,pcm_u16be,pcm_u16le,pcm_u24be,pcm_u24le,pcm_u32be,pcm_u32le,pcm_u8,qcelp,qdm2,"
    "qdmc,qoa,ralf,real_144,real_288,s302m,sbc,shorten,sipr,speex,tak,truehd,truespeech,tta,"
    "twinvq,vorbis,wavpack,wmalossless,wmapro,wmav1,wmav2,wmavoice,xma1,xma2"
)
"""Decoders of recordings; those of games are seldom tested."""
_PICTURE_DECODERS = (
    "av1,libdav1d,dvvideo,flv,h261,h263,h263i,h264,hevc,libvpx-vp9,mjpeg,mpeg1video,mpeg2video,"
    "mpeg4,mpegvideo,msmpeg4v1,msmpeg4v2,msmpeg4,png,prores,qtrle,rawvideo,svq1,svq3,theora,vc1,"
    "vp6,vp6f,vp8,vp9,wmv1,wmv2,wmv3"
)
"""FFmpeg looks at the first pictures of a video, without which it does not know when it starts."""
_BUFFER = 2**18
"""Bytes read at a time."""
_RAW = {"aac", "ac3", "dts", "dtshd", "eac3", "flac", "loas", "mp3", "shn", "tta", "wv"}
"""Formats that are nothing but frames of audio."""
_MOST_BETWEEN_FRAMES = 2**25
"""Bytes without a frame in such a format, after which the rest is taken for no recording."""
_MOST_BEYOND = 2**28
_LARGEST_HOLE = 2**26
"""Bytes of a hole in a sparse file above which the file ends there."""
_MOST_HOLES = 1000
_SEARCHED = 2**22
"""Bytes in which a packet is looked for after a damaged stretch."""
_MOST_READ = 4
"""Times that a file is read at most, and bytes besides, before it is taken for one that leads
FFmpeg in circles."""


class GuardedFile:
    """An open file for FFmpeg that ends where nothing comes any more.

    Args:
        file: at its start; its own position is not used.
        check: called before every block; what it raises ends the decoding.
        suffix: of the file's name. FFmpeg finds some formats by it, but only those of recordings
            are handed on.
    """

    def __init__(
        self, file: io.FileIO, check: Callable[[], None] = no_check, suffix: str = ""
    ) -> None:
        self.name = f"audio{suffix}" if suffix.lower() in SUFFIXES else "audio"
        """For FFmpeg."""
        self._file = file
        self._check = check
        self._position = 0
        self._since_packet = 0
        self._most_between = 0
        self._end = end_of_data(file)
        self._remaining = _MOST_READ * self._end + _MOST_BEYOND

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end, or where no packets come any more."""
        self._check()
        size = min(size, self._end - self._position)
        if size <= 0 or self._remaining < 0 or 0 < self._most_between < self._since_packet:
            return b""
        data = os.pread(self._file.fileno(), size, self._position)
        self._position += len(data)
        self._since_packet += len(data)
        self._remaining -= len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a position, also behind the end, and returns it; -1 if it is below 0."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        if not 0 <= base + offset < 2**63:  # FFmpeg computes it from sizes in the file
            return -1
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def distance(self, data: bytes, position: int) -> int:
        """Bytes from a position to the next place that has this content; 0 if there is none."""
        if not 0 <= position < self._end:
            return 0
        return max(0, os.pread(self._file.fileno(), _SEARCHED, position).find(data))

    def end_of_tag(self, position: int) -> int:
        """Where the ID3 or APE tag ends that begins at a position; 0 if none does."""
        if not 0 <= position < self._end:
            return 0
        length = tag_length(os.pread(self._file.fileno(), 16, position))
        return position + length if length else 0

    def has_packet(self, format_name: str) -> None:
        """Notes that the last bytes read, in a format, were of use."""
        self._since_packet = 0
        self._most_between = _MOST_BETWEEN_FRAMES if format_name in _RAW else 0


def end_of_data(file: io.FileIO) -> int:
    """The size of a file, or the start of its first large hole.

    A sparse file of a few bytes can have a hole of terabytes, which FFmpeg would read to its end.

    Args:
        file: at any position; it is left somewhere else.
    """
    size = file.seek(0, os.SEEK_END)
    position = 0
    try:
        for _ in range(_MOST_HOLES):
            hole = file.seek(position, os.SEEK_HOLE)
            if hole >= size:
                break
            try:
                position = file.seek(hole, os.SEEK_DATA)
            except OSError:  # no data after it
                position = size
            if position - hole > _LARGEST_HOLE:
                size = hole
                break
    except (OSError, AttributeError):  # a file system, or a system, without holes
        pass
    file.seek(0)
    return size


@contextlib.contextmanager
def opened(
    file: GuardedFile, name: str, n_missing: int = 0, *, is_endless_wav: bool = False
) -> Iterator[InputContainer]:
    """Opens a container.

    Args:
        file: to read.
        name: for it in messages.
        n_missing: bytes that are known to be missing at its end.
        is_endless_wav: whether the sizes in a WAV header are ignored.

    Raises:
        ValueError: not a known container.
    """
    import av

    options = {
        "format_whitelist": _DEMUXERS,
        "codec_whitelist": f"{_DECODERS},{_PICTURE_DECODERS}",
        "protocol_whitelist": "none",
    }
    if is_endless_wav:
        options["ignore_length"] = "1"
    try:
        container = av.open(
            file,
            mode="r",
            container_options=options,
            metadata_errors="replace",
            buffer_size=_BUFFER,
            io_open=_refuse,
        )
    except (av.FFmpegError, _OtherFile) as error:
        reason = reason_of(error)
        if getattr(error, "errno", None) == errno.EINVAL:  # FFmpeg's answer to other formats
            reason = "it is a playlist or something else that is no recording"
        if n_missing:
            reason = f"cut off, {n_missing} bytes are missing; {reason}"
        raise ValueError(
            f"{name}: neither libsndfile nor FFmpeg can decode it ({reason})"
        ) from None
    with container:
        yield container


class _OtherFile(Exception):
    """The file asks for another one, which it does not get."""


def _refuse(url: str, flags: int, options: dict[str, str]) -> Any:
    raise _OtherFile(f"it refers to another file, {url}")


def reason_of(error: Exception) -> str:
    """FFmpeg's own words, without the number and the name that PyAV puts around them."""
    return str(getattr(error, "strerror", None) or error)


def audio_track(
    container: InputContainer, name: str, number: int | None
) -> tuple[AudioStream, str | None]:
    """The audio track to decode.

    Args:
        container: from `opened`.
        name: of the file, for messages.
        number: of the track, from 1; None for the default one, or else the first.

    Returns:
        The track, and, where there are several and none was asked for, a sentence that says so.

    Raises:
        ValueError: there is no audio, no such track, or no decoder for it.
    """
    from av.stream import Disposition

    tracks = container.streams.audio
    if not tracks:
        raise ValueError(f"{name}: there is no audio track in it")
    listed = ", ".join(_described(i, track) for i, track in enumerate(tracks, start=1))
    if number is not None and number > len(tracks):
        raise ValueError(f"{name}: there is no audio track {number} in it; there is: {listed}")
    note = None
    if number is None:
        defaults = (i for i, t in enumerate(tracks, 1) if t.disposition & Disposition.default)
        number = next(defaults, 1)
        if len(tracks) > 1:
            note = (
                f"{len(tracks)} audio tracks: {listed}; number {number} is used, --track (track "
                "in Python) chooses another"
            )
    track = tracks[number - 1]
    if track.codec_context is None or track.codec_context.codec.name not in _DECODERS.split(","):
        raise ValueError(f"{name}: there is no decoder for its audio track {number}")
    # Audio gains nothing from decoder threads, and they could wait for Python's lock.
    track.codec_context.thread_count = 1
    _discard_others(container, track)
    return track, note


def _discard_others(container: InputContainer, track: AudioStream) -> None:
    """Has the container skip what is not decoded, as far as PyAV can do that (from 17 on)."""
    import av.stream

    discard = getattr(av.stream, "Discard", None)
    for stream in container.streams:
        if discard is not None and stream is not track:
            stream.discard = discard.all


def _described(number: int, track: AudioStream) -> str:
    """A track's number, language and title."""
    tags = [track.metadata.get(key, "").strip() for key in ("language", "title")]
    known = [tag for tag in tags if tag and tag != "und"]
    return f"{number} ({', '.join(known)})" if known else str(number)
