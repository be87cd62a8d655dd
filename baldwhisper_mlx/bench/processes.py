"""Processes: workers that hold one model each, and whole programs timed from the outside.

Workers are those of `concurrent.futures`, started anew ("spawn") and not forked: a fork of a
process with threads is not safe, and it would inherit what the parent has loaded. Nothing heavy
is loaded into the process that waits.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from baldwhisper_mlx.bench import worker

_TAIL_LINES = 5


def isolated(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in a process of its own, so that what it loads does not stay in this one.

    Args:
        function: of a module that can be imported; it and its result are pickled.
        arguments: its arguments.

    Raises:
        RuntimeError: it failed or its process died; the message says why.
    """
    with _one_worker() as pool:
        return _result(pool, function, *arguments)


class Child:
    """A worker with one model loaded; a context manager that ends it.

    Args:
        kind: of the runtime, see `worker.load_runtime`.
        model: folder.

    Raises:
        RuntimeError: it could not load the model; the message says why.
    """

    def __init__(self, kind: str, model: str) -> None:
        self.name = f"{kind} with {model}"
        self._pool = _one_worker()
        try:
            self._call(worker.load_runtime, kind, model)
        except BaseException:
            self.close()
            raise

    def ask(self, action: str, **arguments: Any) -> Any:
        """Has the worker do something; returns its answer.

        Raises:
            RuntimeError: it failed or died; the message says why.
        """
        return self._call(worker.answer, action, arguments)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return _result(self._pool, function, *arguments)
        except RuntimeError as error:
            raise RuntimeError(f"{self.name}: {error}") from None

    def close(self) -> None:
        """Ends the process."""
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _one_worker() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=_prints_to_standard_error)


def _prints_to_standard_error() -> None:
    """Standard output is for the results of the process that waits."""
    os.dup2(2, 1)


def _result(pool: ProcessPoolExecutor, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return pool.submit(function, *arguments).result()
    except Exception as error:  # of any kind: the worker runs other people's programs
        explained = isinstance(error, (ValueError, OSError))  # their messages are for users
        raise RuntimeError(f"{'' if explained else f'{type(error).__name__}: '}{error}") from None


def python_command(
    module: str, function: str = "main", *, peak_file: str | None = None
) -> list[str]:
    """A command that calls a function of a module in a new interpreter with our import path.

    Args:
        module: name of the module.
        function: without arguments; it may read `sys.argv`.
        peak_file: where the process leaves its peak memory when it ends; None for nowhere.
    """
    lines = [f"import sys; sys.path[:] = {sys.path!r}"]
    if peak_file is not None:
        lines += ["import atexit; from baldwhisper_mlx.bench.memory import save_peak"]
        lines += [f"atexit.register(save_peak, {peak_file!r})"]
    lines += [f"from {module} import {function}; {function}()"]
    return [sys.executable, "-c", "\n".join(lines)]


def run_to_first_line(
    module: str, function: str = "main", arguments: Sequence[str] = ()
) -> dict[str, Any]:
    """Starts a program and times it from outside until it has written its first line.

    Args:
        module: see `python_command`.
        function: see `python_command`.
        arguments: of the command line.

    Returns:
        `seconds` to that line, the `text` it wrote, and `peak_process_bytes` of the process.

    Raises:
        RuntimeError: it failed; the message has the last lines of its standard error.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        peak = Path(folder, "peak")
        command = [*python_command(module, function, peak_file=str(peak)), *arguments]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        try:
            assert process.stdout is not None
            with process.stdout:
                text = process.stdout.readline()
                seconds = time.perf_counter() - began
                text += process.stdout.read()
        except BaseException:
            process.kill()
            raise
        finally:
            process.wait()
        if process.returncode != 0:
            raise RuntimeError(f"{module}: {_tail(errors)}")
        return {
            "seconds": seconds,
            "text": text.decode(errors="replace").strip(),
            "peak_process_bytes": int(peak.read_text(encoding="ascii")),
        }


def _tail(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return "\n".join(lines[-_TAIL_LINES:]) or "ended without an error message"
