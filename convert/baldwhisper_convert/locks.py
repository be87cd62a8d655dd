"""Locks a folder for one process, so that two runs never write to it at the same time.

A lock is a file in the folder that the operating system locks. It is released when the process
ends, however it ends, so a killed run leaves nothing that must be removed by hand.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

LOCK_FILE = ".lock"
"""In the locked folder; it holds the number and machine of the process."""


@contextlib.contextmanager
def lock_folder(folder: Path, doing: str, *, wait: float = 0.0) -> Iterator[None]:
    """Locks a folder for this process inside the block; the folder is created if it is missing.

    Args:
        folder: to lock.
        doing: what is done there, for the message to another process, such as "trains".
        wait: seconds to wait for another process that has locked it.

    Raises:
        BlockingIOError: another process has locked it; the message names both.
        OSError: the folder or the file cannot be created.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait)
    except Timeout:
        raise BlockingIOError(
            f"{folder}: {_holder(path)} {doing} here; wait for it, end it, or give another folder"
        ) from None
    try:
        path.write_text(f"{os.getpid()} on {platform.node()}", encoding="utf-8")
        yield
    finally:
        # Before the release, or it could be the next process's file that is removed.
        path.unlink(missing_ok=True)
        lock.release()


def check_single_process(command: str) -> None:
    """Refuses several processes for a command that works in one.

    torchrun and `accelerate launch` start several, and each would do all the
    work in the same folder.

    Args:
        command: its name, for the message.

    Raises:
        ValueError: this is one of several processes.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1":
        raise ValueError(
            f"`{command}` works in one process, but {processes} were started for it (WORLD_SIZE); "
            "start it without torchrun or accelerate. `prepare`, `finetune`, `distill` and `run` "
            "work in several"
        )


def _holder(path: Path) -> str:
    """The process that has the lock, as far as its file tells."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = path.read_text(encoding="utf-8").strip()
        if text:
            return f"another process ({text})"
    return "another process"
