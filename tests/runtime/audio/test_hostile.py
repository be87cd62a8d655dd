"""Small files that would take all memory, all of the disk or hours: an end after a moment."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from tests.runtime.conftest import RATE, tone
from tests.support import tiny_media

LIMIT = 300
"""Seconds for all files together, after which one of them hangs; they take a few."""
MEGABYTES = 400
HOLE = 6 * 2**30
# Decodes every file with an address space of so much more than after the imports, and prints what
# came of each: seconds of audio, or an error.
CODE = """
import json, resource, sys, warnings
import av, numpy, soundfile, soxr
from baldwhisper_mlx.audio.load import load_audio
warnings.simplefilter("ignore")
megabytes, names = int(sys.argv[1]), sys.argv[2:]
if sys.platform == "linux":
    pages = int(open("/proc/self/statm").read().split()[0])
    most = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, -1))
for name in names:
    try:
        result = len(load_audio(name)) / 16_000
    except (ValueError, MemoryError) as error:
        result = f"{type(error).__name__}: {error}"
    print(json.dumps([name, result]), flush=True)
"""


def bomb(path: Path) -> Path:
    """73 hours of silence in less than a megabyte."""
    with soundfile.SoundFile(path, "w", 1000, 1, subtype="PCM_16") as file:
        for _ in range(250):
            file.write(np.zeros(2**20, np.int16))
    return path


def with_hole(path: Path) -> Path:
    """The file with 6 GB of zeros behind it, which take no space."""
    os.truncate(path, path.stat().st_size + HOLE)
    return path


def many_samples(path: Path) -> Path:
    """An m4a whose table claims two thousand million packets of a byte."""
    tiny_media.write_tracks(path, [tone()], container="ipod", codec="aac", rate=RATE)
    data = bytearray(path.read_bytes())
    sizes = data.index(b"stsz")
    struct.pack_into(">II", data, sizes + 8, 1, 2**31 - 1)
    path.write_bytes(data)
    return path


def many_in_a_fragment(path: Path) -> Path:
    """A fragment that claims a hundred million packets, of which nothing is said."""
    options = {"movflags": "frag_keyframe+empty_moov"}
    tiny_media.write_tracks(
        path, [tone()], container="mp4", codec="aac", rate=RATE, options=options
    )
    data = bytearray(path.read_bytes())
    run = data.index(b"trun")
    struct.pack_into(">II", data, run + 4, 0x03030303, 10**8)
    path.write_bytes(data)
    return path


def two_packets(path: Path, hours: float) -> Path:
    """A second of sound at the start, and one hours later."""
    with av.open(path, "w", options={"live": "1"}) as output:
        stream = output.add_stream("libopus", rate=48_000, layout="mono")
        for start in (0, round(hours * 3600 * 48_000)):
            frame = tiny_media.audio_frames(tone(1.0, 48_000), 48_000, first=start)
            frame.time_base = Fraction(1, 48_000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of each file."""
    folder = tmp_path_factory.mktemp("hostile")
    files = [
        bomb(folder / "bomb.flac"),
        many_samples(folder / "many.m4a"),
        many_in_a_fragment(folder / "fragment.mp4"),
        two_packets(folder / "gap.webm", 30),
    ]
    soundfile.write(folder / "channels.wav", np.zeros((20, 1024)), RATE)
    files.append(folder / "channels.wav")
    for kind in ("wav", "flac", "mp3", "ogg"):
        soundfile.write(folder / f"hole.{kind}", tone(3.0), RATE)
        files.append(with_hole(folder / f"hole.{kind}"))
    for name in ("browser.webm", "live.webm", "television.ts", "radio.aac", "old.flv"):
        files.append(with_hole(tiny_media.write_kind(folder, name, lambda rate: tone(3.0, rate))))
    (folder / "text.wav").write_bytes(b"RIFF\xff\xff\xff\xffWAVE" + b"junk\0\0\0\0" * 100_000)
    (folder / "boxes.m4a").write_bytes(b"\0\0\0\x08ftyp" + b"\0\0\0\x08free" * 300_000)
    files += [folder / "text.wav", folder / "boxes.m4a"]
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(MEGABYTES), *map(str, files)],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {Path(name).name: result for name, result in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", ["bomb.flac", "gap.webm"])
def test_longer_than_a_day(results: dict[str, Any], name: str) -> None:
    assert results[name].startswith("TooLongError: ")
    assert f"{name}: longer than 86400 s; allow more with --max-duration" in results[name]


@pytest.mark.parametrize("name", ["text.wav", "boxes.m4a", "fragment.mp4"])
def test_no_audio(results: dict[str, Any], name: str) -> None:
    assert results[name].startswith("ValueError: ")


def test_a_table_of_two_thousand_million_packets(results: dict[str, Any]) -> None:
    assert str(results["many.m4a"]).startswith("ValueError: ") or results["many.m4a"] < 5


def test_a_thousand_channels(results: dict[str, Any]) -> None:
    assert results["channels.wav"] == 20 / RATE


@pytest.mark.parametrize(
    "name",
    ["hole.wav", "hole.flac", "hole.mp3", "hole.ogg", "browser.webm", "live.webm", "television.ts",
     "radio.aac", "old.flv"],
)  # fmt: skip
def test_gigabytes_of_nothing_behind_the_audio(results: dict[str, Any], name: str) -> None:
    assert results[name] == pytest.approx(3, abs=0.15)
