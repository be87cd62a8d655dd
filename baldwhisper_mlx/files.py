"""Writes files and folders completely or not at all, and reads JSON files.

Everything is built under a temporary name in the folder it belongs to and renamed at the end,
so that an interrupted program leaves either the old content or the new one. Both packages and
the benchmarks use this module. Standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from baldwhisper_mlx.bounds import MOST_JSON_BYTES, read_bounded
from baldwhisper_mlx.terminal import quoted

TEMPORARY_FILES = ".baldwhisper-*.tmp"
"""Shell pattern of the names under which files are built; a killed process may leave one."""

_MOST_DIGITS = 100


def read_json(path: Path, most: int = MOST_JSON_BYTES) -> Any:
    """Parses a JSON file.

    Args:
        path: a regular file.
        most: bytes that it may have.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, has a key twice in one object, is too large, or is a folder,
            pipe or device; the message names the file.
    """
    try:
        return parse_json(read_bounded(path, most))
    except (ValueError, RecursionError) as error:
        message = str(error)
        if message.startswith(f"{path}: "):
            raise
        raise ValueError(f"{path}: not valid JSON ({message})") from None


def parse_json(content: bytes) -> Any:
    """Parses JSON, and refuses a repeated key, which Python's parser lets pass.

    Args:
        content: UTF-8.

    Raises:
        ValueError: not JSON, a number with thousands of digits, or a key that occurs twice in one
            object, of which the first value would be lost.
        RecursionError: nested too deeply.

    Example:
        >>> parse_json(b'{"a": 1}')
        {'a': 1}
    """
    return json.loads(content.decode("utf-8"), object_pairs_hook=_object, parse_int=_whole)


def _whole(text: str) -> int:
    # Python takes seconds for numbers of a million digits, and some of its releases refuse them
    # with advice that is of no use here.
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {quoted(twice)} occurs twice")
    return result


def peek_json(path: Path, most: int = MOST_JSON_BYTES) -> dict[str, Any]:
    """The JSON object in a file of unknown format; empty if the file holds none.

    Args:
        path: any path.
        most: bytes that it may have.
    """
    try:
        content = read_json(path, most)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def prepare_folder(folder: Path) -> None:
    """Creates the folder if it is missing and checks that files can be created in it.

    Raises:
        ValueError: it cannot be created or written to; the message names it and says why.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file, not a folder to write to")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Only creating a file shows it: permission bits do not apply to root or network drives.
        probe = _temporary(folder)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise ValueError(f"{folder}: cannot write to this folder ({error.strerror})") from None


@contextlib.contextmanager
def atomic_file(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which replaces `path` when the block succeeds.

    If the block raises, `path` is unchanged and the temporary file is deleted. Nothing is
    flushed to the disk: this protects against interruptions, not against power failures.

    Args:
        path: the file to write; its folder must exist.
        overwrite: replace an existing file.

    Raises:
        FileExistsError: `path` exists at the end of the block and `overwrite` is not set.
        OSError: the temporary file cannot be renamed.

    Example:
        >>> with atomic_file(path) as temporary:  # doctest: +SKIP
        ...     torch.save(state, temporary)
    """
    temporary = _temporary(path.parent)
    try:
        yield temporary
        if not overwrite and os.path.lexists(path):
            raise FileExistsError(f"{path}: created by another program meanwhile; not replaced")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a new empty folder beside `path`, which replaces `path` when the block succeeds.

    An existing folder is renamed first and deleted last, so that one of the two is always
    there; missing parents are created. If the block raises, `path` is unchanged. If the process
    is killed, the next call with the same `path`, or `restore_folder`, puts things right.

    Args:
        path: the folder to make or replace.

    Raises:
        OSError: a folder cannot be created or renamed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    restore_folder(path)
    temporary, backup = _beside(path, "tmp"), _beside(path, "old")
    # Not tempfile.mkdtemp: it makes folders that only their owner can read.
    _IN_USE.update((temporary, backup))
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.rename(backup)
        try:
            temporary.rename(path)
        except BaseException:
            if backup.exists():
                backup.rename(path)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _IN_USE.difference_update((temporary, backup))
    if backup.exists():
        shutil.rmtree(backup)


_IN_USE: set[Path] = set()
"""Folders that this process is replacing or building right now."""


def restore_folder(path: Path) -> None:
    """Puts right what a process that was killed in `atomic_folder(path)` left behind.

    The old folder comes back if it was moved away and the new one not yet in its place; what is
    half built, and old folders that have been replaced, are deleted. Folders of processes that
    still run, and of other machines that build the same, are left alone.

    Args:
        path: the folder that was to be replaced.

    Raises:
        OSError: the old folder cannot be renamed.
    """
    if not path.parent.is_dir():
        return
    ended = [
        left
        for left in path.parent.glob(f".baldwhisper-{_digest(path.name)}-*")
        if left.suffix in (".tmp", ".old") and not _may_be_in_use(left)
    ]
    backups = sorted(
        (left for left in ended if left.suffix == ".old"), key=lambda left: left.stat().st_mtime
    )
    if backups and not os.path.lexists(path):
        backups[-1].rename(path)
    for left in ended:
        shutil.rmtree(left, ignore_errors=True)


def _may_be_in_use(left: Path) -> bool:
    """Whether the process that made a temporary folder may be running still."""
    if left in _IN_USE:
        return True
    try:
        machine, process = left.stem.split("-")[2:4]
        number = int(process)
    except ValueError:
        return True
    if machine != _digest(platform.node()):
        # Only the old folder of a finished or killed replacement, and then it matters, is touched.
        return left.suffix != ".old"
    if number == os.getpid():
        return False
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        return True
    return True


def write_atomically(path: Path, text: str) -> None:
    """Writes a UTF-8 text file; line ends stay as they are.

    Raises:
        OSError: it cannot be written.
    """
    with atomic_file(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_files(texts: Mapping[Path, str], *, force: bool) -> None:
    """Writes several UTF-8 text files; none is renamed before all have been written.

    Args:
        texts: the contents by path.
        force: replace existing files.

    Raises:
        FileExistsError: a path exists and `force` is not set.
        OSError: a file cannot be written, for example because the disk is full.
    """
    with contextlib.ExitStack() as stack:
        # Entered backwards, because a stack renames the last one first.
        temporary = {
            path: stack.enter_context(atomic_file(path, overwrite=force))
            for path in reversed(list(texts))
        }
        for path, text in texts.items():
            temporary[path].write_bytes(text.encode("utf-8"))


def _temporary(folder: Path) -> Path:
    # Not derived from the output's name, which may be as long as the file system allows.
    return folder / f".baldwhisper-{os.getpid()}-{secrets.token_hex(4)}.tmp"


def _beside(path: Path, suffix: str) -> Path:
    """A temporary path beside `path` that tells what it is for and which process made it."""
    # Hashed, because a name may be as long as the file system allows already.
    marks = f"{_digest(path.name)}-{_digest(platform.node())}-{os.getpid()}"
    return path.parent / f".baldwhisper-{marks}-{secrets.token_hex(4)}.{suffix}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]
