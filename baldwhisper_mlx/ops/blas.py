"""Linux only: hand MLX's CPU backend a fast BLAS before MLX is imported.

The Linux wheel of MLX links reference BLAS, which multiplies 30 to 50 times slower than
MKL or OpenBLAS. Symbols already global in the process win over the wheel's own, so loading
a better library first is enough. On Apple nothing of this runs: MLX uses Metal and Accelerate.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_loaded: str | None = None
_BLOCKTIME = "KMP_BLOCKTIME"
_set_here = False


def preload() -> str | None:
    """Loads MKL if it is installed, else OpenBLAS if the system has it.

    Returns:
        "mkl", "openblas", or None if neither was found or MLX had been imported before.
    """
    global _loaded, _set_here
    if _loaded is None and "mlx.core" not in sys.modules:
        # Idle workers of MKL sleep after 10 ms, not at once: some machines take 0.1 ms to wake one,
        # and a decode step has hundreds of products. Not after 200, because others need the core.
        if _BLOCKTIME not in os.environ:
            os.environ[_BLOCKTIME], _set_here = "10", True
        for name, candidates in (("mkl", _mkl_candidates()), ("openblas", ["libopenblas.so.0"])):
            if any(_load(path) for path in candidates):
                _loaded = name
                break
    return _loaded


def environment() -> dict[str, str]:
    """The environment for a child process: without what `preload` has set for this one."""
    return {k: v for k, v in os.environ.items() if k != _BLOCKTIME or not _set_here}


def hint() -> str | None:
    """One line on how to install a fast BLAS; None if there is one, or none is needed."""
    if sys.platform != "linux" or _loaded is not None:
        return None
    return (
        "MLX uses the reference BLAS here, which is many times slower than a tuned one: "
        'pip install "baldwhisper-mlx[mkl]" (x86-64) or apt install libopenblas0-pthread, '
        "and import baldwhisper_mlx before mlx"
    )


def _mkl_candidates() -> list[str]:
    # The wheel of MKL puts its libraries beside the interpreter's own, not into site-packages.
    roots = [Path(sys.prefix, "lib")]
    roots += [Path(entry).parents[1] for entry in sys.path if entry.endswith("site-packages")]
    paths = (str(path) for root in roots for path in sorted(root.glob("libmkl_rt.so*")))
    return list(dict.fromkeys(paths))


def _load(path: str) -> bool:
    try:
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True
