"""Runs readers on folders in a process of their own, with little memory and time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 300 * 2**20
"""Bytes that all folders may take together, beyond what a process has that read a sound one."""
SECONDS = 60
"""Of computing, for all of them: a loop without end is cut off."""

_READ_ALL = """
import importlib, json, resource, sys
from pathlib import Path

_, sound, root, memory, seconds, *names = sys.argv
readers = []
for name in names:
    module, _, function = name.partition(":")
    readers.append(getattr(importlib.import_module(module), function))
readers[0](sound)  # so that all that it needs is in memory
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
most = size + int(memory)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
resource.setrlimit(resource.RLIMIT_CPU, (int(spent) + int(seconds),) * 2)
errors = {}
for folder in sorted(Path(root).iterdir()):
    for read in readers:
        try:
            read(folder)
            error = None
        except (ValueError, OSError) as raised:
            error = str(raised)
        except BaseException as raised:
            error = f"{type(raised).__name__}: {raised}"
        errors[f"{folder.name} {read.__name__}"] = error
print(json.dumps(errors))
"""


def errors_of(readers: Sequence[str], sound: Path, root: Path) -> dict[str, str | None]:
    """The error of every reader on every folder; None where there was none.

    Args:
        readers: `module:function`, each taking a path.
        sound: a path that the first of them can read.
        root: its entries are read, by name.

    Returns:
        By "folder function". Errors other than ValueError and OSError begin with their kind.
    """
    paths = [str(ROOT), str(ROOT / "convert")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _READ_ALL, str(sound), str(root), str(MEMORY), str(SECONDS)]
    done = subprocess.run(
        [*command, *readers], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    errors: dict[str, str | None] = json.loads(done.stdout)
    return errors
