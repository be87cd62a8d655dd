"""What runs in the process of one contender: a runtime with one model, and its timed tasks.

There is one process for each contender and case, so that its peak memory is its own and the
process that waits uses no core (processes.py starts it).
"""

from __future__ import annotations

import time
from typing import Any

from baldwhisper_mlx.bench.machine import describe_machine
from baldwhisper_mlx.bench.memory import peak_process_bytes

TIMED = ("decode", "encode", "first_token", "transcribe")
"""Actions of a runtime that make a task to time; all others return their answer."""

_loaded: list[Any] = []


def load_runtime(kind: str, model: str) -> None:
    """Loads the model of this process.

    Args:
        kind: "baldwhisper-mlx" or "mlx-whisper".
        model: its folder.

    Raises:
        ValueError: another kind, or a folder that cannot be read.
    """
    _loaded[:] = [open_runtime(kind, model)]


def open_runtime(kind: str, model: str) -> Any:
    """A runtime with a model; arguments and errors as of `load_runtime`."""
    if kind == "baldwhisper-mlx":
        from baldwhisper_mlx.bench.runtimes import Ours

        return Ours(model)
    if kind == "mlx-whisper":
        from baldwhisper_mlx.bench.mlx_whisper import MlxWhisper

        return MlxWhisper(model)
    raise ValueError(f"unknown runtime {kind!r}; known: baldwhisper-mlx, mlx-whisper")


def answer(action: str, arguments: dict[str, Any]) -> Any:
    """The answer to a request: "machine", or an action of the runtime with its arguments."""
    if action == "machine":
        return describe_machine()
    (runtime,) = _loaded
    if action in TIMED:
        return run_task(runtime, action, arguments)
    return getattr(runtime, action)(**arguments)


def run_task(runtime: Any, action: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Prepares a task, runs it once and times it.

    Returns:
        What the task counts, and `seconds`, `peak_mlx_bytes` (weights included) and
        `peak_process_bytes` (of the process so far, loading included).
    """
    import mlx.core as mx

    task = getattr(runtime, action)(**arguments)
    mx.synchronize()
    mx.reset_peak_memory()
    began = time.perf_counter()
    counts: dict[str, Any] = task()
    mx.synchronize()
    seconds = time.perf_counter() - began
    peaks = {
        # a task may allocate nothing, and then the peak stays at the zero it was reset to
        "peak_mlx_bytes": max(mx.get_peak_memory(), mx.get_active_memory()),
        "peak_process_bytes": peak_process_bytes(),
    }
    return {"seconds": seconds} | peaks | counts


def write_mlx_whisper(source: str, target: str) -> None:
    """Writes an exported model as a folder that mlx-whisper reads."""
    from pathlib import Path

    from baldwhisper_mlx.checkpoint.mlx_whisper_writer import write_folder

    write_folder(Path(source), Path(target))
