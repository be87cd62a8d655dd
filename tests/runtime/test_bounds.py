"""Bounds are checked before anything is read or built; what is no regular file is not opened."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import pytest

from baldwhisper_mlx.bounds import (
    BOUNDS,
    LARGEST,
    check_dimensions,
    check_file,
    parameters_at_least,
    read_bounded,
)
from baldwhisper_mlx.terminal import message_of, printable, quoted


def test_the_largest_whisper_is_read_and_four_times_its_parameters() -> None:
    check_dimensions(LARGEST)
    check_dimensions(LARGEST | {"n_audio_layer": 128, "n_text_layer": 128})
    with pytest.raises(ValueError, match=r"model of 23\.6 billion parameters; at most 6\.2"):
        check_dimensions(LARGEST | {"n_audio_state": 5120, "n_text_state": 5120})
    assert parameters_at_least(LARGEST) / 1e9 == pytest.approx(1.55 - 0.066, abs=0.01)


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("wrong", [0, -1, None, True, 1.0, "1", 2**62, 10**6])
def test_a_dimension_out_of_bounds_is_named(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"bad value for {name}: .* from 1 to {BOUNDS[name]}"):
        check_dimensions(LARGEST | {name: wrong})
    with pytest.raises(ValueError, match="bad value for theirs: "):
        check_dimensions({name: wrong}, {name: "theirs"})


def test_a_long_value_is_cut_off_in_the_message() -> None:
    with pytest.raises(ValueError, match="n_mels") as caught:
        check_dimensions({"n_mels": "\x1b" * 10**6})
    assert len(str(caught.value)) < 400
    assert "\x1b" not in str(caught.value)


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "device"):
        for read in (check_file, read_bounded):
            with pytest.raises(ValueError, match=f"{name}: not a regular file, but a {name}"):
                read(tmp_path / name, 100)
    for path in (tmp_path / "gone", tmp_path / "file" / "below"):
        (tmp_path / "file").touch()
        with pytest.raises(FileNotFoundError, match=f"{path}: missing"):
            check_file(path, 100)


def test_a_socket_is_no_file() -> None:
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as server:
        path = Path(short) / "s"  # in a short folder: a socket's path has about 100 characters
        server.bind(str(path))
        with pytest.raises(ValueError, match="not a regular file, but a socket"):
            read_bounded(path, 100)


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100)
    assert check_file(path, 100) == 100
    assert read_bounded(path, 100) == b"x" * 100
    with pytest.raises(ValueError, match="a: 100 bytes; at most 99"):
        read_bounded(path, 99)
    os.truncate(path, 2**40)  # sparse: a terabyte that takes no space
    with pytest.raises(ValueError, match="at most 1000"):
        read_bounded(path, 1000)


def test_a_file_that_grows_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100)
    monkeypatch.setattr("baldwhisper_mlx.bounds.check_file", lambda path, most: 10)
    with pytest.raises(ValueError, match="a: more than 10 bytes"):
        read_bounded(path, 10)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("日本 é😀 ɔ̀", "日本 é😀 ɔ̀"),
        ("a\x1b[31mb\x07", r"a\x1b[31mb\x07"),
        ("\x9b2J\x00", r"\x9b2J\x00"),
        ("one\ntwo\r\t", r"one\ntwo\r\t"),
        ("gnp\u202e.exe", r"gnp\u202e.exe"),
        ("\udce9t\udce9", r"\udce9t\udce9"),
        ("क्\u200dष", "क्\u200dष"),
    ],
)
def test_what_is_printed(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown
    assert printable("\x1b\n", keep="\n") == "\\x1b\n"


def test_an_error_without_a_message_has_its_kind() -> None:
    assert message_of(OSError()) == "OSError without a message"
    assert message_of(OSError(28, "No space left on device")).endswith("No space left on device")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\x1bb", r"'a\x1bb'"),
        ("x" * 100, f"'{'x' * 60}'..."),
        ([0] * 100, "a list of 100"),
        ({str(i): i for i in range(100)}, "an object of 100"),
        (["x" * 100], f"['{'x' * 58}..."),
        (10**70, f"1{'0' * 59}..."),
        (b"\x00", r"b'\x00'"),
        (None, "None"),
    ],
)
def test_what_is_quoted(value: object, shown: str) -> None:
    assert quoted(value) == shown
