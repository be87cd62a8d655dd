"""What libsndfile does not read: every container, whole, cut off, damaged, and asking for more."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from baldwhisper_mlx.audio import containers
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.audio.recording import AudioWarning, MissingAudioWarning
from tests.runtime.conftest import RATE, tone
from tests.support import tiny_media

SECONDS = 3.0
STATES_NO_LENGTH = {"live.webm", "television.ts", "disc.ac3"}
# An encoder puts a frame or two before the sound. Decoders leave that out where the file says how
# much it is, for which these have no place.
UNTOLD_DELAY = {
    "fragmented.mp4",
    "radio.aac",
    "windows.wma",
    "video.avi",
    "old.flv",
    "television.ts",
}
# The index at their end, or one block of 3 s.
NEEDS_ITS_END = {
    "memo.m4a",
    "lossless.m4a",
    "video.mp4",
    "video.mov",
    "phone.3gp",
    "packed.wv",
}


def chirp(rate: int) -> Any:
    """From 200 to 2000 Hz, so that it resembles no shifted copy of itself."""
    time = np.arange(round(SECONDS * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * (200 + 300 * time) * time)


def lag(found: Any, expected: Any) -> int:
    """Samples by which `found` comes later than `expected`, where they resemble each other most."""
    size = len(found) + len(expected)
    product = np.fft.rfft(found, size) * np.conj(np.fft.rfft(expected, size))
    best = int(np.argmax(np.fft.irfft(product, size)))
    return best if best < size // 2 else best - size


def refused(path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_audio(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", tiny_media.KINDS)
def test_length_and_place_of_the_sound(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tiny_media.write_kind(tmp_path, name, chirp)
    tolerance = 0.05 if name in UNTOLD_DELAY else 0.006
    for source in (path, io.BytesIO(path.read_bytes()), io.FileIO(path)):
        samples = load_audio(source)
        assert samples.dtype == np.float32
        assert abs(len(samples) / RATE - SECONDS) < 0.07
        assert abs(lag(samples, chirp(RATE))) < tolerance * RATE
        loud = samples[RATE // 2 : -RATE // 2]
        assert np.sqrt(np.mean(loud**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.2)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kept", [0.9, 0.5])
@pytest.mark.parametrize("name", sorted(tiny_media.KINDS.keys() - STATES_NO_LENGTH - NEEDS_ITS_END))
def test_cut_off(tmp_path: Path, name: str, kept: float) -> None:
    """What is there is read, and it is said that some is missing."""
    path = tiny_media.write_kind(tmp_path, name, chirp)
    whole, data = load_audio(path), path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.warns(MissingAudioWarning, match=f"{name}: damaged or cut off: .* at its end"):
        samples = load_audio(path)
    n = len(samples)
    assert kept - 0.25 < n / len(whole) < kept + 0.12
    np.testing.assert_allclose(samples[: n - 2000], whole[: n - 2000], atol=0.02)
    with pytest.raises(ValueError, match=f"{name}: damaged or cut off"):
        load_audio(path, strict=True)


@pytest.mark.parametrize("name", sorted(NEEDS_ITS_END))
def test_cut_off_where_nothing_can_be_read_without_the_end(tmp_path: Path, name: str) -> None:
    data = tiny_media.write_kind(tmp_path, name, chirp).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    refused(
        tmp_path / name, "0 samples" if name == "packed.wv" else r"cut off, \d+ bytes are missing"
    )


@pytest.mark.parametrize("name", sorted(STATES_NO_LENGTH))
def test_cut_off_where_no_length_is_stated(tmp_path: Path, name: str) -> None:
    """Nobody can know, and what is there is read. A test, so that the list stays short."""
    data = tiny_media.write_kind(tmp_path, name, chirp).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2 // 188 * 188])
    assert len(load_audio(tmp_path / name)) / RATE == pytest.approx(SECONDS / 2, abs=0.2)


def test_damage_is_silence_and_said(tmp_path: Path) -> None:
    path = tiny_media.write_kind(tmp_path, "faststart.m4a", chirp)
    whole = load_audio(path)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 300] = b"\xff" * 300
    path.write_bytes(data)
    with pytest.warns(
        MissingAudioWarning, match=rf"{path.name}: 0\.\d s of audio are missing in 1"
    ):
        samples = load_audio(path)
    assert len(samples) == len(whole)
    assert lag(samples[-RATE:], whole[-RATE:]) == 0


def test_no_audio_track(tmp_path: Path) -> None:
    path = tiny_media.write_tracks(
        tmp_path / "mute.mp4", [], container="mp4", codec="aac", rate=RATE, video=True
    )
    refused(path, "there is no audio track in it")


@pytest.mark.parametrize("default", [0, 1])
def test_the_default_one_of_several_tracks(tmp_path: Path, default: int) -> None:
    tracks = [tone(), 0.5 * tone()]
    path = tmp_path / "two.mkv"
    tiny_media.write_tracks(
        path, tracks, container="matroska", codec="flac", rate=RATE, default=default
    )
    with pytest.warns(AudioWarning, match=f"2 audio tracks: 1, 2; number {default + 1} is used"):
        np.testing.assert_allclose(load_audio(path), tracks[default], atol=1e-4)
    for number in (1, 2):
        np.testing.assert_allclose(load_audio(path, track=number), tracks[number - 1], atol=1e-4)
    with pytest.raises(ValueError, match="no audio track 3 in it; there is: 1, 2"):
        load_audio(path, track=3)


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("matroska", codec)
        for codec in ("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le")
    ]
    + [("mov", "pcm_s16be"), ("ipod", "alac"), ("matroska", "flac"), ("matroska", "tta")],
)
@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
def test_sample_formats_and_channels(
    tmp_path: Path, container: str, codec: str, layout: str
) -> None:
    if (codec, layout) == ("tta", "5.1"):
        layout = "quad"
    n_channels = len(av.AudioLayout(layout).channels)
    gains = np.arange(1, n_channels + 1)[:, None] / n_channels
    path = tmp_path / f"a.{container}"
    tiny_media.write_tracks(
        path, [tone() * gains], container=container, codec=codec, rate=RATE, layout=layout
    )
    coarse = 1 / 100 if codec in ("pcm_u8", "tta") else 1e-4  # 8 bits
    np.testing.assert_allclose(load_audio(path), tone() * gains.mean(), atol=coarse)


@pytest.mark.parametrize("kind", ["flac", "ogg", "mp3", "wav", "opus"])
def test_the_same_as_libsndfile_where_both_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    options = {"format": "OGG", "subtype": "OPUS"} if kind == "opus" else {}
    soundfile.write(path, chirp(RATE), RATE, **options)
    expected, found = load_audio(path), load_audio_by_pyav(path)
    assert abs(len(found) - len(expected)) <= (0 if kind in ("flac", "wav", "opus") else RATE // 12)
    n = min(len(found), len(expected))
    tolerance = {"flac": 1e-7, "wav": 1e-7, "ogg": 1e-4, "mp3": 1e-3, "opus": 5e-3}[kind]
    middle = slice(RATE // 10, n - RATE // 10) if kind == "opus" else slice(n)  # two resamplers
    np.testing.assert_allclose(found[middle], expected[middle], atol=tolerance)


def load_audio_by_pyav(path: Path) -> Any:
    from baldwhisper_mlx.audio.ffmpeg import decode_container
    from baldwhisper_mlx.audio.recording import LoadOptions

    with path.open("rb", buffering=0) as file:
        return decode_container(file, "a", LoadOptions())[0]


@pytest.mark.parametrize("kind", ["adts", "mp3"])
def test_the_rate_and_the_channels_change(tmp_path: Path, kind: str) -> None:
    codec = "aac" if kind == "adts" else "libmp3lame"
    parts = []
    for rate, layout in ((44_100, "mono"), (22_050, "stereo"), (16_000, "mono")):
        part = tmp_path / f"{rate}.{kind}"
        tiny_media.write_tracks(
            part, [tone(1.0, rate)], container=kind, codec=codec, rate=rate, layout=layout
        )
        parts.append(part.read_bytes())
    path = tmp_path / f"a.{kind}"
    path.write_bytes(b"".join(parts))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        samples = load_audio_by_pyav(path)
    assert len(samples) / RATE == pytest.approx(3.0, abs=0.3)
    for second in range(3):
        middle = samples[int((second + 0.4) * RATE) : int((second + 0.8) * RATE)]
        spectrum = np.abs(np.fft.rfft(middle))
        assert np.argmax(spectrum) * RATE / len(middle) == pytest.approx(440, abs=5)
        assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)


# ---- nothing but the file itself


PLAYLISTS = {
    "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n",
    "a.ffconcat": "ffconcat version 1.0\nfile '{}'\n",
    "a.sdp": "v=0\no=- 0 0 IN IP4 0.0.0.0\ns={}\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n",
    "a.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    '<Period><AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1">'
    "<BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>",
}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A local file that a playlist names, as FFmpeg would read it."""
    return tiny_media.write_tracks(
        tmp_path / "secret.ts", [tone()], container="mpegts", codec="aac", rate=RATE
    )


@pytest.mark.parametrize("by", ["name", "path", "url"])
@pytest.mark.parametrize("disguise", [None, "talk.m4a", "no-extension"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_files_that_name_other_files(
    tmp_path: Path, secret: Path, kind: str, disguise: str | None, by: str
) -> None:
    named = {"name": secret.name, "path": str(secret), "url": secret.as_uri()}[by]
    path = tmp_path / (disguise or kind)
    path.write_text(PLAYLISTS[kind].format(named), "utf-8")
    refused(path, "decode it")


def test_the_file_would_be_read_without_our_settings(tmp_path: Path, secret: Path) -> None:
    path = tmp_path / "a.m3u8"
    path.write_text(PLAYLISTS[path.name].format(secret.as_uri()), "utf-8")
    with path.open("rb") as file, av.open(file) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) >= RATE


@pytest.mark.parametrize("kind", ["a.m3u8", "a.ffconcat", "a.sdp"])
def test_playlists_are_not_among_the_formats(
    tmp_path: Path, secret: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first fence: nothing even asks for the other file."""
    asked: list[str] = []
    monkeypatch.setattr(containers, "_refuse", lambda url, *_: asked.append(url))
    path = tmp_path / kind
    path.write_text(PLAYLISTS[kind].format(secret.as_uri()), "utf-8")
    refused(path, "playlist or something else that is no recording|Invalid data")
    assert asked == []


def test_a_known_format_cannot_open_another_file_either(
    tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With hls among the formats, the second fence shows itself."""
    monkeypatch.setattr(containers, "_DEMUXERS", containers._DEMUXERS + ",hls")
    path = tmp_path / "a.m3u8"
    path.write_text(PLAYLISTS[path.name].format(secret.as_uri()), "utf-8")
    refused(path, "decode it|damaged|no audio track")


def test_no_program_and_no_other_file(tmp_path: Path) -> None:
    """What the process opens and starts while it decodes, as Python's audit hooks see it."""
    path = tiny_media.write_kind(tmp_path, "memo.m4a", chirp)
    code = (
        "import sys\n"
        "from baldwhisper_mlx.audio.load import load_audio\n"
        "assert 'av' not in sys.modules, 'av is imported at the start'\n"
        "import av\n"
        "seen = []\n"
        "started = ('subprocess.Popen', 'os.system', 'os.exec', 'os.posix_spawn', 'os.fork',\n"
        "           'socket.connect', 'socket.getaddrinfo')\n"
        "sys.addaudithook(lambda event, args: seen.append(event) if event in started else None)\n"
        f"assert len(load_audio({str(path)!r})) > 40_000\n"
        "sys.exit(', '.join(seen) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_tags_in_another_encoding(tmp_path: Path) -> None:
    path = tiny_media.write_kind(tmp_path, "radio.aac", chirp)
    tag = b"TALB" + (5).to_bytes(4, "big") + b"\0\0\3\xff\xfe\xff\xfe"
    path.write_bytes(b"ID3\3\0\0\0\0\0" + bytes([len(tag)]) + tag + path.read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_audio(path)) > 2.5 * RATE


@pytest.mark.parametrize("size", [100, 200_000])
def test_joined_mp3s_with_tags_between_them(tmp_path: Path, size: int) -> None:
    """Cover art, which lasts no time."""
    path = tmp_path / "a.mp3"
    soundfile.write(path, chirp(RATE), RATE)
    sizes = bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
    art = np.random.default_rng(0).bytes(size)
    path.write_bytes(path.read_bytes() + b"ID3\3\0\0" + sizes + art + path.read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(load_audio(path)) / RATE == pytest.approx(2 * SECONDS, abs=0.25)


def test_the_file_that_ffmpeg_gets(tmp_path: Path) -> None:
    """Positions before the start are errors, not exceptions; a large hole ends the file."""
    path = tmp_path / "a"
    path.write_bytes(bytes(range(100)))
    os.truncate(path, 2**27)
    with path.open("rb", buffering=0) as opened:
        file = containers.GuardedFile(opened)
        end = file.seek(0, os.SEEK_END)
        assert 100 <= end < 2**20
        assert (file.seek(-1), file.seek(2**63), file.seek(-2 * end, os.SEEK_CUR)) == (-1, -1, -1)
        assert (file.seek(2**60), file.read(10)) == (2**60, b"")  # more than any file system takes
        assert file.seek(0, os.SEEK_END) == end
        assert file.read(10) == b""
        assert (file.seek(50), file.read(3), file.tell()) == (50, b"\x32\x33\x34", 53)
        assert file.distance(b"\x50\x51", 60) == 20
        assert file.distance(b"none", 60) == 0


def test_decoders_of_games_and_pictures_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    tiny_media.write_tracks(path, [tone()], container="avi", codec="adpcm_ima_wav", rate=RATE)
    assert len(load_audio(path)) > 0.9 * RATE
    containers_without = containers._DECODERS.replace("adpcm_ima_wav,", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(containers, "_DECODERS", containers_without)
        refused(path, "there is no decoder for its audio track 1")
