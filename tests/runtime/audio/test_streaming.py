"""Long audio is decoded block by block, and gives the samples of decoding it at once."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from baldwhisper_mlx.audio import buffer, load, recording, source
from baldwhisper_mlx.audio.load import load_audio, load_pcm
from tests.support import tiny_media

BLOCK = 1000


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_BLOCK", BLOCK)
    monkeypatch.setattr(source, "_BLOCK", BLOCK)
    monkeypatch.setattr(recording, "_JOINED", BLOCK)
    monkeypatch.setattr(buffer, "_BLOCK", BLOCK)


def sound(n: int, channels: int) -> np.ndarray:
    return np.random.default_rng(n).uniform(-0.5, 0.5, (n, channels)).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
@pytest.mark.parametrize("n", [50, BLOCK - 1, BLOCK, BLOCK + 1, 12_345])
@pytest.mark.parametrize("in_memory", [10, 10**9])
def test_blocks_are_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int, n: int, in_memory: int
) -> None:
    monkeypatch.setattr(buffer, "_MOST_IN_MEMORY", in_memory)
    frames = sound(n, 2)
    soundfile.write(tmp_path / "a.wav", frames, rate, subtype="FLOAT")
    expected = frames.mean(axis=1, dtype=np.float32)
    if rate != 16_000:
        expected = soxr.resample(expected, rate, 16_000)
    for audio in (tmp_path / "a.wav", io.BytesIO((tmp_path / "a.wav").read_bytes())):
        found = load_audio(audio)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert isinstance(found, np.memmap) == (len(found) > in_memory)


class Pipe(io.BytesIO):
    """Notes the most that is read at once."""

    most = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.most = max(self.most, len(data))
        return data


class Socket(io.BytesIO):
    """Gives a little at a time, which may end within a number."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(333)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
@pytest.mark.parametrize("in_memory", [10, 10**9])
def test_pipes_are_not_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int, in_memory: int
) -> None:
    monkeypatch.setattr(buffer, "_MOST_IN_MEMORY", in_memory)
    soundfile.write(tmp_path / "a.wav", sound(12_345, 1), rate, subtype="PCM_16")
    numbers, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    expected = load_audio(tmp_path / "a.wav")
    wav, pcm = Pipe((tmp_path / "a.wav").read_bytes()), Pipe(numbers.astype("<i2").tobytes())
    for found in (load_audio(wav), load_pcm(pcm, rate)):
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert isinstance(found, np.memmap) == (len(found) > in_memory)
    assert (wav.most, pcm.most) == (BLOCK, 2 * BLOCK)
    np.testing.assert_allclose(load_pcm(Socket(pcm.getvalue()), rate), expected, atol=1e-6)
    with pytest.raises(ValueError, match="24689 bytes are no whole number"):
        load_pcm(io.BytesIO(pcm.getvalue()[:-1]), rate)


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".mp3"])
def test_compressed_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, sound(20_000, 1), 16_000)
    whole, _ = soundfile.read(path, dtype="float32")
    found = load_audio(path)
    assert abs(len(found) - len(whole)) < 1200  # of a frame that an MP3 has at its end
    n = min(len(found), len(whole))
    # FFmpeg's decoders are not libsndfile's, and an MP3's last frame lacks the next one's half.
    np.testing.assert_allclose(found[: n - 1200], whole[: n - 1200], atol=1e-3)


def test_what_pyav_decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_media.write_tracks(
        tmp_path / "a.m4a",
        [sound(30_000, 1).T],
        container="ipod",
        codec="aac",
        rate=16_000,
    )
    in_memory = load_audio(tmp_path / "a.m4a")
    assert not isinstance(in_memory, np.memmap)
    assert len(in_memory) >= 30_000
    monkeypatch.setattr(buffer, "_MOST_IN_MEMORY", 10)
    in_a_file = load_audio(tmp_path / "a.m4a")
    assert isinstance(in_a_file, np.memmap)
    np.testing.assert_array_equal(in_a_file, in_memory)


def test_a_number_that_is_none_is_found_in_any_block(tmp_path: Path) -> None:
    frames = sound(5 * BLOCK, 1)
    frames[4 * BLOCK + 3] = np.nan
    soundfile.write(tmp_path / "a.wav", frames, 16_000, subtype="FLOAT")
    with pytest.raises(ValueError, match="NaN"):
        load_audio(tmp_path / "a.wav")
