"""What a file says about its length: the parts that need no audio to be made.

test_bad_input.py feeds real files through load_audio.
"""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from baldwhisper_mlx.audio.integrity import (
    caf_missing_bytes,
    is_chained_ogg,
    missing_bytes,
    mp3_surplus,
)


@pytest.mark.parametrize(
    ("container", "log", "expected"),
    [
        ("WAV", "RIFF : 96036 (should be 48014)\ndata : 96000 (should be 47978)", 48022),
        ("WAV", "RIFF : 99 (should be 48)\ndata : 96000", 0),  # the audio is there, a tag is not
        ("WAV", "data : 10 (should be 20)", 0),
        ("WAV", "data : 4294967295 (should be 20)", 0),
        ("AIFF", " SSND : 96008 (should be 47981)", 48027),
        ("AU", "  Data Size   : 96000 (should be 47988)", 48012),
        ("FLAC", "data : 96000 (should be 47978)", 0),
        ("WAV", "", 0),
    ],
)
def test_missing_bytes(container: str, log: str, expected: int) -> None:
    assert missing_bytes(log, container) == expected


def caf(audio: int) -> bytes:
    chunk = b"desc" + struct.pack(">q", 32) + bytes(32)
    return b"caff\0\1\0\0" + chunk + b"data" + struct.pack(">q", audio)


def test_caf_missing_bytes() -> None:
    head = caf(1000)
    assert caf_missing_bytes(head, len(head) + 1000) == 0
    assert caf_missing_bytes(head, len(head) + 10) == 990
    assert caf_missing_bytes(caf(-1), len(head)) == 0
    assert caf_missing_bytes(b"RIFF" + head[4:], len(head)) == 0


def page(flags: int) -> bytes:
    return b"OggS\0" + bytes([flags]) + bytes(21) + b"audio"


def test_ogg_streams_side_by_side_are_not_a_chain() -> None:
    begin, middle, end = page(2), page(0), page(4)
    assert not is_chained_ogg(begin + middle + end)
    assert not is_chained_ogg(begin + begin + middle + middle + end + end)
    assert is_chained_ogg((begin + middle + end) * 2)
    assert is_chained_ogg(begin + begin + middle + end + end + begin + end)
    assert not is_chained_ogg(b"")


def mp3(seconds: float) -> bytes:
    file = io.BytesIO()
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * 16_000))
    soundfile.write(file, samples, 16_000, format="MP3")
    return file.getvalue()


def id3(size: int) -> bytes:
    parts = [(size >> shift) & 0x7F for shift in (21, 14, 7, 0)]
    return b"ID3\3\0\0" + bytes(parts) + bytes(size)


def test_mp3_surplus() -> None:
    data = mp3(20)
    assert mp3_surplus(data) == 0
    assert mp3_surplus(id3(300_000) + data + b"TAG" + bytes(125)) == 0
    assert mp3_surplus(data + data) == len(data)
    assert mp3_surplus(data[: len(data) // 2]) == len(data) // 2 - len(data)
    assert mp3_surplus(id3(300_000) + data[:5000]) == 5000 - len(data)
    silent = data.replace(b"Xing", b"\0\0\0\0").replace(b"Info", b"\0\0\0\0")
    assert mp3_surplus(silent + silent) == 0


@given(st.binary(max_size=200), st.sampled_from([b"", b"caff\0\1\0\0", b"ID3\3\0\0", b"\xff\xfb"]))
def test_any_bytes_are_answered(data: bytes, magic: bytes) -> None:
    assert caf_missing_bytes(magic + data, len(magic + data)) >= 0
    assert isinstance(mp3_surplus(magic + data), int)
    assert is_chained_ogg(magic + data) in (False, True)
