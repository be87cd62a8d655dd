"""Where transcripts go: output names decided before any work, files written whole or not at all.

Hours of decoding must not end in "file exists", and a transcript must not replace another
one because two recordings share a name. Everything that can be refused is refused here,
up front. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

STDIN = "-"
"""The input name that means standard input; its outputs are named `stdin`."""


def plan_outputs(
    inputs: Sequence[str], folder: Path, extensions: Sequence[str], *, force: bool
) -> list[dict[str, Path]]:
    """Chooses an output path for every input and format, before anything is decoded.

    An output is named after its input without the extension. Where that name is taken, by
    an earlier input of the same stem, `-2`, `-3` and so on are appended in the order of the
    command line. Names that differ only in case or in Unicode composition count as the
    same, because they are the same file on a Mac.

    Args:
        inputs: audio paths, or `-`.
        folder: where outputs go; it is not touched.
        extensions: one per format, without the dot.
        force: whether files that exist may be replaced.

    Returns:
        Per input, extension to output path.

    Raises:
        ValueError: an output would replace an input or a folder.
        FileExistsError: outputs exist and `force` is not set; the message names them.
    """
    plan = [
        {extension: folder / f"{stem}.{extension}" for extension in extensions}
        for stem in _distinct_stems([_stem(name) for name in inputs])
    ]
    paths = [path for outputs in plan for path in outputs.values()]
    sources = {os.path.realpath(name) for name in inputs if name != STDIN}
    for path in paths:
        if os.path.realpath(path) in sources:
            raise ValueError(f"{path}: the output would replace an input; use another folder")
        if path.is_dir():
            raise ValueError(f"{path}: a folder is in the place of the output; remove it")
    existing = [str(path) for path in paths if os.path.lexists(path)]
    if existing and not force:
        raise FileExistsError(
            f"{', '.join(existing)}: already there; use --force to replace, or another --output-dir"
        )
    return plan


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


def _stem(name: str) -> str:
    return "stdin" if name == STDIN else Path(name).stem


def _distinct_stems(stems: Sequence[str]) -> list[str]:
    """The stems with `-2`, `-3`, ... after repeated ones; never a name another input has."""
    wanted = {_same(stem) for stem in stems}
    taken: set[str] = set()
    distinct = []
    for stem in stems:
        name, count = stem, 1
        while _same(name) in taken or (count > 1 and _same(name) in wanted):
            count += 1
            name = f"{stem}-{count}"
        taken.add(_same(name))
        distinct.append(name)
    return distinct


def _same(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())


def _temporary(folder: Path) -> Path:
    # Not derived from the output's name, which may be as long as the file system allows.
    return folder / f".baldwhisper-{os.getpid()}-{secrets.token_hex(4)}.tmp"
