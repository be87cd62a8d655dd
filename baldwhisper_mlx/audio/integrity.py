"""Is all the audio there? What a file says about its length against what it holds.

Decoders stop at the first end they meet and call it success: a download cut in half, or two
recordings joined into one file, would silently become half a transcript. Functions over
open files and over libsndfile's log. No more than headers is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_UNKNOWN = 0x7FFFF000
"""Sizes from here on are what writers declare that stream into a pipe and cannot know."""

# The line of libsndfile's log that holds the size of the audio, by container.
_SIZE_LINE = {
    "WAV": "data",
    "WAVEX": "data",
    "AIFF": "SSND",
    "AU": "Data Size",
    "CAF": "data",
    "W64": "riff",
    "RF64": "Riff size",
}
_HEAD = 2**20
"""Bytes at the start within which headers are looked for."""
_FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp"}
_BOXES = _FIRST_BOXES | {b"moof", b"mfra", b"sidx", b"ssix", b"uuid", b"meta", b"pnot", b"udta"}
"""Types that follow each other at the top of MP4 and QuickTime files."""
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_MOST_CHUNKS = 10_000
"""Chunks or boxes of a file that are looked at."""
_CHUNKS = (b"LIST", b"fact", b"id3 ", b"ID3 ", b"bext", b"iXML", b"cue ", b"smpl", b"JUNK", b"PAD ")
"""Chunks that often follow the audio of a WAV file."""
TAGS = (b"TAG", b"ID3", b"APETAGEX")
"""Beginnings of ID3 and APE tags."""
_REST = 2**16
_SHORT_REST = 256
"""Bytes after the declared end of a WAV file's audio that are looked at, and that are not."""


def missing_bytes(log: str, container: str) -> int:
    """Bytes of audio that an uncompressed file declares and lacks.

    Args:
        log: `soundfile.SoundFile.extra_info`, libsndfile's account of the header.
        container: `soundfile.SoundFile.format`.
    """
    line = _SIZE_LINE.get(container)
    match = re.search(rf"^\s*{line} *: (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if line is None or match is None:
        return 0
    declared, actual = int(match[1]), int(match[2])
    return declared - actual if actual < declared < _UNKNOWN else 0


def container_missing_bytes(file: BinaryIO) -> int:
    """Bytes that the file itself says it has, and has not, where libsndfile leaves it to FFmpeg.

    FFmpeg reads on to the end that there is. What has a size in its header: Core Audio, MP4 and
    the like, Matroska and WebM, AVI and other RIFF, ASF (wma). The others give 0.

    Args:
        file: at any position; it is left somewhere else.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(_HEAD)
    if head[:4] == b"caff":
        end = _end_of_caf(head)
    elif head[4:8] in _FIRST_BOXES:
        end = _end_of_boxes(file, size)
    elif head[:4] == b"RIFF":
        end = _end_of_riff(file, size)
    elif head[:4] == b"\x1a\x45\xdf\xa3":
        end = _end_of_ebml(head)
    elif head[:16] == _ASF_HEADER:
        end = _end_of_asf(head)
    elif head[:4] == b"OggS":
        end = _end_of_ogg(file, size)
    else:
        end = 0
    return max(0, end - size)


def _end_of_caf(head: bytes) -> int:
    """Apple's Core Audio Format Specification 1.0: chunks of type, size and content."""
    position = 8
    while position + 12 <= len(head):
        kind = head[position : position + 4]
        length = int.from_bytes(head[position + 4 : position + 12], "big", signed=True)
        position += 12
        if kind == b"data" or length < 0:  # below 0: unknown, and the last chunk
            return max(0, position + length) if length >= 0 else 0
        position += length
    return 0


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    """ISO 14496-12, MP4 and QuickTime: boxes of size, type and content, one after another."""
    position = 0
    for _ in range(_MOST_CHUNKS):
        if position >= size:
            break
        file.seek(position)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        # 0 means up to the end of the file; other types are what somebody has appended
        if length < 8 or header[4:8] not in _BOXES:
            break
        position += length
    return position


def _end_of_riff(file: BinaryIO, size: int) -> int:
    """RIFF chunks; an AVI of more than 1 GB has several. The last may lack its padding byte."""
    position = 0
    for _ in range(_MOST_CHUNKS):
        if position >= size:
            break
        file.seek(position)
        header = file.read(8)
        length = int.from_bytes(header[4:8], "little")
        if header[:4] != b"RIFF" or length >= _UNKNOWN:
            break
        position += 8 + length
    return position


def _end_of_ebml(head: bytes) -> int:
    """RFC 8794: a header and a segment, whose sizes state their own length in leading zeros."""
    position = 4
    for last in (False, True):
        if position >= len(head) or head[position] == 0:
            return 0
        width = 9 - head[position].bit_length()
        bits = 7 * width
        length = int.from_bytes(head[position : position + width], "big") & ((1 << bits) - 1)
        position += width
        if length == (1 << bits) - 1:  # all ones: unknown, as in a live recording
            return 0
        position += length
        if not last:
            if head[position : position + 4] != b"\x18\x53\x80\x67":
                return 0
            position += 4
    return position


def _end_of_asf(head: bytes) -> int:
    """Advanced Systems Format 3.2: the file size in the File Properties Object."""
    start = head.find(_ASF_PROPERTIES)
    if start < 0 or len(head) < start + 92 or head[start + 88] & 1:  # 1: broadcast, size unknown
        return 0
    return int.from_bytes(head[start + 40 : start + 48], "little")


def _end_of_ogg(file: BinaryIO, size: int) -> int:
    """RFC 3533: the end of the last page, which has at most 64 kB."""
    start = max(0, size - 2**16)
    file.seek(start)
    tail = file.read(2**16)
    page = tail.rfind(b"OggS\0")
    if page < 0 or page + 27 > len(tail):
        return 0
    n_segments = tail[page + 26]
    segments = tail[page + 27 : page + 27 + n_segments]
    return start + page + 27 + n_segments + sum(segments)


@dataclass(frozen=True)
class Mp3Header:
    """What the Xing or Info tag says, which encoders put into the first frame of an MP3."""

    seconds: float
    """Of audio; 0 if it is not said."""
    missing: int
    """Bytes that are said to be there and are not; no less than 1 % of all, because some encoders
    count tags as well."""


def mp3_header(file: BinaryIO) -> Mp3Header | None:
    """What an MP3 says about its length; None if it says nothing.

    The frame header is that of ISO 11172-3; the tag is described at
    http://gabriel.mp3-tech.org/mp3infotag.html.

    Args:
        file: at any position; it is left somewhere else.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = tag_length(file.read(16))
    file.seek(start)
    data = file.read(8192)
    sync = data.find(b"\xff")
    tag = re.compile(rb"(?:Xing|Info)\0\0\0([\x00-\x0f])(.{8})", re.DOTALL)
    match = tag.search(data, sync, sync + 64) if sync >= 0 else None
    if match is None:
        return None
    flags, fields = match[1][0], [match[2][:4], match[2][4:]]
    n_frames = int.from_bytes(fields.pop(0), "big") if flags & 1 else 0
    n_bytes = int.from_bytes(fields.pop(0), "big") if flags & 2 else 0
    missing = start + sync + n_bytes - size
    return Mp3Header(
        n_frames * _mp3_frame_seconds(data[sync : sync + 4]),
        missing if missing > n_bytes // 100 else 0,
    )


def tag_length(head: bytes) -> int:
    """Bytes of the ID3 or APE tag that begins with these 16 bytes; 0 if none does."""
    if head[:3] == b"ID3" and len(head) >= 10:  # four times seven bits
        sizes = zip(head[6:10], (21, 14, 7, 0), strict=True)
        return 10 + sum((byte & 0x7F) << shift for byte, shift in sizes)
    if head[:8] == b"APETAGEX" and len(head) >= 16:
        return 32 + int.from_bytes(head[12:16], "little")
    return 128 if head[:3] == b"TAG" else 0


def _mp3_frame_seconds(header: bytes) -> float:
    """The length of a frame; 0 for what is no header of layer III."""
    if len(header) < 4 or header[1] & 0xE6 != 0xE2 or header[2] >> 2 & 3 == 3:
        return 0.0
    version = header[1] >> 3 & 3  # 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
    rate = (44_100, 48_000, 32_000)[header[2] >> 2 & 3] >> {3: 0, 2: 1, 0: 2, 1: 0}[version]
    return (1152 if version == 3 else 576) / rate


@dataclass(frozen=True)
class WavData:
    """The audio of a WAV file: what its header says, and what is there."""

    declared: int
    """Bytes, by the header."""
    available: int
    """Bytes from the start of the audio to the end of the file."""
    is_unknown: bool
    """Whether the header was written before the length was known."""
    is_too_short: bool
    """Whether there seems to be audio after the declared end."""


def wav_data(file: BinaryIO) -> WavData | None:
    """Looks for the chunk `data` of a WAV file; None if it is none, or has none.

    Args:
        file: at any position; it is left somewhere else.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    for position, kind, length in _riff_chunks(file, 12, size):
        if kind == b"data":
            available = size - position
            is_rest = _are_chunks(file, position + length, size)
            return WavData(
                declared=length,
                available=available,
                is_unknown=length >= _UNKNOWN or (length == 0 and not is_rest),
                is_too_short=0 < length < available and not is_rest,
            )
    return None


def _riff_chunks(file: BinaryIO, position: int, size: int) -> Iterator[tuple[int, bytes, int]]:
    """Start, type and length of the content of each chunk, as far as they are sound."""
    for _ in range(_MOST_CHUNKS):
        file.seek(position)
        header = file.read(8)
        if len(header) < 8 or not all(32 <= byte < 127 for byte in header[:4]):
            return
        length = int.from_bytes(header[4:8], "little")
        yield position + 8, header[:4], length
        position += 8 + length + length % 2
        if position >= size:
            return


def _are_chunks(file: BinaryIO, position: int, size: int) -> bool:
    """Whether nothing but chunks, tags or zeros follow, which audio hardly ever looks like."""
    file.seek(position)
    rest = file.read(_REST)
    if len(rest) < _SHORT_REST or not any(rest) or rest.startswith(TAGS):
        return True
    chunks = list(_riff_chunks(file, position + position % 2, size))
    if not chunks:
        return False
    start, _, length = chunks[-1]
    return chunks[0][1] in _CHUNKS or abs(start + length - size) <= 1
