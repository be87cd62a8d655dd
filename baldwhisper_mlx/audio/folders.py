"""The audio files of a folder. Standard library only."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = frozenset(
    (".3gp", ".aac", ".aif", ".aiff", ".amr", ".au", ".avi", ".caf", ".flac", ".flv", ".m4a",
     ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp3", ".mp4", ".mpeg", ".mpg", ".mpga", ".oga",
     ".ogg", ".opus", ".w64", ".wav", ".webm", ".wma", ".wmv", ".wv")
)  # fmt: skip
"""Endings of the files in a folder that are taken for audio; a file given by name may have any."""


def audio_files(folder: Path) -> list[Path]:
    """The audio files in a folder and below it, sorted by path, without hidden ones."""

    def is_hidden(path: Path) -> bool:
        return any(part.startswith(".") for part in path.relative_to(folder).parts)

    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and not is_hidden(path) and path.is_file()
    ]
