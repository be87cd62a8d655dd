"""Receives a form: text fields, and one file that goes to disk block by block.

The file has no name, so that no way of ending the program leaves it behind, and what the client
calls it is not used. starlette and python-multipart parse the form and limit its headers.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.audio.recording import TooLongError
from baldwhisper_mlx.server.errors import CLOSE, ApiError, bad_value
from baldwhisper_mlx.terminal import message_of

_NAME = "file"
_MOST_FIELDS = 200
_LONGEST_FIELD = 2**16
_FIELDS_ROOM = 2**20
"""Bytes that a form may have beside its file."""
_DISCARDED = 2**24
"""Bytes of a refused body that are read; the connection of a larger one is closed."""
_DISCARD_SECONDS = 1.0
"""Until more of a refused body has to come."""
BLOCK_SECONDS = 30.0
"""Until a client has to send something."""
_SECONDS = 60.0
_SLOWEST = 2**13
"""Bytes per second that a client has to send, after the first minute."""


@dataclass(frozen=True)
class Form:
    """A form that has been received."""

    fields: list[tuple[str, str]]
    file: BinaryIO

    def samples(
        self,
        check: Callable[[], None],
        max_duration: float,
        on_warning: Callable[[Warning], None],
    ) -> Samples:
        """The audio in the file, whose content decides the format.

        Args:
            check: called before every block; what it raises ends the decoding.
            max_duration: seconds.
            on_warning: called with what the client should know of it.

        Raises:
            ApiError: it is not audio that can be decoded.
            TooLongError: it is longer than that.
        """
        try:
            with _opened(self.file) as file:
                return load_audio(
                    file, check=check, max_duration=max_duration, on_warning=on_warning
                )
        except TooLongError:
            raise
        except ValueError as error:
            raise bad_value(_NAME, message_of(error)) from None


@contextlib.contextmanager
def _opened(file: BinaryIO) -> Iterator[io.FileIO]:
    """The temporary file itself, of which decoders read any part without another copy.

    It is open until the end of the block, even if the form is deleted meanwhile.
    """
    descriptor = os.dup(file.fileno())  # which writes a small one to disk
    file.flush()
    with io.FileIO(descriptor) as opened:
        opened.seek(0)
        opened.name = _NAME  # in messages: the field, and no path
        yield opened


@asynccontextmanager
async def received_form(request: Request, limit: int) -> AsyncIterator[Form]:
    """Receives the form of a request; its file is deleted at the end of the block.

    Args:
        request: whose body has not been read.
        limit: bytes of the file.

    Raises:
        ApiError: no form (415), too large (413), too slow (408), damaged, or without a file (400).
        ClientDisconnect: the client has gone away.
    """
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data":
        raise ApiError(
            415,
            "send a form: the Content-Type must be multipart/form-data",
            code="not_a_form",
            headers=CLOSE,
        )
    most = limit + _FIELDS_ROOM
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and (len(stated) > 15 or int(stated) > most):
        raise _too_large(limit)
    parser = MultiPartParser(
        request.headers,
        _blocks(request, most, limit),
        max_files=1,
        max_fields=_MOST_FIELDS,
        max_part_size=_LONGEST_FIELD,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise ApiError(400, f"the form is damaged: {error.message}", code="bad_form") from None
    try:
        items = form.multi_items()
        files = [value for name, value in items if name == _NAME and isinstance(value, UploadFile)]
        if not files:
            raise ApiError(
                400, "file: send the audio as a file in this field", param=_NAME, code="missing"
            )
        if (files[0].size or 0) > limit:
            raise _too_large(limit, unread=False)
        fields = [(name, value) for name, value in items if isinstance(value, str)]
        yield Form(fields, files[0].file)
    finally:
        await form.close()


async def discard_body(request: Request) -> None:
    """Reads the rest of a small body, whose client would not see an answer before its end.

    Args:
        request: whose body has not been read to its end.
    """
    stated = request.headers.get("content-length", "0")
    if not stated.isdecimal() or len(stated) > 15 or int(stated) > _DISCARDED:
        return
    with contextlib.suppress(ApiError, ClientDisconnect):
        blocks = _blocks(request, _DISCARDED, _DISCARDED, _DISCARD_SECONDS)
        async for _ in blocks:
            pass


async def _blocks(
    request: Request, most: int, limit: int, patience: float | None = None
) -> AsyncGenerator[bytes, None]:
    """The body of a request, whose size and time are limited while it is read."""
    size, begun = 0, time.monotonic()
    while True:
        try:
            message = await asyncio.wait_for(request.receive(), patience or BLOCK_SECONDS)
        except asyncio.TimeoutError:
            raise _too_slow() from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        data: bytes = message.get("body", b"")
        size += len(data)
        if size > most:
            raise _too_large(limit)
        if time.monotonic() - begun > _SECONDS + size / _SLOWEST:
            raise _too_slow()
        if data:
            yield data
        if not message.get("more_body", False):
            return


def _too_large(limit: int, *, unread: bool = True) -> ApiError:
    return ApiError(
        413,
        f"file: larger than {limit} bytes, the most that this server takes (--max-upload)",
        param=_NAME,
        code="too_large",
        headers=CLOSE if unread else None,
    )


def _too_slow() -> ApiError:
    return ApiError(408, "the request came too slowly", code="timeout", headers=CLOSE)
