"""Atomic files and folders, and reading JSON."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from baldwhisper_mlx.files import (
    atomic_file,
    atomic_folder,
    peek_json,
    read_json,
    restore_folder,
    write_atomically,
)


def test_atomic_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "naïve")
    assert path.read_text(encoding="utf-8") == "naïve"

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            write_atomically(path, "new")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail)
        with pytest.raises(OSError, match="disk full"):
            write_atomically(path, "new")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "half \ud800")
    assert {p.name: p.read_text(encoding="utf-8") for p in tmp_path.iterdir()} == {
        "a.json": "naïve"
    }


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failing_block_changes_nothing(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with atomic_file(path) as temporary:
            temporary.write_bytes(b"half")
            assert temporary.parent == tmp_path
            raise error

    with pytest.raises(type(error)):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_overwriting_can_be_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_file(path, overwrite=False) as temporary:
        temporary.write_text("first")
    with (
        pytest.raises(FileExistsError, match=r"a\.txt: created by another"),
        atomic_file(path, overwrite=False) as temporary,
    ):
        temporary.write_text("second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_replaced_completely(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model"
    for name in ("first", "second"):
        with atomic_folder(path) as temporary:
            (temporary / name).touch()
        assert os.listdir(path) == [name]
    assert os.listdir(path.parent) == ["model"]
    ordinary = tmp_path / "ordinary"
    ordinary.mkdir()
    assert path.stat().st_mode == ordinary.stat().st_mode


@pytest.mark.parametrize("existing", [True, False])
def test_a_failing_folder_changes_nothing(tmp_path: Path, existing: bool) -> None:
    path = tmp_path / "model"
    if existing:
        path.mkdir()
        (path / "old").touch()

    def interrupted() -> None:
        with atomic_folder(path) as temporary:
            (temporary / "new").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == (["model"] if existing else [])
    assert not existing or os.listdir(path) == ["old"]


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000])
def test_json_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json: not valid JSON"):
        read_json(path)
    assert peek_json(path) == {}


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(FileNotFoundError, match=r"a\.json: missing"):
        read_json(path)
    assert peek_json(path) == {}
    path.write_text('["a"]')
    assert (read_json(path), peek_json(path)) == (["a"], {})
    path.write_text('{"a": 1}')
    assert read_json(path) == peek_json(path) == {"a": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' occurs twice"),
        (b"[" + b"1" * 5000 + b"]", "a number of 5000 digits"),
        (b"[" * 100_000, ""),
    ],
)
def test_json_that_python_would_misread(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.json: not valid JSON \(.*{message}"):
        read_json(path)
    assert peek_json(path) == {}


def test_json_is_read_from_regular_files_of_a_sane_size(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match=r"pipe\.json: not a regular file, but a pipe"):
        read_json(tmp_path / "pipe.json")
    assert peek_json(tmp_path / "pipe.json") == {}
    (tmp_path / "large.json").write_bytes(b"[" + b" " * 100 + b"]")
    with pytest.raises(ValueError, match=r"large\.json: 102 bytes; at most 50"):
        read_json(tmp_path / "large.json", most=50)


CHILD = """
import os, signal, sys
from pathlib import Path
from baldwhisper_mlx import files

die_at, path = int(sys.argv[1]), Path(sys.argv[2])
calls = 0

def count(event, arguments):
    # The parent, the new folder, the old one away, the new one in, and both leftovers deleted.
    global calls
    if event in ("os.mkdir", "os.rename", "shutil.rmtree"):
        calls += 1
        if calls == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
with files.atomic_folder(path) as folder:
    (folder / "new").touch()
"""


@pytest.mark.parametrize(
    ("die_at", "kept"),
    [(2, "old"), (3, "old"), (4, "old"), (5, "new"), (6, "new"), (7, "new")],
    ids=["made", "moved away", "moved in", "partial deleted", "old deleted", "not killed"],
)
def test_the_next_call_puts_right_what_a_killed_one_left(
    die_at: int, kept: str, tmp_path: Path
) -> None:
    """The process is killed before its nth change of a folder."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "old").touch()
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", CHILD, str(die_at), str(path)]
    killed = subprocess.run(command, env=os.environ | {"PYTHONPATH": root})
    assert killed.returncode == (0 if die_at == 7 else -signal.SIGKILL)
    if die_at == 4:
        assert not path.exists()
    restore_folder(path)
    assert os.listdir(tmp_path) == ["model"]
    assert os.listdir(path) == [kept]


def leave(path: Path, suffix: str, process: int, machine: str | None = None) -> Path:
    """A folder as a process leaves it that is killed in `atomic_folder(path)`."""
    digest = [
        hashlib.sha256(text.encode()).hexdigest()[:12]
        for text in (path.name, machine or platform.node())
    ]
    left = path.with_name(f".baldwhisper-{digest[0]}-{digest[1]}-{process}-01234567.{suffix}")
    left.mkdir()
    (left / suffix).touch()
    return left


def test_folders_of_running_processes_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "model"
    running = leave(path, "tmp", os.getppid())
    elsewhere = leave(path, "tmp", 2**22 + 1, "another machine")
    other = leave(tmp_path / "other model", "old", 2**22 + 1)
    (tmp_path / ".baldwhisper-5-abc.tmp").touch()
    with atomic_folder(path) as folder, atomic_folder(path):
        assert folder.exists()
    assert running.exists()
    assert elsewhere.exists()
    assert other.exists()
    assert os.listdir(path) == []


def test_an_old_folder_comes_back_only_where_nothing_took_its_place(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for machine in (None, "another machine"):
        leave(path, "old", 2**22 + 1, machine)
        restore_folder(path)
        assert os.listdir(path) == ["old"]
        (path / "newer").touch()
        leave(path, "old", 2**22 + 1, machine)
        restore_folder(path)
        assert sorted(os.listdir(path)) == ["newer", "old"]
        assert os.listdir(tmp_path) == ["model"]
        shutil.rmtree(path)
    restore_folder(tmp_path / "no such folder" / "model")
