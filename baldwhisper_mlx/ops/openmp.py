"""Linux only: libraries that use OpenMP, kept to one thread where more would only wait."""

from __future__ import annotations

import sys
import threading
from typing import Any


class OneThread:
    """While any thread is inside, OpenMP starts no threads; `with` may be entered anew.

    GNU's OpenMP and Intel's, which comes with MKL: once MKL has computed something, its OpenMP also
    serves libraries that were built for GNU's.

    The setting belongs to the process, so the first to enter makes it and the last to leave takes
    it back. On other systems nothing of this happens.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[tuple[Any, int]] = []

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0 and sys.platform == "linux":
                self._before = [(lib, lib.omp_get_max_active_levels()) for lib in _libraries()]
                for library, _ in self._before:
                    # Unlike a number of threads, this also holds for code that asks for its own.
                    library.omp_set_max_active_levels(0)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for library, levels in self._before:
                    library.omp_set_max_active_levels(levels)


def _libraries() -> list[Any]:
    """Every OpenMP of GNU or Intel in this process: wheels bring their own."""
    from threadpoolctl import ThreadpoolController  # installed on Linux only

    controllers = ThreadpoolController().select(prefix=["libgomp", "libiomp"]).lib_controllers
    return [controller.dynlib for controller in controllers]
