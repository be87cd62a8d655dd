"""Linux only: hand MLX's CPU backend a fast BLAS before MLX is imported.

The Linux wheel of MLX links reference BLAS, which multiplies 30 to 50 times slower than
MKL or OpenBLAS. Symbols already global in the process win over the wheel's own, so loading
a better library first is enough. That changes the process for everybody in it, so it happens when
MLX itself is imported and not before; `BALDWHISPER_BLAS=none` in the environment forbids it. On
Apple nothing of this runs: MLX uses Metal and Accelerate.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

CHOICE = "BALDWHISPER_BLAS"
"""Environment variable: "none" loads no library; anything else, or unset, the best there is."""

_loaded: str | None = None
_BLOCKTIME = "KMP_BLOCKTIME"


def preload_with_mlx() -> None:
    """Sees to it that `preload` is called when somebody imports MLX."""
    if "mlx.core" not in sys.modules:
        sys.meta_path.insert(0, _BeforeMlx())


def preload() -> str | None:
    """Loads MKL if it is installed, else OpenBLAS if the system has it.

    Returns:
        "mkl", "openblas", or None if neither was found or wanted, or MLX had been imported before.
    """
    global _loaded
    if _loaded is None and "mlx.core" not in sys.modules and os.environ.get(CHOICE) != "none":
        for name, candidates in (("mkl", _mkl_candidates()), ("openblas", ["libopenblas.so.0"])):
            if any(_load(path) for path in candidates):
                _loaded = name
                break
    return _loaded


def hint() -> str | None:
    """One line on how to install a fast BLAS; None if there is one, or none is needed."""
    if sys.platform != "linux" or _loaded is not None or os.environ.get(CHOICE) == "none":
        return None
    return (
        "MLX uses the reference BLAS here, which is many times slower than a tuned one: "
        'pip install "baldwhisper-mlx[mkl]" (x86-64) or apt install libopenblas0-pthread, '
        "and import baldwhisper_mlx before mlx"
    )


class _BeforeMlx(MetaPathFinder):
    """Finds no module, but is asked for every one before it is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "mlx.core":
            with suppress(ValueError):  # another thread may have been faster
                sys.meta_path.remove(self)
            preload()
        return None


def _mkl_candidates() -> list[str]:
    # The wheel of MKL puts its libraries beside the interpreter's own, not into site-packages.
    roots = [Path(sys.prefix, "lib")]
    for entry in sys.path:
        # Others may have put anything there; a relative folder depends on where one stands.
        if isinstance(entry, str) and entry.endswith("site-packages") and os.path.isabs(entry):
            roots.append(Path(entry).parent.parent)
    paths = (str(path) for root in roots for path in sorted(root.glob("libmkl_rt.so*")))
    return list(dict.fromkeys(paths))


def _load(path: str) -> bool:
    """Loads a library for all; whether that worked."""
    # Idle workers of MKL sleep after 10 ms, not at once: some machines take 0.1 ms to wake one, and
    # a decode step has hundreds of products. Not after 200, because others need the core.
    added = _BLOCKTIME not in os.environ
    os.environ.setdefault(_BLOCKTIME, "10")
    try:
        library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        if hasattr(library, "MKL_Get_Max_Threads"):
            library.MKL_Get_Max_Threads()  # starts its OpenMP, which reads the environment once
    except OSError:
        return False
    finally:
        if added:
            del os.environ[_BLOCKTIME]
    return True
