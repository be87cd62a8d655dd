"""Splits labelled speech in two: clips that choose, and clips that are reported.

Whoever chooses settings, stages or the best evaluation of a training by some clips must not report
errors on the same clips: the lowest of several figures is too low. This writes two lists:

    python scripts/split_speech.py SPEECH lists

`lists/select.jsonl` is for the development data of a recipe, `lists/report.jsonl` for `baldwhisper
evaluate`. Which list a clip is in depends on its file name only, so the split is the same
everywhere and stays the same when clips are added. The recordings stay where they are.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

from baldwhisper_mlx.audio.speech_dataset import audio_of, read_rows
from baldwhisper_mlx.files import write_atomically

PARTS = ("select", "report")


def part_of(name: str) -> str:
    """The part that a clip belongs to: the parity of the SHA-256 digest of its file name.

    Args:
        name: of the file, without its folder.

    Example:
        >>> part_of("clip-0.wav"), part_of("clip-1.wav")
        ('select', 'report')
    """
    return PARTS[hashlib.sha256(name.encode("utf-8")).digest()[-1] % 2]


def split(source: str, folder: Path) -> dict[str, int]:
    """Writes the lists of both parts.

    Args:
        source: a folder or list as `read_rows` reads it.
        folder: for select.jsonl and report.jsonl.

    Returns:
        The number of clips in each.

    Raises:
        FileNotFoundError: no such source.
        ValueError: clips that are not files, that have the same name, or too few for two parts.
    """
    rows, base = read_rows(source)
    lines: dict[str, list[str]] = {part: [] for part in PARTS}
    names: set[str] = set()
    for row in rows:
        audio = audio_of(row, "audio", base)
        if not isinstance(audio, str):
            raise ValueError(f"{source}: only lists of files can be split")
        path = Path(audio).resolve()
        if path.name in names:
            raise ValueError(f"{source}: two files are called {path.name}; give them other names")
        names.add(path.name)
        plain = {key: value for key, value in row.items() if key not in ("path", "audio")}
        line = json.dumps(plain | {"file_name": str(path)}, ensure_ascii=False)
        lines[part_of(path.name)].append(f"{line}\n")
    if not all(lines.values()):
        raise ValueError(f"{source}: {len(names)} clips are too few to split")
    folder.mkdir(parents=True, exist_ok=True)
    for part, own in lines.items():
        write_atomically(folder / f"{part}.jsonl", "".join(own))
    return {part: len(own) for part, own in lines.items()}


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="folder or list of recordings with their transcripts")
    parser.add_argument("folder", type=Path, help="for the lists select.jsonl and report.jsonl")
    arguments = parser.parse_args()
    try:
        counts = split(arguments.source, arguments.folder)
    except (OSError, ValueError) as error:
        print(f"split_speech.py: {error}", file=sys.stderr)
        return 1
    for part, count in counts.items():
        print(f"{arguments.folder / part}.jsonl: {count} clips")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
