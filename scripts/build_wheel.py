"""Builds the wheel and the sdist, and checks that they hold what they must and nothing else.

    python scripts/build_wheel.py dist

`make dist` runs this from an environment that has build, twine and uv. The wheel is built three
ways, from the sdist, from the tree and by uv, which must all give the same files.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
NAME = "baldwhisper_mlx"
SOURCES = {
    "baldwhisper_mlx": "baldwhisper_mlx",
    "convert/baldwhisper_convert": "baldwhisper_convert",
}
"""Package folders: in the sdist, and what they are called in the wheel."""

REQUIRED = (
    *(f"baldwhisper_mlx/assets/tiny-en/{name}" for name in ("config.json", "model.safetensors")),
    *("baldwhisper_mlx/assets/tiny-en/vocabulary.tiktoken", "baldwhisper_mlx/py.typed"),
    *("baldwhisper_mlx/assets/multilingual.tiktoken", "baldwhisper_mlx/assets/speech.flac"),
    *(f"baldwhisper_mlx/assets/page/{name}" for name in ("index.html", "main.js", "style.css")),
    *("baldwhisper_convert/py.typed", "baldwhisper_mlx/cli/main.py"),
)
METADATA = (
    *("METADATA", "WHEEL", "RECORD", "entry_points.txt"),
    *("licenses/LICENSE", "licenses/NOTICE"),
)
MOST_BYTES = 100_000_000
"""The largest file that the Python Package Index takes without asking."""


class Failure(Exception):
    """A check did not pass; the message says which and what to do."""


def main() -> None:
    """Parses the command line and ends with 1 if a check fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the two files are put")
    try:
        build(parser.parse_args().folder)
    except Failure as error:
        sys.exit(f"error: {error}")


def build(folder: Path) -> None:
    """Builds with build and with uv, compares the wheels, checks them and puts them in `folder`.

    Raises:
        Failure: a build fails, files are missing or too many, or the wheels differ.
    """
    module = [sys.executable, "-m"]
    with tempfile.TemporaryDirectory(prefix="baldwhisper-build-") as temporary:
        made = {name: Path(temporary) / name for name in ("sdist", "tree", "uv")}
        # The first builds the sdist and then the wheel from it, the second straight from the tree.
        run([*module, "build", "--outdir", str(made["sdist"]), str(ROOT)])
        run([*module, "build", "--wheel", "--outdir", str(made["tree"]), str(ROOT)])
        run([*module, "uv", "build", "--quiet", "--out-dir", str(made["uv"]), str(ROOT)])
        wheel, sdist = only(made["sdist"], "*.whl"), only(made["sdist"], "*.tar.gz")
        run([*module, "twine", "check", "--strict", str(wheel), str(sdist)])
        for other in ("tree", "uv"):
            if contents(only(made[other], "*.whl")) != contents(wheel):
                raise Failure(f"the wheel built from the {other} is not the one from the sdist")
        print("the wheels from the sdist, from the tree and by uv are the same")
        check_sdist(sdist)
        check_wheel(wheel, sdist)
        keep([wheel, sdist], folder)


def keep(made: list[Path], folder: Path) -> None:
    """Puts distributions in `folder`, in the place of those of other versions.

    Raises:
        Failure: one is larger than the index takes.
    """
    for path in made:
        if path.stat().st_size > MOST_BYTES:
            raise Failure(f"{path.name}: {path.stat().st_size} bytes; the index takes {MOST_BYTES}")
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob(f"{NAME}-*.whl"), *folder.glob(f"{NAME}-*.tar.gz")]:
        old.unlink()
    for path in made:
        partial = folder / f".{path.name}.tmp"
        shutil.copyfile(path, partial)
        os.replace(partial, folder / path.name)
        print(f"{folder / path.name}: {path.stat().st_size / 1e6:.1f} MB")


def contents(wheel: Path) -> dict[str, int]:
    """File names of a wheel with their CRC-32."""
    with zipfile.ZipFile(wheel) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist()}


def sdist_files(sdist: Path) -> set[str]:
    """Files of an sdist, without its top folder."""
    with tarfile.open(sdist) as archive:
        names = [PurePosixPath(entry.name) for entry in archive.getmembers() if entry.isfile()]
    return {str(PurePosixPath(*name.parts[1:])) for name in names}


def check_sdist(sdist: Path) -> None:
    """The sdist is what git tracks, which is what `make test` needs, and PKG-INFO.

    Raises:
        Failure: names the files that are missing or too many.
    """
    if not (ROOT / ".git").exists():
        print("no git here: the sdist is not compared with the tracked files")
        return
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    wanted = {name for name in tracked.stdout.split("\0") if name} | {"PKG-INFO"}
    found = sdist_files(sdist)
    if stray := sorted(found - wanted):
        raise Failure(f"not tracked by git: {', '.join(stray)}; commit, ignore or move them")
    compare(sdist.name, found, wanted)


def check_wheel(wheel: Path, sdist: Path) -> None:
    """The wheel is the two packages as they are in the sdist, the licences, and its metadata.

    Raises:
        Failure: names the files that are missing or too many.
    """
    found = set(contents(wheel))
    information = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    wanted = {f"{information}/{name}" for name in METADATA}
    for name in sdist_files(sdist):
        for source, package in SOURCES.items():
            if name.startswith(f"{source}/"):
                wanted.add(package + name[len(source) :])
    compare(wheel.name, found, wanted)
    compare(wheel.name, found & set(REQUIRED), set(REQUIRED))
    print(f"{wheel.name}: {len(found)} files")


def compare(what: str, found: set[str], wanted: set[str]) -> None:
    """Raises a Failure that names the files in which two sets differ."""
    problems = {"missing": sorted(wanted - found), "too many": sorted(found - wanted)}
    texts = [f"{word}: {', '.join(names[:10])}" for word, names in problems.items() if names]
    if texts:
        raise Failure(f"{what}: {'; '.join(texts)}")


def run(command: list[str]) -> None:
    """Runs a command.

    Raises:
        Failure: it fails; the message has the command and what it printed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        output = f"{done.stdout}{done.stderr}"
        raise Failure(f"{' '.join(command)}\nended with {done.returncode}:\n{output}")


def only(folder: Path, pattern: str) -> Path:
    """The one file that fits the pattern.

    Raises:
        Failure: none fits, or several.
    """
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise Failure(f"{folder}: {len(found)} files named {pattern} instead of one")
    return found[0]


if __name__ == "__main__":
    main()
