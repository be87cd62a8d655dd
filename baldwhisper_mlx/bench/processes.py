"""Processes: the workers that measure, and whole program runs from the outside.

Children get this process's import path, so that they run the same code however it is installed.
Standard library only; nothing heavy is loaded into the process that waits.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

_TAIL_LINES = 5


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


def call(module: str, function: str = "main", arguments: Sequence[str] = (), text: str = "") -> str:
    """Runs a function in a process of its own, so that what it loads does not stay with us.

    Args:
        module: see `python_command`.
        function: see `python_command`.
        arguments: of the command line.
        text: its standard input.

    Returns:
        Its standard output.

    Raises:
        RuntimeError: it failed; the message is the last line it wrote.
    """
    command = [*python_command(module, function), *arguments]
    run = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError((run.stderr.strip().splitlines() or [f"{module} failed"])[-1])
    return run.stdout


class Child:
    """A worker with one model loaded; a context manager that ends it.

    Args:
        kind: of the runtime, see `worker.open_runtime`.
        model: folder.

    Raises:
        RuntimeError: it could not load the model; the message has its own words.
    """

    def __init__(self, kind: str, model: str) -> None:
        self.name = f"{kind} with {model}"
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            python_command("baldwhisper_mlx.bench.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
        )
        try:
            self._exchange({"kind": kind, "model": model})
        except BaseException:
            self.close()
            raise

    def ask(self, action: str, **arguments: Any) -> Any:
        """Has the worker do something; returns its answer.

        Raises:
            RuntimeError: it failed or died; the message has its last words.
        """
        return self._exchange({"action": action, "arguments": arguments})

    def _exchange(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        reply = json.loads(line) if line else {"error": _tail(self._errors)}
        if "error" in reply:
            raise RuntimeError(f"{self.name}: {reply['error']}")
        return reply["answer"]

    def close(self) -> None:
        """Ends the process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def run_to_first_line(
    module: str, function: str = "main", arguments: Sequence[str] = ()
) -> dict[str, Any]:
    """Starts a program and times it from outside until its first line is there.

    Args:
        module: see `python_command`.
        function: see `python_command`.
        arguments: of the command line.

    Returns:
        `seconds` to that line, the `text` it wrote, and `peak_process_bytes` of the process.

    Raises:
        RuntimeError: it failed; the message has its last words.
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
    return "\n".join(lines[-_TAIL_LINES:]) or "ended without a word"
