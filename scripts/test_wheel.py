"""Installs the wheel as users do, into empty environments, and runs it there without a network.

    python scripts/test_wheel.py dist/*.whl

`make test-wheel` builds the wheel and runs this, from an environment that has uv. The wheel is
installed outside the clone with pip, `uv pip`, `uv tool install` and `uvx`, in the versions of
constraints.txt; then the network is cut off and examples/sample.wav is transcribed. Installing
needs a package index, running must not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
SAMPLE = ROOT / "examples" / "sample.wav"
NOT_INSTALLED = ("torch", "transformers", "onnxruntime")
SEEDS = ("pip", "setuptools", "wheel")
"""What an empty environment may hold already; constraints.txt does not pin them."""

PROBE = """
import importlib.metadata, json, sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        raise RuntimeError(f"the network was used: {event} {arguments}")

sys.addaudithook(refuse)
import baldwhisper_mlx
text = baldwhisper_mlx.transcribe(sys.argv[1], baldwhisper_mlx.load_model()).text
packages = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
print(json.dumps({"text": text, "file": baldwhisper_mlx.__file__, "packages": packages}))
"""
NO_NETWORK_PROBE = """
import errno, socket, sys
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError as error:
    sys.exit(0 if error.errno == errno.ENETUNREACH else f"not cut off: {error}")
sys.exit("not cut off: connected")
"""


class Failure(Exception):
    """A check did not pass; the message says which and what to do."""


def main() -> None:
    """Parses the command line and ends with 1 if a check fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument(
        "--with", dest="ways", action="append", choices=sorted(WAYS), help="repeatable; default all"
    )
    arguments = parser.parse_args()
    try:
        install(arguments.wheel, arguments.ways or list(WAYS))
    except Failure as error:
        sys.exit(f"error: {error}")


def with_pip(wheel: Path, folder: Path) -> tuple[list[str], list[str] | None]:
    """`python -m venv` and `pip install`: the program, and the environment's Python."""
    run([base_python(), "-m", "venv", str(folder / "venv")], folder)
    python = str(folder / "venv/bin/python")
    run([python, "-m", "pip", "install", "-q", "-c", str(CONSTRAINTS), str(wheel)], folder)
    run([python, "-m", "pip", "check"], folder)
    return [str(folder / "venv/bin/baldwhisper")], [python]


def with_uv(wheel: Path, folder: Path) -> tuple[list[str], list[str] | None]:
    """`uv venv` and `uv pip install`."""
    run([*UV, "venv", "-q", "--python", base_python(), str(folder / "venv")], folder)
    python = str(folder / "venv/bin/python")
    to = ["--python", python]
    run([*UV, "pip", "install", "-q", *to, "-c", str(CONSTRAINTS), str(wheel)], folder)
    run([*UV, "pip", "check", "-q", *to], folder)
    return [str(folder / "venv/bin/baldwhisper")], [python]


def with_uv_tool(wheel: Path, folder: Path) -> tuple[list[str], list[str] | None]:
    """`uv tool install`, into the folder instead of the user's home."""
    command = [*UV, "tool", "install", "-q", "--python", base_python(), "-c", str(CONSTRAINTS)]
    run([*command, str(wheel)], folder)
    return [str(folder / "bin/baldwhisper")], [str(folder / "tools/baldwhisper-mlx/bin/python")]


def with_uvx(wheel: Path, folder: Path) -> tuple[list[str], list[str] | None]:
    """`uvx --from`: the first run fetches, the others have only uv's cache."""
    options = ["-q", "--python", base_python(), "-c", str(CONSTRAINTS), "--from", str(wheel)]
    run([*UV, "tool", "run", *options, "baldwhisper", "--version"], folder)
    return [*UV, "tool", "run", "--offline", *options, "baldwhisper"], None


UV = [sys.executable, "-m", "uv"]
WAYS: dict[str, Callable[[Path, Path], tuple[list[str], list[str] | None]]] = {
    "pip": with_pip,
    "uv": with_uv,
    "uv-tool": with_uv_tool,
    "uvx": with_uvx,
}


def install(wheel: Path, ways: list[str]) -> None:
    """Installs the wheel in each way into an empty folder and runs it there without a network.

    Raises:
        Failure: an installation fails, or what was installed does not do what it should.
    """
    if not wheel.is_file() or wheel.suffix != ".whl":
        raise Failure(f"{wheel}: not a wheel; `make test-wheel` builds one")
    for way in ways:
        with tempfile.TemporaryDirectory(prefix="baldwhisper-wheel-") as temporary:
            folder = Path(temporary).resolve()
            started = time.perf_counter()
            program, python = WAYS[way](wheel.resolve(), folder)
            installed = time.perf_counter()
            shutil.copy(SAMPLE, folder)
            prefix, how = isolation(folder)
            check_program(wheel, [*prefix, *program], folder)
            if python is not None:
                check_package([*prefix, *python], folder)
            done = time.perf_counter()
            print(
                f"{way}: installed in {installed - started:.0f} s, "
                f"ran without a network ({how}) in {done - installed:.0f} s"
            )


def check_program(wheel: Path, program: list[str], folder: Path) -> None:
    """`baldwhisper --version` and `baldwhisper transcribe` give what they should.

    Raises:
        Failure: another version or another text.
    """
    version = run([*program, "--version"], folder, offline=True).split()[-1]
    if version != wheel.name.split("-")[1]:
        raise Failure(f"{wheel.name}: `baldwhisper --version` says {version}")
    check_text(run([*program, "transcribe", SAMPLE.name], folder, offline=True))


def check_package(python: list[str], folder: Path) -> None:
    """The package transcribes from Python, is the installed one, and came with pinned versions.

    Raises:
        Failure: another text, the clone's package, torch, or a version that is not pinned.
    """
    result = json.loads(run([*python, "-c", PROBE, SAMPLE.name], folder, offline=True))
    check_text(result["text"])
    if folder not in Path(result["file"]).resolve().parents:
        raise Failure(f"{result['file']} was imported, which is outside the new environment")
    packages = {name.lower().replace("_", "-"): v for name, v in result["packages"].items()}
    if unwanted := packages.keys() & set(NOT_INSTALLED):
        raise Failure(f"the wheel must not bring {', '.join(sorted(unwanted))}")
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    pins = {line.partition(";")[0].strip() for line in lines if not line.startswith("#")}
    own = {"baldwhisper-mlx", *SEEDS}
    loose = {f"{name}=={v}" for name, v in packages.items() if name not in own} - pins
    if loose:
        raise Failure(
            f"not in constraints.txt: {', '.join(sorted(loose))}; run scripts/update_constraints.sh"
        )


def check_text(text: str) -> None:
    """Raises a Failure if a text has other words than examples/sample.txt."""
    expected = SAMPLE.with_suffix(".txt").read_text(encoding="utf-8")
    if words(text) != words(expected):
        raise Failure(f"the sample was transcribed as {text!r} instead of {expected!r}")


def words(text: str) -> list[str]:
    """Words without case and punctuation."""
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


# Running


def isolation(folder: Path) -> tuple[list[str], str]:
    """What to put before a command to take its network away, and what that is called.

    A network namespace without interfaces where the system allows one; elsewhere nothing, and the
    environment of `run` names a proxy that nobody answers at.
    """
    unshare = shutil.which("unshare")
    prefix = [unshare, "--map-root-user", "--net", "--"] if unshare else []
    probe = [*prefix, base_python(), "-c", NO_NETWORK_PROBE]
    if (
        prefix
        and subprocess.run(probe, cwd=folder, capture_output=True, check=False).returncode == 0
    ):
        return prefix, "network namespace"
    return [], "closed proxy"


def environment(folder: Path, offline: bool) -> dict[str, str]:
    """The environment of a user who has never seen the clone.

    Offline also without the user's home, so that no cached model or setting can help.
    """
    dropped = ("PYTHON", "VIRTUAL_ENV", "CONDA", "BALDWHISPER", "HF_", "UV_PROJECT")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(dropped)}
    paths = kept.get("PATH", os.defpath).split(os.pathsep)
    outside = [
        path for path in paths if ROOT not in [Path(path).resolve(), *Path(path).resolve().parents]
    ]
    kept |= {"PATH": os.pathsep.join(outside), "PYTHONNOUSERSITE": "1"}
    kept |= {"UV_TOOL_DIR": str(folder / "tools"), "UV_TOOL_BIN_DIR": str(folder / "bin")}
    kept |= {"UV_CACHE_DIR": str(folder / "uv-cache")}
    if offline:
        proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        closed = "http://127.0.0.1:9"
        kept |= {name: closed for both in proxies for name in (both, both.lower())}
        kept |= {"HF_HUB_OFFLINE": "1", "HOME": str(folder / "home")}
        (folder / "home").mkdir(exist_ok=True)
    return kept


def run(command: list[str], folder: Path | None = None, *, offline: bool = False) -> str:
    """Runs a command, in `folder` as a user outside the clone, and returns its standard output.

    Raises:
        Failure: it fails; the message has the command and what it printed.
    """
    outside = environment(folder, offline) if folder else None
    done = subprocess.run(
        command, cwd=folder, env=outside, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Failure(
            f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done.stdout


def base_python() -> str:
    """This Python, outside any virtual environment."""
    return str(getattr(sys, "_base_executable", sys.executable))


if __name__ == "__main__":
    main()
