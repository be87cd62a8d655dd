"""Fragments of an MP4 that claim more packets than the file has bytes.

FFmpeg makes an index of all packets that a fragment claims, up to 4 GB, whatever the file's size.
"""

from __future__ import annotations

import re
from typing import BinaryIO

_BLOCK = 2**22
_OVERLAP = 32
_LARGEST = 2**28
"""Bytes of a file up to which it is looked at; a larger one has claimed no more than it takes."""
_SMALL = 2**25
# ISO 14496-12, 8.8.8: size, type, version, flags, number of samples. FFmpeg takes any version and
# flags, but in a large file the type alone is found by chance.
_ANY_RUN = re.compile(rb"[\x00-\x01].{3}trun.{4}(.{4})", re.DOTALL)
_RUN = re.compile(
    rb"[\x00-\x01].{3}trun[\x00\x01]\x00[\x00-\x0f][\x00\x01\x04\x05](.{4})", re.DOTALL
)


def claimed_packets(file: BinaryIO, size: int) -> int:
    """The most packets that a fragment of an MP4 claims; 0 for other files.

    Args:
        file: at any position; it is left somewhere else.
        size: of the file, in bytes.
    """
    file.seek(0)
    if size > _LARGEST or file.read(8)[4:] not in (b"ftyp", b"styp", b"moov", b"moof", b"sidx"):
        return 0
    most, run = 0, _ANY_RUN if size <= _SMALL else _RUN
    for start in range(0, size, _BLOCK):
        file.seek(start)
        block = file.read(min(_BLOCK + _OVERLAP, size - start))
        counts = (int.from_bytes(match[1], "big") for match in run.finditer(block))
        most = max(most, *counts, 0)
    return most
