"""Where transcripts go: output names decided before any work, files written whole or not at all.

Hours of decoding must not end in "file exists", and a transcript must not replace another
one because two recordings share a name. Everything that can be refused is refused here,
up front. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path


def prepare_folder(folder: Path) -> None:
    """Creates the folder if need be and makes sure that files can be created in it.

    Raises:
        ValueError: it cannot be created or written to; the message names it and says why.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file, not a folder to write to")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Only creating a file tells: permission bits say nothing about root or network drives.
        probe = _temporary(folder)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise ValueError(f"{folder}: cannot write to this folder ({error.strerror})") from None


def write_files(texts: Mapping[Path, str], *, force: bool) -> None:
    """Writes UTF-8 texts, each whole or not at all, whatever interrupts.

    All are written under temporary names in their own folders first and renamed last.

    Raises:
        FileExistsError: a path has come to exist since it was planned, and `force` is not set.
        OSError: the disk is full or gone.
    """
    temporary = {path: _temporary(path.parent) for path in texts}
    try:
        for path, text in texts.items():
            temporary[path].write_bytes(text.encode("utf-8"))
        for path, written in temporary.items():
            if not force and os.path.lexists(path):
                raise FileExistsError(f"{path}: appeared in the meantime and is left as it is")
            os.replace(written, path)
    finally:
        for written in temporary.values():
            with contextlib.suppress(FileNotFoundError):
                written.unlink()


def _temporary(folder: Path) -> Path:
    # Not derived from the output's name, which may be as long as the file system allows.
    return folder / f".baldwhisper-{os.getpid()}-{secrets.token_hex(4)}.tmp"
