"""Writes the Homebrew formula, and the pinned wheels that it installs, from constraints.txt.

    python scripts/make_formula.py
    python scripts/make_formula.py --sdist dist/*.tar.gz --output baldwhisper.rb

The first (`make formula`) writes packaging/homebrew/: requirements.txt, with the sha256 of every
file that may be installed, as uv finds them in its package index, and a formula that builds from
the repository. The second, part of a release, adds the released sdist to a copy of the formula.
packaging/README.md says why it is done this way. Needs uv: use .cache/packaging/bin/python, which
the Makefile sets up.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from release_notes import read_version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / "pyproject.toml"
CONSTRAINTS = ROOT / "constraints.txt"
FOLDER = ROOT / "packaging" / "homebrew"
FORMULA = FOLDER / "baldwhisper.rb"
REQUIREMENTS = FOLDER / "requirements.txt"

PYTHON = "3.13"
MACOS = "14.0"
"""The oldest macOS that MLX has wheels for: Sonoma."""

BUILD_BACKEND = "hatchling"

HEADER = """\
# Written by scripts/make_formula.py from constraints.txt; do not edit.
# For macOS on arm64 and the Python of the formula. hatchling and what it needs build the package.
"""

TEMPLATE = """\
# Written by scripts/make_formula.py; do not edit.
class Baldwhisper < Formula
  desc "Small, fast Whisper speech recognition on Apple's MLX"
  homepage "{repository}"
{stable}  license "MIT"
  head "{repository}.git", branch: "main"

  depends_on arch: :arm64
  depends_on macos: :sonoma
  depends_on "python@{python}"

  # The libraries in the wheels have no room for Homebrew's longer install names.
  preserve_rpath

  def install
    system Formula["python@{python}"].opt_bin/"python{python}", "-m", "venv", libexec
    pip = [libexec/"bin/python", "-m", "pip", "install", "--disable-pip-version-check"]
    system(*pip, "--require-hashes", "--only-binary=:all:",
           "--requirement", "packaging/homebrew/requirements.txt")
    system(*pip, "--no-deps", "--no-index", "--no-build-isolation", ".")
    bin.install_symlink libexec/"bin/baldwhisper"
    generate_completions_from_executable(bin/"baldwhisper", shell_parameter_format: :click)
    pkgshare.install "examples/sample.wav"
  end

  test do
    assert_match version.to_s, shell_output("#{{bin}}/baldwhisper --version") unless head?
    text = shell_output("#{{bin}}/baldwhisper transcribe #{{pkgshare}}/sample.wav")
    assert_match "small model", text
  end
end
"""


def repository() -> str:
    """The repository's address, from `[project.urls]`.

    Raises:
        ValueError: pyproject.toml names no Source.
    """
    for line in PROJECT.read_text(encoding="utf-8").splitlines():
        if line.startswith("Source = "):
            return line.partition("=")[2].strip().strip('"')
    raise ValueError(f"{PROJECT}: no Source in [project.urls]")


def formula(sdist: Path | None = None) -> str:
    """The formula: for the repository alone, or also for a released sdist.

    Args:
        sdist: the file as it is attached to the release of the current version.
    """
    stable = ""
    if sdist is not None:
        address = f"{repository()}/releases/download/v{read_version()}/{sdist.name}"
        digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
        stable = f'  url "{address}"\n  sha256 "{digest}"\n'
    return TEMPLATE.format(repository=repository(), stable=stable, python=PYTHON)


def requirements() -> str:
    """Every package of the formula with its pinned version and sha256 sums, found by uv.

    Versions of the build backend, which constraints.txt does not pin, are kept if the file has
    some.

    Raises:
        RuntimeError: uv cannot resolve them; the message has what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="baldwhisper-formula-") as temporary:
        backend = Path(temporary) / "backend.in"
        backend.write_text(f"{BUILD_BACKEND}\n", encoding="utf-8")
        output = Path(temporary) / "requirements.txt"
        if REQUIREMENTS.exists():
            output.write_bytes(REQUIREMENTS.read_bytes())
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header"]
        command += ["--generate-hashes", "--no-annotate", "--only-binary", ":all:"]
        command += ["--python-platform", "aarch64-apple-darwin", "--python-version", PYTHON]
        command += ["--constraint", str(CONSTRAINTS), "--output-file", str(output)]
        done = subprocess.run(
            [*command, str(PROJECT), str(backend)],
            env=os.environ | {"MACOSX_DEPLOYMENT_TARGET": MACOS},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"uv could not find the formula's packages:\n{done.stderr}")
        return HEADER + output.read_text(encoding="utf-8")


def write(path: Path, text: str) -> None:
    """Writes a file under a temporary name and renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.tmp")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
    print(path)


def main() -> None:
    """Parses the command line and writes what it asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sdist", type=Path, help="of the release, to write a formula for it")
    parser.add_argument("--output", type=Path, help="where that formula is written")
    arguments = parser.parse_args()
    if (arguments.sdist is None) != (arguments.output is None):
        parser.error("--sdist and --output go together")
    try:
        if arguments.sdist is not None:
            write(arguments.output, formula(arguments.sdist))
        else:
            write(REQUIREMENTS, requirements())
            write(FORMULA, formula())
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
