"""The process of one contender: asked on standard input, answers on standard output, in JSON.

One process a contender and case, so that its peak memory is its own, and so that the one that
waits holds no core. A request is a line: `action`, `arguments`, and whether to time it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import Any, TextIO

from baldwhisper_mlx.bench.machine import describe_machine
from baldwhisper_mlx.bench.memory import peak_process_bytes

TIMED = ("decode", "encode", "first_token", "transcribe")
"""Actions of a runtime that make a task; all others answer by themselves."""


def open_runtime(kind: str, model: str) -> Any:
    """Loads a model.

    Args:
        kind: "baldwhisper-mlx" or "mlx-whisper".
        model: its folder.

    Raises:
        ValueError: another kind, or a folder that cannot be read.
    """
    if kind == "baldwhisper-mlx":
        from baldwhisper_mlx.bench.runtimes import Ours

        return Ours(model)
    if kind == "mlx-whisper":
        from baldwhisper_mlx.bench.mlx_whisper import MlxWhisper

        return MlxWhisper(model)
    raise ValueError(f"unknown runtime {kind!r}")


def run_task(runtime: Any, action: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Makes a task ready, runs it once and times it.

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


def answer(runtime: Any, request: dict[str, Any]) -> Any:
    """What a request asks for."""
    action, arguments = request["action"], request.get("arguments", {})
    if action == "machine":
        return describe_machine()
    if action in TIMED:
        return run_task(runtime, action, arguments)
    return getattr(runtime, action)(**arguments)


def serve(requests: TextIO, answers: TextIO) -> None:
    """Loads what the first line says, then answers line by line until there are no more.

    An error is an answer too, `{"error": "..."}`, and ends the process's work.
    """

    def reply(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        runtime = open_runtime(**json.loads(requests.readline()))
        reply({"answer": "ready"})
        for line in requests:
            reply({"answer": answer(runtime, json.loads(line))})
    except Exception as error:
        reply({"error": f"{type(error).__name__}: {error}"})
        raise


def main() -> None:
    """Serves standard input; whatever libraries print goes to standard error instead."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            serve(sys.stdin, answers)
