"""Which files are meant: folders, patterns and single names. Standard library only."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from baldwhisper_mlx.outputs import STDIN

SUFFIXES = frozenset(
    (".aac", ".aif", ".aiff", ".au", ".caf", ".flac", ".m4a", ".m4b", ".mka", ".mkv", ".mov",
     ".mp3", ".mp4", ".mpeg", ".mpga", ".oga", ".ogg", ".opus", ".w64", ".wav", ".webm", ".wma")
)  # fmt: skip
"""What a file in a folder is taken for audio by; a file that is named may be called anything."""


def expand(names: Sequence[str]) -> list[str]:
    """Files for names on the command line, in their order, each once.

    A folder stands for the audio files in it and below, sorted, without hidden ones; a pattern
    such as `talks/*.mp3` or `talks/**/*.mp3` for the files that fit it. A name that stands for no
    file stays as it is, so that whoever reads it says what is wrong with it.

    Example:
        >>> expand(["-", "no-such-file.wav"])
        ['-', 'no-such-file.wav']
    """
    return list(dict.fromkeys(file for name in names for file in _files(name) or [name]))


def _files(name: str) -> list[str]:
    path = Path(name)
    if name == STDIN or path.is_file():
        return [name]
    if path.is_dir():
        return _audio_below(path)
    if not glob.has_magic(name):
        return []
    return [file for file in sorted(glob.glob(name, recursive=True)) if Path(file).is_file()]


def _audio_below(folder: Path) -> list[str]:
    def is_hidden(path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(folder).parts)

    return [
        str(path)
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and not is_hidden(path) and path.is_file()
    ]
