"""The machine that benchmarks run on, and the recording that they share.

The machine is described in a process of its own, so that a script which only waits for others
does not load MLX.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from baldwhisper_mlx.bench.machine import cores, describe_machine, sysctl
from baldwhisper_mlx.bench.processes import isolated

SAMPLE = Path(__file__).resolve().parent.parent / "examples/sample.wav"
"""The demo's recording; its text is beside it."""


def describe() -> dict[str, Any]:
    """What `baldwhisper_mlx.bench.machine.describe_machine` returns."""
    found: dict[str, Any] = isolated(describe_machine)
    return found


def slug(name: str) -> str:
    """A chip's name for use in a file name.

    Example:
        >>> slug("Apple M1 Pro")
        'apple-m1-pro'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def fast_cores() -> int:
    """Cores worth a thread: on Apple silicon the performance cores, which waiting for the
    efficiency cores would only slow down; elsewhere all."""
    if sys.platform == "darwin":
        count = sysctl("hw.perflevel0.logicalcpu")
        if count.isdigit():
            return int(count)
    return cores()
