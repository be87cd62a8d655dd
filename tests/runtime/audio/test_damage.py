"""Damage, late starts, gaps, wrong sizes: what is there is read, at its right time."""

from __future__ import annotations

import io
import struct
import warnings
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from baldwhisper_mlx.audio.containers import GuardedFile, opened
from baldwhisper_mlx.audio.load import load_audio, load_channels
from baldwhisper_mlx.audio.packets import TrackReader
from baldwhisper_mlx.audio.recording import AudioWarning, MissingAudioWarning
from tests.runtime.conftest import RATE, tone
from tests.support import tiny_media

SECONDS = 15.0


def beeps(rate: int) -> Any:
    """A beep at every full second over quiet noise, so that times can be read from it."""
    time = np.arange(round(SECONDS * rate)) / rate
    noise = np.random.default_rng(0).normal(0, 0.01, len(time))
    return 0.5 * np.sin(2 * np.pi * 1000 * time) * (time % 1 < 0.2) + noise


def onsets(samples: Any) -> list[float]:
    """Times at which a beep begins."""
    power = np.add.reduceat(np.square(samples), np.arange(0, len(samples), RATE // 100))
    loud = power > 0.03 * RATE // 100
    return [i / 100 for i in range(1, len(loud)) if loud[i] and not loud[max(0, i - 20) : i].any()]


def write(path: Path) -> Path:
    kinds = {
        ".mp3": ("mp3", "libmp3lame", 16_000),
        ".aac": ("adts", "aac", 16_000),
        ".m4a": ("ipod", "aac", 16_000),
        ".ogg": ("ogg", "libopus", 48_000),
        ".webm": ("webm", "libopus", 48_000),
        ".mka": ("matroska", "aac", 16_000),
        ".flac": ("flac", "flac", 16_000),
    }
    container, codec, rate = kinds[path.suffix]
    options = {"movflags": "+faststart"} if container == "ipod" else {}
    return tiny_media.write_tracks(
        path, [beeps(rate)], container=container, codec=codec, rate=rate, options=options
    )


@pytest.mark.parametrize("kind", ["mp3", "aac", "m4a", "ogg", "webm", "mka", "flac"])
def test_damage_in_the_middle(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"a.{kind}")
    whole, data = load_audio(path), bytearray(path.read_bytes())
    first, last = int(0.35 * len(data)), int(0.5 * len(data))
    data[first:last] = np.random.default_rng(1).bytes(last - first)
    path.write_bytes(data)
    with pytest.warns(MissingAudioWarning, match=r"a\.\w+: \d\.\d s of audio are missing in "):
        samples = load_audio(path)
    assert abs(len(samples) - len(whole)) < 0.3 * RATE
    assert np.abs(samples).max() < 1.1
    late = [time for time in onsets(samples) if time > 10.5]
    # raw frames have no times: what is lost is known from the bytes it took
    tolerance = 0.2 if kind in ("mp3", "aac") else 0.06
    assert late == pytest.approx([11, 12, 13, 14], abs=tolerance)
    with pytest.raises(ValueError, match="missing"):
        load_audio(path, strict=True)


@pytest.mark.parametrize("kind", ["mp3", "ogg", "m4a"])
def test_nothing_that_can_be_decoded(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"a.{kind}")
    data = path.read_bytes()
    start = 2000 if kind != "m4a" else data.index(b"mdat") + 4
    path.write_bytes(data[:start] + bytes(len(data) - start))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=f"{path.name}: ") if kind != "mp3" else nullcontext():
            assert len(load_audio(path)) < RATE


def muxed(path: Path, starts: list[float], *, video: bool) -> Path:
    """A second of a tone at each of some times, perhaps beside a video from 0 on."""
    with av.open(path, "w") as output:
        picture = tiny_media._video_stream(output) if video else None
        stream = output.add_stream("pcm_s16le", rate=RATE, layout="mono")
        if picture is not None:
            output.mux(tiny_media._encoded_picture(picture))
        for start in starts:
            frame = tiny_media.audio_frames(tone(), RATE, first=round(start * RATE))
            frame.time_base = Fraction(1, RATE)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def loud(samples: Any) -> list[tuple[float, float]]:
    """Starts and ends of what is not silent, in seconds."""
    steps = np.flatnonzero(np.diff(np.abs(samples) > 0.01, prepend=False, append=False))
    spans: list[list[int]] = []
    for start, end in zip(steps[::2], steps[1::2], strict=True):
        if spans and start - spans[-1][1] < 100:
            spans[-1][1] = end
        else:
            spans.append([start, end])
    return [(start / RATE, end / RATE) for start, end in spans]


def test_audio_that_starts_after_the_video(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        samples = load_audio(muxed(tmp_path / "a.mkv", [5.0], video=True))
    assert loud(samples) == [pytest.approx((5, 6), abs=0.01)]
    # without a video, players show it from its first sound on
    assert loud(load_audio(muxed(tmp_path / "b.mkv", [5.0], video=False))) == [
        pytest.approx((0, 1), abs=0.01)
    ]


def test_a_gap_between_packets(tmp_path: Path) -> None:
    path = muxed(tmp_path / "a.mkv", [0.0, 4.0], video=False)
    with pytest.warns(MissingAudioWarning, match=r"3\.0 s of audio are missing in 1 .* at 1\.0 s"):
        samples = load_audio(path)
    assert loud(samples) == [
        pytest.approx((0, 1), abs=0.01),
        pytest.approx((4, 5), abs=0.01),
    ]


# ---- headers with wrong sizes


def wav_with(size: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tone(2.0), RATE, format="WAV", subtype="PCM_16")
    data = bytearray(file.getvalue())
    struct.pack_into("<I", data, data.index(b"data") + 4, size)
    return bytes(data)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, None),
        (2**32 - 1, None),
        (2**31 - 1, None),
        (128_000, "cut off: 2.0 s"),
        (32_000, "header says that 32000 bytes are audio, but 64000 are there"),
    ],
)
def test_wrong_sizes_in_a_wav(tmp_path: Path, size: int, message: str | None) -> None:
    (tmp_path / "a.wav").write_bytes(wav_with(size))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        samples = load_audio(tmp_path / "a.wav")
    np.testing.assert_allclose(samples, tone(2.0), atol=1e-4)
    assert [message or "" for _ in caught] == [message for _ in caught]
    assert len(caught) == (message is not None)
    assert all(message in str(warning.message) for warning in caught if message)


def test_an_mp3_in_a_wav(tmp_path: Path) -> None:
    path = tiny_media.write_tracks(
        tmp_path / "a.wav", [beeps(16_000)], container="wav", codec="libmp3lame", rate=RATE
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_audio(path)) / RATE == pytest.approx(SECONDS, abs=0.15)


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("size", [100_000, 1_000_000])
def test_a_picture_behind_an_mp3(tmp_path: Path, size: int, header: bool) -> None:
    path = write(tmp_path / "a.mp3")
    data = path.read_bytes()
    if not header:
        data = data.replace(b"Info", bytes(4)).replace(b"Xing", bytes(4))
    tag = b"APETAGEX" + struct.pack("<IIII", 2000, size, 1, 0) + bytes(8)
    path.write_bytes(data + tag + np.random.default_rng(0).bytes(size).replace(b"\xff", b"\0"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        samples = load_audio(path)
    assert len(samples) / RATE == pytest.approx(SECONDS, abs=0.3)


# ---- channels


def stereo(path: Path, left: Any, right: Any) -> Path:
    soundfile.write(path, np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    return path


def test_channels_with_opposite_signs(tmp_path: Path) -> None:
    sound = tone(3.0)
    path = stereo(tmp_path / "a.wav", sound, -sound)
    with pytest.warns(AudioWarning, match="opposite signs and cancel out"):
        np.testing.assert_allclose(load_audio(path), sound, atol=1e-6)
    # only for a part of the recording
    half = np.where(np.arange(len(sound)) < RATE, sound, -sound)
    with pytest.warns(AudioWarning, match="opposite signs"):
        np.testing.assert_allclose(
            load_audio(stereo(tmp_path / "b.wav", sound, half)), sound, atol=1e-6
        )


@pytest.mark.parametrize("right", [0.0, 0.5, 1.0, -0.3])
def test_other_channels_are_averaged(tmp_path: Path, right: float) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * RATE).astype(np.float32)
    left = tone(3.0)
    path = stereo(tmp_path / "a.wav", left, noise + right * left)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(load_audio(path), (left + noise + right * left) / 2, atol=1e-6)


def test_one_channel_or_each(tmp_path: Path) -> None:
    left, right = tone(2.0), 0.3 * tone(2.0)
    path = stereo(tmp_path / "a.wav", left, right)
    np.testing.assert_allclose(load_audio(path, channels="left"), left, atol=1e-6)
    np.testing.assert_allclose(load_audio(path, channels="right"), right, atol=1e-6)
    for found, expected in zip(load_channels(path), (left, right), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    with pytest.raises(ValueError, match="channels must be one of mix, left, right, split"):
        load_audio(path, channels="middle")
    with pytest.raises(ValueError, match="load_channels"):
        load_audio(path, channels="split")
    soundfile.write(tmp_path / "mono.wav", left, RATE)
    with pytest.warns(AudioWarning, match="only one channel"):
        assert len(load_audio(tmp_path / "mono.wav", channels="right")) == 2 * RATE
    soundfile.write(tmp_path / "many.wav", np.zeros((100, 9)), RATE)
    with pytest.raises(ValueError, match=r"many\.wav: 9 channels are too many"):
        load_channels(tmp_path / "many.wav")


@pytest.mark.parametrize("error", [IndexError, av.InvalidDataError])
def test_errors_between_packets(tmp_path: Path, error: type[Exception]) -> None:
    """PyAV's IndexError is about a packet of a track that was not there at the start."""
    path = write(tmp_path / "a.mka")
    whole = load_audio(path)

    class Failing:
        """A container that fails after every third packet, of which none is lost."""

        def __init__(self, container: Any) -> None:
            self.container = container

        def __getattr__(self, name: str) -> Any:
            return getattr(self.container, name)

        def demux(self, track: Any) -> Any:
            for number, packet in enumerate(self.container.demux(track)):
                yield packet
                if number == 2 and packet.size:
                    raise error("no such track") if error is IndexError else error(1, "damaged")

    with path.open("rb", buffering=0) as file:
        guarded = GuardedFile(file)
        with opened(guarded, "a") as container:
            reader = TrackReader(Failing(container), container.streams.audio[0], guarded)  # type: ignore[arg-type]
            n = sum(piece.samples.shape[1] for piece in reader.pieces())
    assert n == len(whole)
