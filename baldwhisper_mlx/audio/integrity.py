"""Is all the audio there? What a file says about its length against what it holds.

Decoders stop at the first end they meet and call it success: a download cut in half, or two
recordings joined into one file, would silently become half a transcript. Functions over
bytes and over libsndfile's log.
"""

from __future__ import annotations

import os
import re
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
_TAGS = 64 * 1024
"""More bytes after the end of an MP3 stream than tags (ID3v1, APE) usually take."""


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
    while position < size:
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
    while position < size:
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


def is_chained_ogg(data: bytes) -> bool:
    """Whether another Ogg stream begins where one has ended, as in recordings of web radio.

    libsndfile decodes the first one only. RFC 3533: bit 2 of a page's header type marks the
    beginning of a stream, and all streams that play together begin before any continues.
    """
    flags = [match[1][0] for match in re.finditer(rb"OggS\x00([\x00-\x07])", data)]
    continued = next((i for i, flag in enumerate(flags) if not flag & 2), len(flags))
    return any(flag & 2 for flag in flags[continued:])


def mp3_surplus(data: bytes) -> int:
    """Bytes by which an MP3 is longer (or, below 0, shorter) than its own header says.

    0 where the header (the Xing or Info tag that encoders put into the first frame) says
    nothing, or where the difference is no more than tags at the end or 1 % at the start,
    which some encoders count as well.
    """
    start = 0
    if data[:3] == b"ID3" and len(data) > 10:  # four times seven bits
        sizes = zip(data[6:10], (21, 14, 7, 0), strict=True)
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in sizes)
    sync = data.find(b"\xff", start, start + 4096)
    tag = re.compile(rb"(?:Xing|Info)\0\0\0[\x03\x07\x0b\x0f].{4}(.{4})", re.DOTALL)
    match = tag.search(data, max(sync, 0), sync + 64)
    if sync < 0 or match is None:
        return 0
    declared = int.from_bytes(match[1], "big")
    surplus = len(data) - sync - declared
    return surplus if surplus > _TAGS or -surplus > declared // 100 else 0
