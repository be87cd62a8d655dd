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
    Mp3Header,
    WavData,
    container_missing_bytes,
    missing_bytes,
    mp3_header,
    wav_data,
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


def short_by(data: bytes) -> int:
    return container_missing_bytes(io.BytesIO(data))


def test_core_audio() -> None:
    head = caf(1000)
    assert short_by(head + bytes(1000)) == 0
    assert short_by(head + bytes(10)) == 990
    assert short_by(caf(-1)) == 0
    assert short_by(b"none" + head[4:]) == 0


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def test_boxes() -> None:
    whole = box(b"ftyp", b"M4A ") + box(b"mdat", bytes(500)) + box(b"moov", bytes(50))
    assert short_by(whole) == short_by(whole + b"appended") == 0
    assert short_by(whole[:-20]) == 20
    assert short_by(whole[:300]) == 520 - 300  # within mdat; that moov is to come is not known
    wide = box(b"ftyp", b"qt  ") + struct.pack(">I4sQ", 1, b"mdat", 16 + 1000) + bytes(1000)
    assert short_by(wide) == 0
    assert short_by(wide[:-7]) == 7
    assert short_by(box(b"ftyp", b"qt  ") + bytes(4) + b"mdat" + bytes(9)) == 0  # to the end


def test_riff() -> None:
    avi = b"RIFF" + struct.pack("<I", 100) + b"AVI " + bytes(96)
    assert short_by(avi) == short_by(avi * 2) == short_by(avi + b"appended") == 0
    assert short_by(avi[:-1]) == short_by(avi + avi[:-1]) == 1
    assert short_by(b"RIFF" + struct.pack("<I", 2**32 - 1) + b"AVI ") == 0


@pytest.mark.parametrize("width", [1, 2, 8])
def test_ebml(width: int) -> None:
    size = (100 | 1 << 7 * width).to_bytes(width, "big")
    webm = b"\x1a\x45\xdf\xa3\x84webm\x18\x53\x80\x67" + size + bytes(100)
    assert short_by(webm) == 0
    assert short_by(webm[:-30]) == 30
    unknown = ((1 << 7 * width + 1) - 1).to_bytes(width, "big")
    assert short_by(webm.replace(size, unknown)) == 0


def test_asf() -> None:
    header = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c") + bytes(14)
    properties = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365") + bytes(24)
    asf = header + properties + struct.pack("<Q", 500) + bytes(40)
    asf = asf.ljust(500, b"\0")
    assert short_by(asf) == 0
    assert short_by(asf[:400]) == 100
    live = bytearray(asf[:400])
    live[30 + 88] = 1
    assert short_by(bytes(live)) == 0


def page(content: int, segments: int = 2) -> bytes:
    sizes = bytes([content // segments] * segments)
    return (
        b"OggS\0\0" + bytes(20) + bytes([segments]) + sizes + bytes(content // segments * segments)
    )


def test_ogg() -> None:
    whole = page(100) + page(60)
    assert short_by(whole) == 0
    assert short_by(whole[:-20]) == 20
    assert short_by(page(100)) == 0
    assert short_by(whole[:140]) == 0  # within the page's own header: nobody can say


def wav(size: int, there: int, after: bytes = b"") -> WavData | None:
    head = b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + struct.pack("<I", 16) + bytes(16)
    return wav_data(io.BytesIO(head + b"data" + struct.pack("<I", size) + b"\x80" * there + after))


def test_wav() -> None:
    def facts(found: WavData | None) -> tuple[int, int, bool, bool]:
        assert found is not None
        return found.declared, found.available, found.is_unknown, found.is_too_short

    chunk = b"LIST" + struct.pack("<I", 400) + bytes(400)
    assert facts(wav(1000, 1000)) == (1000, 1000, False, False)
    assert facts(wav(1000, 1000, chunk)) == (1000, 1408, False, False)
    assert facts(wav(1000, 1000, b"TAG" + bytes(300))) == (1000, 1303, False, False)
    assert facts(wav(1000, 1000, bytes(5000))) == (1000, 6000, False, False)  # reserved, not used
    assert facts(wav(2000, 1000)) == (2000, 1000, False, False)
    assert facts(wav(0, 1000)) == (0, 1000, True, False)
    assert facts(wav(0, 0)) == (0, 0, False, False)
    assert facts(wav(0, 0, chunk)) == (0, 408, False, False)
    assert facts(wav(2**32 - 1, 1000)) == (2**32 - 1, 1000, True, False)
    assert facts(wav(1000, 3000)) == (1000, 3000, False, True)
    assert wav_data(io.BytesIO(b"RIFF")) is None
    assert wav_data(io.BytesIO(b"RIFF1234AVI LIST")) is None


def mp3(seconds: float) -> bytes:
    file = io.BytesIO()
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * 16_000))
    soundfile.write(file, samples, 16_000, format="MP3")
    return file.getvalue()


def id3(size: int) -> bytes:
    parts = [(size >> shift) & 0x7F for shift in (21, 14, 7, 0)]
    return b"ID3\3\0\0" + bytes(parts) + bytes(size)


def test_mp3_header() -> None:
    data = mp3(20)

    def header(data: bytes) -> Mp3Header:
        found = mp3_header(io.BytesIO(data))
        assert found is not None
        return found

    assert header(data).seconds == pytest.approx(20, abs=0.15)
    for whole in (data, id3(300_000) + data + b"TAG" + bytes(125), data + data):
        assert header(whole).missing == 0
    assert header(data[: len(data) // 2]).missing == len(data) - len(data) // 2
    assert header(id3(300_000) + data[:5000]).missing == len(data) - 5000
    silent = data.replace(b"Xing", b"\0\0\0\0").replace(b"Info", b"\0\0\0\0")
    assert mp3_header(io.BytesIO(silent)) is None


MAGIC = [
    *(b"OggS\0", b"RIFF\0\0\0\0WAVEdata"),
    *(b"", b"caff\0\1\0\0", b"ID3\3\0\0", b"\xff\xfb", b"\0\0\0\x08ftyp", b"RIFF"),
    b"\x1a\x45\xdf\xa3",
    bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6ca1dcab8c47a9cf118ee400c00c205365"),
]


@given(st.binary(max_size=200), st.sampled_from(MAGIC))
def test_any_bytes_are_answered(data: bytes, magic: bytes) -> None:
    assert short_by(magic + data) >= 0
    header, wav = mp3_header(io.BytesIO(magic + data)), wav_data(io.BytesIO(magic + data))
    assert header is None or (header.missing >= 0 and header.seconds >= 0)
    assert wav is None or wav.available <= len(magic + data)
