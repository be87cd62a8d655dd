"""Which audio prepared data was made from, file by file, so that a replaced file can be named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from baldwhisper_mlx.files import write_atomically

AUDIO_FILE = "audio.jsonl"
"""In the folder of prepared data: `file` and `audio`, a hash of the content, of each utterance."""

_DIGITS = 16


class Named(Protocol):
    """An utterance."""

    @property
    def name(self) -> str:
        """File name, or number in the dataset."""
        ...

    def content(self) -> bytes:
        """Hash of the audio."""
        ...


class AudioFingerprint(str):
    """Identifies the content of audio files, wherever they are and whenever they were written.

    16 hexadecimal digits; `files` has the name and the hash of each file.
    """

    files: list[tuple[str, str]]

    @classmethod
    def of(cls, utterances: Iterable[Named]) -> AudioFingerprint:
        """Computes it from the audio; see `Utterance.content`.

        Raises:
            FileNotFoundError: a file is missing.
        """
        digest, files = hashlib.sha256(), []
        for utterance in utterances:
            content = utterance.content()
            digest.update(content)
            files.append((utterance.name, content.hex()[:_DIGITS]))
        fingerprint = cls(digest.hexdigest()[:_DIGITS])
        fingerprint.files = files
        return fingerprint

    def write(self, folder: Path) -> None:
        """Writes `AUDIO_FILE` to a folder that has none."""
        if not (folder / AUDIO_FILE).exists():
            rows = (json.dumps({"file": name, "audio": audio}) for name, audio in self.files)
            write_atomically(folder / AUDIO_FILE, "".join(f"{row}\n" for row in rows))


def replaced_files(folder: Path, now: str) -> str:
    """What is known about files that were replaced since a folder was prepared, for a message.

    Args:
        folder: of prepared data of the same utterances, but from other audio.
        now: the fingerprint of the audio now.
    """
    unnamed = "files of the same names have been replaced since"
    try:
        lines = (folder / AUDIO_FILE).read_text(encoding="utf-8").splitlines()
        before = [str(json.loads(line)["audio"]) for line in lines]
    except (OSError, ValueError, KeyError, TypeError):
        return unnamed  # data of an earlier version, or of an interrupted run
    files = now.files if isinstance(now, AudioFingerprint) else []
    if len(files) != len(before):
        return unnamed
    changed = [name for (name, audio), old in zip(files, before, strict=True) if audio != old]
    if not changed:
        return unnamed
    more = f" and {len(changed) - 1} others have" if len(changed) > 1 else " has"
    return f"{changed[0]}{more} been replaced since"
