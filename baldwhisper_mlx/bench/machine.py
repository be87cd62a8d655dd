"""The machine of a measurement: chip, system, versions and load."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from baldwhisper_mlx._version import __version__
from baldwhisper_mlx.ops import blas

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY")


def describe_machine() -> dict[str, Any]:
    """The machine and the software, as a result file states them.

    Returns:
        `chip`, `cores`, `memory_gb` (GiB), `os`, `python`, `mlx`, `baldwhisper_mlx`, `device`
        (cpu or gpu, where MLX computes), `blas` (the library handed to MLX on Linux, or None)
        and `threads` (the environment variables that limit them, if any).
    """
    import mlx.core as mx

    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "chip": chip(),
        "cores": cores(),
        "memory_gb": round(pages / 2**30, 1),
        "os": system(),
        "python": platform.python_version(),
        "mlx": version("mlx"),
        "baldwhisper_mlx": __version__,
        "device": mx.default_device().type.name,
        "blas": blas.preload(),
        "threads": {name: os.environ[name] for name in _THREADS if name in os.environ},
    }


def chip() -> str:
    """The processor's name, such as "Apple M1"; the architecture where it has none."""
    if sys.platform == "darwin":
        return sysctl("machdep.cpu.brand_string") or platform.machine()
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        match = None
    return match[1].strip() if match else platform.machine()


def cores() -> int:
    """Cores this process may use."""
    if sys.platform == "linux":  # a container is often given fewer than the machine has
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def system() -> str:
    """Name and version of the operating system."""
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}, {platform.machine()}"
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.system()
    return f"{name}, {platform.release()}, {platform.machine()}"


def load_average() -> list[float]:
    """Mean number of processes that wanted to run, over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def sysctl(name: str) -> str:
    """A value of the machine on macOS; empty if it does not know the name."""
    command = ["sysctl", "-n", name]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.stdout.strip()
