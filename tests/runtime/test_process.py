"""What importing and loading do to the process they happen in, and where they survive."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TRANSCRIBE = """
import sys, numpy, baldwhisper_mlx
model = baldwhisper_mlx.load_model(sys.argv[1])
print(baldwhisper_mlx.transcribe(numpy.full(16000, 0.1, "f4"), model, temperature=0.0).duration)
"""


def run(
    code: str, *arguments: str | Path, flags: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *flags, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=os.environ | environment
    )


@pytest.mark.parametrize(
    "entry",
    ['pathlib.Path("/x/site-packages")', 'b"/x/site-packages"', '"/site-packages"', "None", "1"],
)
def test_anything_may_be_in_the_import_path(entry: str) -> None:
    code = f"import sys, pathlib, baldwhisper_mlx; sys.path.append({entry}); import mlx.core"
    assert run(code).stderr == ""


@pytest.mark.parametrize("name", ["site-packages", "./site-packages"])
def test_no_library_is_loaded_from_a_relative_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "libmkl_rt.so").write_bytes(b"planted")
    code = (
        f"import os, sys; sys.path.append({name!r}); os.chdir(sys.argv[1]); "
        "from baldwhisper_mlx.ops import blas; print(blas._mkl_candidates())"
    )
    done = run(code, tmp_path / "lib")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) not in done.stdout
    assert "'libmkl" not in done.stdout
    assert "'../" not in done.stdout


def test_a_blas_is_loaded_with_mlx_and_not_before() -> None:
    code = (
        "import sys, baldwhisper_mlx; from baldwhisper_mlx.ops import blas\n"
        "calls = []; load = blas.preload; blas.preload = lambda: calls.append(load())\n"
        "import numpy, json; print(calls); import mlx.core; print(len(calls))\n"
        "print([type(each).__name__ for each in sys.meta_path].count('_BeforeMlx'))"
    )
    done = run(code)
    assert done.stderr == ""
    assert done.stdout.split() == ["[]", "1" if sys.platform == "linux" else "0", "0"]


def test_the_environment_stays_as_it_is(model_folder: Path) -> None:
    code = (
        f"import os; before = dict(os.environ)\n{TRANSCRIBE}\n"
        "print(sorted(dict(os.environ).items() - before.items()))"
    )
    done = run(code, model_folder)
    assert done.stderr == ""
    # threadpoolctl sets this one, for processes with two OpenMP libraries
    assert done.stdout.splitlines()[1] in ("[]", "[('KMP_DUPLICATE_LIB_OK', 'True')]")


@pytest.mark.parametrize("choice", ["", "none"])
def test_warnings_as_errors(model_folder: Path, choice: str) -> None:
    done = run(TRANSCRIBE, model_folder, flags=("-W", "error"), BALDWHISPER_BLAS=choice)
    assert (done.stdout.strip(), done.stderr) == ("1.0", "")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_standard_streams(model_folder: Path, tmp_path: Path, closed: tuple[int]) -> None:
    """A model's file may then be opened as number 0, which MLX takes for a failure."""
    code = TRANSCRIBE.replace("print(", "open(sys.argv[2], 'w').write(str(")[:-1] + ")\n"
    command = " ".join(f"{fd}>&-" for fd in closed)
    subprocess.run(
        [
            "sh",
            "-c",
            f'exec "$@" {command}',
            "sh",
            sys.executable,
            "-c",
            code,
            str(model_folder),
            str(tmp_path / "out"),
        ],
        timeout=120,
        check=True,
    )
    assert (tmp_path / "out").read_text() == "1.0"


@pytest.mark.skipif(sys.platform != "linux", reason="on a Mac the default device is no CPU")
def test_nothing_is_compiled(model_folder: Path, tmp_path: Path) -> None:
    """MLX would start a compiler, and load a library by its name from a folder of TMPDIR."""
    programs, temporary = tmp_path / "bin", tmp_path / "tmp"
    programs.mkdir()
    temporary.mkdir()
    for name in ("g++", "c++", "clang++"):
        compiler = programs / name
        compiler.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/called"\n')
        compiler.chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = run(TRANSCRIBE, model_folder, PATH=path, TMPDIR=str(temporary))
    assert (done.stdout.strip(), done.stderr) == ("1.0", "")
    assert list(temporary.iterdir()) == []
    called = tmp_path / "called"
    assert not called.exists() or ".so" not in called.read_text()


def test_no_temporary_folder_is_needed(model_folder: Path, tmp_path: Path) -> None:
    done = run(TRANSCRIBE, model_folder, TMPDIR=str(tmp_path / "none"))
    assert (done.stdout.strip(), done.stderr) == ("1.0", "")


@pytest.mark.parametrize(
    ("closed", "status", "text"),
    [("<&-", 0, ""), ("2>&-", 0, ""), (">&-", 1, "standard output is closed"), ("<&- 2>&-", 0, "")],
)
def test_the_program_with_closed_streams(
    model_folder: Path, wav: Path, closed: str, status: int, text: str
) -> None:
    code = "from baldwhisper_mlx.cli.main import main; main()"
    arguments = ["transcribe", "-m", str(model_folder), "--temperature", "0", str(wav)]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == status, done.stderr
    assert text in done.stderr
    assert (done.stdout == "") == (closed == ">&-")
    assert "Traceback" not in done.stderr


def test_a_closed_output_is_no_matter_where_files_are_written(
    model_folder: Path, wav: Path, tmp_path: Path
) -> None:
    code = "from baldwhisper_mlx.cli.main import main; main()"
    arguments = ["transcribe", "-m", str(model_folder), "-o", str(tmp_path / "out"), str(wav)]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "tone.txt").is_file()
