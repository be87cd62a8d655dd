"""Imported before any test: the runtime first, because only then does MLX get a fast BLAS.

And every test runs as on a bare machine; see bare_path.py.
"""

import os
import signal
import tempfile
from pathlib import Path

import pytest

import baldwhisper_mlx  # noqa: F401
from tests.support.bare_path import bare_path


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module is imported, because some look around as they are."""
    folder = tempfile.TemporaryDirectory(prefix="bare-path-")
    config.add_cleanup(folder.cleanup)
    patch = pytest.MonkeyPatch()
    patch.setenv("PATH", bare_path(Path(folder.name), os.environ.get("PATH", os.defpath)))
    config.add_cleanup(patch.undo)
    _follow_signals()


def _follow_signals() -> None:
    """Undoes what `nohup` and a shell's `&` do: tests and the programs they start get signals."""
    handlers = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}
    for name, handler in handlers.items():
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
