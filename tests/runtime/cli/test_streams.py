"""Pipes, closed standard streams, strange names: the text comes, or a message before the work."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import soundfile

from baldwhisper_mlx.audio.load import load_audio
from tests.runtime.conftest import RATE, tone

PYTHON = f"{sys.executable} -c 'from baldwhisper_mlx.cli.main import main; main()'"
ROOT = Path(__file__).parents[3]
FULL = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="only Linux has a device that is full"
)
CONTROL = "\x1b[31mred\x07"


def shell(folder: Path, line: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a line of bash with `run` for the program on the model $M, in a folder with a.wav."""
    soundfile.write(folder / "a.wav", tone(), RATE)
    script = f'run() {{ {PYTHON} transcribe -m "$M" "$@"; }}\n{line}'
    # Without buffers, what cannot be written would not come up again at the end.
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=buffered | {"PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(autouse=True)
def model(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M", str(model_folder))


@pytest.mark.parametrize(
    "line",
    ["run <(cat a.wav)", "cat a.wav | run /dev/stdin", "run - < a.wav", "cat a.wav | run -",
     "run a.wav <&-", "run a.wav 2>&-"],
)  # fmt: skip
def test_the_same_text_from_everywhere(tmp_path: Path, line: str) -> None:
    expected = shell(tmp_path, "run a.wav")
    assert (expected.returncode, expected.stdout != b"") == (0, True)
    found = shell(tmp_path, line)
    assert (found.returncode, found.stdout) == (0, expected.stdout), found.stderr


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("run - <&-", 1, b"standard input, which is closed"),
        ("run a.wav >&-", 1, b"standard output is closed: give --output-dir"),
        ("run a.wav -o out >&-", 0, b"a.wav: 1.0 s of audio"),
        pytest.param("run a.wav >/dev/full", 1, b"No space left on device", marks=FULL),
        pytest.param(
            "run --help >/dev/full", 1, b"Error: [Errno 28] No space left on device", marks=FULL
        ),
        ("run /dev/zero", 1, b"/dev/zero: is a device, not an audio file"),
        ("N=$(printf 'x%.0s' {1..251}); cp a.wav $N.wav; run $N.wav -f json -o out", 1,
         b"longer than the 255 bytes"),
    ],
)  # fmt: skip
def test_a_message_and_no_lost_text(tmp_path: Path, line: str, code: int, message: bytes) -> None:
    found = shell(tmp_path, line)
    assert found.returncode == code, found.stderr
    assert message in found.stderr
    assert b"Traceback" not in found.stderr


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take no such names")
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    found = shell(tmp_path, "mv a.wav $'caf\\xe9.wav'; run $'caf\\xe9.wav' -o out && ls out")
    assert (found.returncode, found.stdout) == (0, b"caf\xe9.txt\n"), found.stderr
    assert b"caf\\udce9.wav: 1.0 s of audio" in found.stderr


def test_control_characters_of_names_are_not_printed(tmp_path: Path) -> None:
    soundfile.write(tmp_path / f"{CONTROL}.wav", tone(), RATE)
    (tmp_path / f"bad{CONTROL}.wav").write_bytes(b"text")
    soundfile.write(tmp_path / f"cut{CONTROL}.wav", tone(), RATE)
    data = (tmp_path / f"cut{CONTROL}.wav").read_bytes()
    (tmp_path / f"cut{CONTROL}.wav").write_bytes(data[:-1000])
    found = shell(tmp_path, "run *.wav $'gone\\x1b' ; run $'-\\x1b'; run a.wav -o $'a.wav/\\x1b'")
    for message in (b"1.0 s of audio", b"cannot", b"cut off", b"no such file", b"files failed",
                    b"No such option", b"cannot write"):  # fmt: skip
        assert message.lower() in found.stderr.lower()
    assert b"\x1b" not in found.stderr + found.stdout
    assert b"\x07" not in found.stderr + found.stdout
    assert b"\\x1b[31mred" in found.stderr


def test_the_library_reads_pipes_too(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(), RATE)
    os.mkfifo(tmp_path / "pipe")
    data = (tmp_path / "a.wav").read_bytes()
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    writer.start()
    assert len(load_audio(tmp_path / "pipe")) == RATE
    writer.join()
    with pytest.raises(TypeError, match=r"a\.wav: a stream of text; open it in binary mode"):
        load_audio((tmp_path / "a.wav").open(encoding="latin-1"))  # type: ignore[arg-type]
