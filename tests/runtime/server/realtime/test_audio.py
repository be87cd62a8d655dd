"""PCM and G.711 in a stream, against libsndfile and against the resampling of the whole."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import soxr

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.server.realtime.audio import A_LAW, MU_LAW, PCM, AudioFormat, AudioStream
from tests.runtime.conftest import tone


def pcm(samples: Samples) -> bytes:
    return (32767 * samples).astype("<i2").tobytes()


def in_blocks(stream: AudioStream, data: bytes, size: int) -> Samples:
    blocks = [stream.decode(data[i : i + size]) for i in range(0, len(data), size)]
    return np.concatenate([*blocks, stream.finish()])


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("size", [1, 333, 4096, 10**6])
def test_a_stream_is_resampled_as_the_whole(rate: int, size: int) -> None:
    data = pcm(tone(0.5, rate))
    whole = soxr.resample(np.frombuffer(data, "<i2") / np.float32(32768), rate, SAMPLE_RATE)
    found = in_blocks(AudioStream(AudioFormat(PCM, rate)), data, size)
    assert len(found) == len(whole)
    assert np.abs(found - whole).max() < 1e-4


def test_nothing_is_changed_at_16_khz() -> None:
    data = pcm(tone(0.1))
    found = in_blocks(AudioStream(AudioFormat(PCM, SAMPLE_RATE)), data, 7)
    assert (found * 32768).astype("<i2").tobytes() == data


def test_what_follows_the_end_begins_anew() -> None:
    stream, data = AudioStream(AudioFormat()), pcm(tone(0.2, 24_000))
    first = in_blocks(stream, data + b"\x01", 1000)
    assert np.array_equal(in_blocks(stream, data, 1000), first)


@pytest.mark.parametrize(("kind", "subtype"), [(MU_LAW, "ULAW"), (A_LAW, "ALAW")])
def test_every_byte_of_g711(kind: str, subtype: str) -> None:
    data = bytes(range(256)) * 2
    expected, _ = soundfile.read(
        io.BytesIO(data), format="RAW", subtype=subtype, samplerate=SAMPLE_RATE, channels=1,
        dtype="int16",
    )  # fmt: skip
    found = AudioStream(AudioFormat(kind, SAMPLE_RATE)).decode(data)
    assert (32768 * found).tolist() == expected.tolist()
