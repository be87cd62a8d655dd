"""The most memory a process has held at once, as the process itself can tell it.

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
        # Linux hands getrusage's figure on through fork and exec: a small program that a large
        # one started would have the peak of the large one. This one starts anew.
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.M)
    except OSError:
        found = None
    if found is not None:
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def save_peak(path: str) -> None:
    """Writes the peak to a file, for whoever started this program; to be called at its end."""
    Path(path).write_text(str(peak_process_bytes()), encoding="ascii")
