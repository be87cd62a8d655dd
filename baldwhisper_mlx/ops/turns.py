"""One model, many threads: they take turns, on one stream of MLX.

A stream of MLX belongs to the thread that made it, ends in no way with it, and an array that was
not evaluated there cannot be evaluated anywhere else. So a model has a stream of its own that every
thread may use, and a lock.
"""

from __future__ import annotations

import os
import threading
import weakref

import mlx.core as mx

_unused_streams: list[mx.Stream] = []
"""Of models that are gone: a stream of a CPU is a thread, which lasts as long as the process."""
_used_in: list[int] = []
"""The process in which the first stream was made."""
_FORKED = (
    "was loaded before the process was forked, and MLX's threads are in the parent only: start "
    'the child with multiprocessing.get_context("spawn"), and load the model there'
)


class Turn:
    """Gives its stream to one thread at a time; `with` may be entered anew by that thread.

    Raises:
        RuntimeError: there was one before the process was forked.
    """

    def __init__(self) -> None:
        if _used_in and _used_in != [os.getpid()]:
            raise RuntimeError(f"another model {_FORKED}")
        _used_in[:] = [os.getpid()]
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._stream = _new_stream()
        self._contexts: list[mx.StreamContext] = []
        weakref.finalize(self, _unused_streams.append, self._stream)

    def __enter__(self) -> None:
        """Waits for the turn.

        Raises:
            RuntimeError: the process was forked since.
        """
        if os.getpid() != self._process:
            raise RuntimeError(f"this model {_FORKED}")
        self._lock.acquire()
        self._contexts.append(mx.stream(self._stream))
        self._contexts[-1].__enter__()

    def __exit__(self, *_: object) -> None:
        self._contexts.pop().__exit__(None, None, None)
        self._lock.release()


def _new_stream() -> mx.Stream:
    if _unused_streams:
        return _unused_streams.pop()
    # Until MLX 0.31 every stream was open to all threads.
    new = getattr(mx, "new_thread_unsafe_stream", mx.new_stream)
    stream: mx.Stream = new(mx.default_device())
    return stream
