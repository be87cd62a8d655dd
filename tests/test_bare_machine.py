"""No test, and nothing that the package does, needs a program that the README does not name."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from tests.support import tiny_media
from tests.support.bare_path import PROGRAMS, bare_path

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "examples" / "sample.wav"


def is_installed(name: str) -> bool:
    return shutil.which(name) is not None


def words(path: Path) -> list[str]:
    return re.findall(r"\w+", path.read_text("utf-8").lower())


def looks_for_programs(source: str) -> list[int]:
    """Lines of a test file that ask whether a program is there, to skip a test if it is not."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.Attribute) and node.attr == "which")
        or (isinstance(node, ast.ImportFrom) and any(a.name == "which" for a in node.names))
    ]


@pytest.mark.parametrize("name", ["ffmpeg", "ffprobe", "flite", "espeak-ng", "sox", "git", "cc"])
def test_programs_are_out_of_reach_even_if_installed(name: str) -> None:
    assert not is_installed(name)


def test_coreutils_are_there() -> None:
    assert all(is_installed(name) for name in ("cat", "ls", "sleep", "sh"))


def test_a_bare_path_leaves_programs_out(tmp_path: Path) -> None:
    everything, folder = tmp_path / "bin", tmp_path / "bare"
    everything.mkdir()
    folder.mkdir()
    for name in ("cat", "ffmpeg"):
        (everything / name).write_text("#!/bin/sh\n")
        (everything / name).chmod(0o755)
    path = bare_path(folder, f"{everything}{os.pathsep}{tmp_path / 'gone'}")
    assert shutil.which("ffmpeg", path=str(everything)) is not None
    assert shutil.which("ffmpeg", path=path) is None
    assert shutil.which("cat", path=path) == str(folder / "cat")
    assert len(PROGRAMS) == len(set(PROGRAMS))


def test_no_test_asks_for_a_program() -> None:
    files = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    assert len(files) > 50
    asking = {str(path): looks_for_programs(path.read_text("utf-8")) for path in files}
    assert {path: lines for path, lines in asking.items() if lines} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import shutil\n@pytest.mark.skipif(shutil.which('sox') is None, reason='')\ndef f(): ...",
        "import shutil\nif not shutil.which('sox'): pytest.skip()",
        "\nfrom shutil import which",
    ],
)
def test_asking_for_a_program_is_found(source: str) -> None:
    assert looks_for_programs(source) == [2]


def optional_packages(source: str) -> list[str]:
    """Packages without which a test file skips tests, by `pytest.importorskip("a literal")`."""
    return [
        node.args[0].value.partition(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith("importorskip")
        and isinstance(node.args[0], ast.Constant)
    ]


def test_make_test_installs_every_package_that_a_test_would_skip_without() -> None:
    """A test that is skipped wherever the tests run tests nothing."""
    sources = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    packages = {name for source in sources for name in optional_packages(source)}
    assert {"faster_whisper", "tensorboard", "whisper"} <= packages
    assert [name for name in sorted(packages) if importlib.util.find_spec(name) is None] == []


def test_a_transcript_on_a_bare_machine(tmp_path: Path) -> None:
    """The sample, and the same as a Voice Memo, by a process of its own."""
    samples, rate = soundfile.read(SAMPLE, dtype="float32")
    memo = tiny_media.write_tracks(
        tmp_path / "memo.m4a", [samples], container="ipod", codec="aac", rate=rate
    )
    code = "from baldwhisper_mlx.cli.main import main; main()"
    options = ["--output-format", "txt", "--output-dir", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", code, "transcribe", str(SAMPLE), str(memo), *options],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = words(SAMPLE.with_suffix(".txt"))
    assert len(expected) > 30
    for name in ("sample", "memo"):
        assert words(tmp_path / "out" / f"{name}.txt") == expected
