"""Downloads free English texts and splits them into sentences for synthetic speech.

The texts are packages of Debian and npm, whose clients (apt-get, dpkg-deb and npm) must be
installed. `speech_sources.py` lists their contents and licences.

    python scripts/get_texts.py --output texts

writes texts/sentences.jsonl with a line per sentence, in the order of the texts:
{"text", "source", "licence", "document", "index"}. Packages stay in texts/packages.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path

from speech_sources import SOURCES, Source
from speech_text import normalized_words, sentences_of

SENTENCES_FILE = "sentences.jsonl"


def _call(command: list[str], folder: Path, source: Source) -> None:
    """Runs a client; RuntimeError if it is not installed or fails."""
    if shutil.which(command[0]) is None:
        raise RuntimeError(f"{source.package} is fetched with {command[0]}, which is not installed")
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{finished.stderr.strip()[-2000:]}")


def download(source: Source, folder: Path) -> Path:
    """Downloads a package into `folder` with its registry's client, unless it is there.

    Raises:
        RuntimeError: no client, no package, or a file with another SHA-256.
    """
    stem = source.package.replace("@", "").replace("/", "-")
    target = folder / f"{stem}.{'deb' if source.client == 'apt' else 'tgz'}"
    if not target.is_file():
        with tempfile.TemporaryDirectory(dir=folder) as name:
            if source.client == "apt":
                command = ["apt-get", "download", f"{source.package}={source.version}"]
            else:
                command = ["npm", "pack", "--silent", f"{source.package}@{source.version}"]
            _call(command, Path(name), source)
            next(Path(name).iterdir()).replace(target)
    actual = hashlib.sha256(target.read_bytes()).hexdigest()
    if actual != source.sha256:
        raise RuntimeError(
            f"{target}: SHA-256 {actual} is not that of {source.package} {source.version} "
            f"({source.sha256}); delete the file and try again"
        )
    return target


def unpack(source: Source, package: Path, folder: Path) -> None:
    """Unpacks a .deb (dpkg-deb) or a .tgz into `folder`."""
    if source.client == "apt":
        _call(["dpkg-deb", "-x", str(package.resolve()), str(folder.resolve())], folder, source)
    else:
        with tarfile.open(package) as archive:
            # Only files inside the folder; not every Python 3.10 has the "data" filter.
            inside = [m for m in archive.getmembers() if m.isfile() and ".." not in m.name]
            archive.extractall(folder, members=[m for m in inside if not m.name.startswith("/")])


def lines_of(source: Source, folder: Path, seen: set[tuple[str, ...]]) -> list[str]:
    """The JSON lines of one unpacked package, without sentences that occurred before."""
    lines = []
    for document, text in source.read(folder):
        for index, sentence in sentences_of(text):
            words = tuple(normalized_words(sentence))
            if words in seen:
                continue
            seen.add(words)
            row = {"text": sentence, "source": source.name, "licence": source.licence}
            lines.append(json.dumps({**row, "document": document, "index": index}) + "\n")
    return lines


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the sentences")
    parser.add_argument("--force", action="store_true", help="overwrite sentences.jsonl")
    arguments = parser.parse_args()
    target = arguments.output / SENTENCES_FILE
    if target.exists() and not arguments.force:
        sys.exit(f"{target} exists; --force overwrites it")
    packages = arguments.output / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    counts: Counter[str] = Counter()
    seen: set[tuple[str, ...]] = set()
    for source in SOURCES:
        try:
            with tempfile.TemporaryDirectory(dir=packages) as name:
                unpack(source, download(source, packages), Path(name))
                new = lines_of(source, Path(name), seen)
        except (RuntimeError, OSError, ValueError) as error:
            sys.exit(f"get_texts: {source.name}: {error}")
        counts[source.name] = sum(len(json.loads(line)["text"].split()) for line in new)
        print(f"{source.name}: {len(new)} sentences, {counts[source.name]} words")
        lines += new
    temporary = target.with_suffix(".partial")
    temporary.write_text("".join(lines), "utf-8")
    temporary.replace(target)
    print(f"{target}: {len(lines)} sentences, {counts.total()} words")


if __name__ == "__main__":
    main()
