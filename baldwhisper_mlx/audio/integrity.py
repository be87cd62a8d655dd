"""Is all the audio there? What a file says about its length against what it holds.

Decoders stop at the first end they meet and call it success: a download cut in half, or two
recordings joined into one file, would silently become half a transcript. Pure functions over
bytes and over libsndfile's log.
"""

from __future__ import annotations

import re

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
_TAGS = 64 * 1024
"""More bytes after the end of an MP3 stream than tags (ID3v1, APE) usually take."""


def missing_bytes(log: str, container: str) -> int:
    """Bytes of audio that an uncompressed file declares and lacks.

    Args:
        log: `soundfile.SoundFile.extra_info`, libsndfile's account of the header.
        container: `soundfile.SoundFile.format`.
    """
    line = _SIZE_LINE.get(container)
    found = re.search(rf"^\s*{line} *: (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if line is None or found is None:
        return 0
    declared, actual = int(found[1]), int(found[2])
    return declared - actual if actual < declared < _UNKNOWN else 0


def caf_missing_bytes(head: bytes, size: int) -> int:
    """The same for a Core Audio file cut so short that libsndfile leaves it to ffmpeg.

    The layout: Apple's Core Audio Format Specification 1.0, chunks of type, size and content.

    Args:
        head: the file up to the start of the audio at least; anything but CAF gives 0.
        size: of the whole file, bytes.
    """
    position = 8
    while head[:4] == b"caff" and position + 12 <= len(head):
        kind = head[position : position + 4]
        length = int.from_bytes(head[position + 4 : position + 12], "big", signed=True)
        position += 12
        if kind == b"data" or length < 0:  # below 0: unknown, and the last chunk
            return max(0, position + length - size) if length >= 0 else 0
        position += length
    return 0


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
    found = tag.search(data, max(sync, 0), sync + 64)
    if sync < 0 or found is None:
        return 0
    declared = int.from_bytes(found[1], "big")
    surplus = len(data) - sync - declared
    return surplus if surplus > _TAGS or -surplus > declared // 100 else 0
