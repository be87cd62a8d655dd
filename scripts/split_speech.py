"""Splits labelled speech: clips to train on, clips that choose, and clips that are reported.

Whoever chooses settings, stages or the best evaluation of a training by some clips must not report
errors on the same clips: the lowest of several figures is too low. This writes lists of the parts:

    python scripts/split_speech.py SPEECH lists train=8 select=1 report=1

`lists/train.jsonl` is for the training data of a recipe, `lists/select.jsonl` for its development
data, and `lists/report.jsonl` for `baldwhisper evaluate`. The numbers are their shares of the
clips. Without any, the clips are split in halves, select and report. Which list a clip is in
depends on its file name and the shares only, so the split is the same everywhere, and stays the
same when clips are added. The recordings stay where they are.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from baldwhisper_mlx.audio.speech_dataset import audio_of, read_rows
from baldwhisper_mlx.output.json_lines import write_json_lines

HALVES = {"select": 1, "report": 1}


def part_of(name: str, shares: Mapping[str, int] = HALVES) -> str:
    """The part that a clip belongs to, by the SHA-256 digest of its file name.

    Args:
        name: of the file, without its folder.
        shares: the relative size of each part.

    Example:
        >>> part_of("clip-0.wav"), part_of("clip-1.wav")
        ('select', 'report')
    """
    names = [part for part, share in shares.items() for _ in range(share)]
    digest = hashlib.sha256(name.encode("utf-8")).digest()
    return names[int.from_bytes(digest, "big") % len(names)]


def split(source: str, folder: Path, shares: Mapping[str, int] = HALVES) -> dict[str, int]:
    """Writes the lists of all parts.

    Args:
        source: a folder or list as `read_rows` reads it.
        folder: for a file PART.jsonl of each part.
        shares: the relative size of each part.

    Returns:
        The number of clips in each.

    Raises:
        FileNotFoundError: no such source.
        ValueError: clips that are not files, that have the same name, or too few for all parts.
    """
    rows, base = read_rows(source)
    listed: dict[str, list[dict[str, Any]]] = {part: [] for part in shares}
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
        listed[part_of(path.name, shares)].append(plain | {"file_name": str(path)})
    if not all(listed.values()):
        raise ValueError(f"{source}: {len(names)} clips are too few to split")
    folder.mkdir(parents=True, exist_ok=True)
    for part, own in listed.items():
        write_json_lines(folder / f"{part}.jsonl", own)
    return {part: len(own) for part, own in listed.items()}


def parse_shares(items: Sequence[str]) -> dict[str, int]:
    """Parses `train=8 select=1`.

    Raises:
        ValueError: an item of another form, a share below 1, or one part alone or twice.
    """
    shares = {}
    for item in items:
        name, _, share = item.partition("=")
        if not re.fullmatch(r"[\w-]+", name) or not re.fullmatch("[1-9][0-9]{0,3}", share):
            raise ValueError(f"{item}: expected NAME=SHARE, such as train=8")
        shares[name] = int(share)
    if len(shares) < max(2, len(items)):
        raise ValueError("name at least two different parts")
    return shares


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="folder or list of recordings with their transcripts")
    parser.add_argument("folder", type=Path, help="for the lists, one for each part")
    parser.add_argument("parts", nargs="*", metavar="NAME=SHARE",
                        help="a part and its share; by default select=1 report=1")  # fmt: skip
    arguments = parser.parse_args()
    try:
        shares = parse_shares(arguments.parts) if arguments.parts else HALVES
        counts = split(arguments.source, arguments.folder, shares)
    except (OSError, ValueError) as error:
        print(f"split_speech.py: {error}", file=sys.stderr)
        return 1
    for part, count in counts.items():
        print(f"{arguments.folder / part}.jsonl: {count} clips")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
