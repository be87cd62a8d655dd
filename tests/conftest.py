"""Imported before any test: the runtime first, because only then does MLX get a fast BLAS.

And every test runs as on a bare machine; see bare_path.py.
"""

import os
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
