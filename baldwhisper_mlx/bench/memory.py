"""Peak memory of a process, read by the process itself.

Standard library only, and little of it, because it is loaded into programs that are measured.
"""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path


def peak_process_bytes() -> int:
    """Peak resident size of this process since its program started."""
    try:
        # On Linux getrusage's figure survives fork and exec: a small program that a large one
        # started would report the peak of the large one. VmHWM starts anew.
        match = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    except OSError:
        match = None
    if match is not None:
        return int(match[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def save_peak(path: str) -> None:
    """Writes the peak to a file, for the process that started this one; called at exit."""
    Path(path).write_text(str(peak_process_bytes()), encoding="ascii")
