"""What is to be decoded, as one open file that can be read at any position.

Decoders get this open file and never a name, so that names in any encoding work and nothing can be
opened by a name that a recording contains. Standard library only.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

_BLOCK = 2**20
"""Bytes copied at a time."""


def no_check() -> None:
    """What is called before every block by default: nothing."""


@contextlib.contextmanager
def open_source(
    source: str | Path | BinaryIO, check: Callable[[], None] = no_check
) -> Iterator[tuple[io.FileIO, str]]:
    """Opens a recording.

    Pipes and streams are copied to a temporary file without a name, which no way of ending the
    program leaves behind. An unbuffered file at its start is read itself.

    Args:
        source: a path, also of a pipe such as `/dev/stdin`; or a binary stream, read to its end.
        check: called before every block that is copied; what it raises ends the copying.

    Yields:
        The file, unbuffered and at its start; and the name of the source for messages.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: a stream of text.
        ValueError: a folder, a device, a socket, an empty file.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(source, (str, os.PathLike)):
            name = str(source)
            _check_kind(name)
            # A pipe is opened when its writer has opened it.
            file = stack.enter_context(open(source, "rb", buffering=0))
            if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                file = stack.enter_context(_copied(file, name, check))
        else:
            name = str(getattr(source, "name", "<stream>"))
            if isinstance(source, io.FileIO) and _is_whole_file(source):
                file = source
                stack.callback(file.seek, 0, os.SEEK_END)
            else:
                file = stack.enter_context(_copied(source, name, check))
        if os.fstat(file.fileno()).st_size == 0:
            raise ValueError(f"{name}: the file is empty")
        yield file, name


def _check_kind(name: str) -> None:
    try:
        mode = os.stat(name).st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"{name}: no such file") from None
    except ValueError as error:  # a null character
        raise ValueError(f"{name!r}: not the name of a file ({error})") from None
    if stat.S_ISDIR(mode):
        raise ValueError(f"{name}: is a folder, not an audio file")
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
        kind = "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise ValueError(f"{name}: is {kind}, not an audio file")


def _is_whole_file(source: io.FileIO) -> bool:
    """Whether a stream is a regular file at its start, rather than a pipe or the rest of one."""
    is_regular = source.readable() and stat.S_ISREG(os.fstat(source.fileno()).st_mode)
    return is_regular and source.tell() == 0


@contextlib.contextmanager
def _copied(source: BinaryIO, name: str, check: Callable[[], None]) -> Iterator[io.FileIO]:
    """The rest of a stream in a temporary file."""
    # Without a buffer, because decoders read by the descriptor as well.
    with tempfile.TemporaryFile(buffering=0) as copy:
        while True:
            check()
            data = source.read(_BLOCK)
            if data is None:
                raise ValueError(f"{name}: a non-blocking stream without data; make it blocking")
            if not isinstance(data, (bytes, bytearray, memoryview)):
                raise TypeError(f"{name}: a stream of text; open it in binary mode ('rb')")
            if not data:
                break
            copy.write(data)
        copy.seek(0)
        yield copy
