"""Checks that a tag may be released, and writes what CHANGELOG.md says about it.

    python scripts/release_notes.py v0.1.0 --output notes.md

The tag has to be `v` and the version of baldwhisper_mlx/_version.py, and the version has to have a
dated section in CHANGELOG.md. The release workflow runs this before it builds anything. Standard
library only.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)
_SECTION = re.compile(r"^## \[(?P<version>[^\]]+)\] - (?P<date>.+)$", re.MULTILINE)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def read_version(root: Path = ROOT) -> str:
    """The version in baldwhisper_mlx/_version.py.

    Raises:
        ValueError: the file has none.
    """
    path = root / "baldwhisper_mlx" / "_version.py"
    match = _VERSION.search(path.read_text(encoding="utf-8"))
    if match is None:
        raise ValueError(f'{path}: no line __version__ = "..."')
    return match[1]


def release_notes(tag: str, version: str, changelog: str) -> str:
    """The section of the changelog about a version, without its heading.

    Args:
        tag: such as "v0.1.0".
        version: of the package.
        changelog: text in the format of Keep a Changelog.

    Raises:
        ValueError: tag and version differ, or the section is missing, undated or empty.
    """
    if tag != f"v{version}":
        raise ValueError(f"tag {tag}, but baldwhisper_mlx/_version.py says {version}")
    sections = list(_SECTION.finditer(changelog))
    for i, section in enumerate(sections):
        if section["version"] != version:
            continue
        if not _DATE.fullmatch(section["date"].strip()):
            raise ValueError(
                f"CHANGELOG.md: {version} is dated {section['date']!r}; write the day of the "
                "release as YYYY-MM-DD"
            )
        end = sections[i + 1].start() if i + 1 < len(sections) else len(changelog)
        notes = changelog[section.end() : end].strip()
        if not notes:
            raise ValueError(f"CHANGELOG.md: the section [{version}] is empty")
        return notes + "\n"
    raise ValueError(f"CHANGELOG.md: no section ## [{version}] - YYYY-MM-DD")


def main() -> None:
    """Parses the command line and ends with 1 if the tag may not be released."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("tag")
    parser.add_argument("--output", type=Path, help="a file for the notes; by default printed")
    arguments = parser.parse_args()
    try:
        changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        notes = release_notes(arguments.tag, read_version(), changelog)
    except ValueError as error:
        sys.exit(f"error: {error}")
    if arguments.output is None:
        print(notes, end="")
        return
    partial = arguments.output.with_name(f".{arguments.output.name}.tmp")
    partial.write_text(notes, encoding="utf-8")
    os.replace(partial, arguments.output)


if __name__ == "__main__":
    main()
