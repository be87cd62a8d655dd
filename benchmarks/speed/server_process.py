"""`baldwhisper serve` in a process of its own, and clients that send it clips.

The process appends the number of windows of every batch to a file, which the server itself does not
count.
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from baldwhisper_mlx.bench.processes import python_command

BATCHES_FILE = "BALDWHISPER_BENCHMARK_BATCHES"
"""The environment variable with the name of the file of batches."""
_BOUNDARY = "baldwhisper-benchmark"
_PATIENCE = 600.0


def serve() -> None:
    """`baldwhisper serve` with the arguments of this process, which notes its batches."""
    from baldwhisper_mlx.cli.main import main
    from baldwhisper_mlx.server import worker
    from baldwhisper_mlx.transcription.batched import transcribe_windows

    batches = open(os.environ[BATCHES_FILE], "a", buffering=1, encoding="ascii")  # noqa: SIM115

    def noted(loaded: Any, runs: Sequence[Any]) -> Any:
        batches.write(f"{len(runs)}\n")
        return transcribe_windows(loaded, runs)

    vars(worker)[transcribe_windows.__name__] = noted
    main()


@dataclass(frozen=True)
class Server:
    """A process that serves."""

    process: subprocess.Popen[str]
    port: int
    batches: Path

    def batch_sizes(self, skip: int = 0) -> list[int]:
        """Windows of every batch so far, without the first `skip` batches."""
        return list(map(int, self.batches.read_text(encoding="ascii").split()))[skip:]

    def status(self, name: str) -> int:
        """A size in the status of the process (VmRSS, VmHWM), in bytes; Linux only."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
        if found is None:
            raise ValueError(f"/proc: no {name} in the status of the server's process")
        return 1024 * int(found[1])

    @property
    def processor_seconds(self) -> float:
        """Time that the process has computed, on all cores."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    @property
    def descriptors(self) -> int:
        """Open files and sockets; Linux only."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@contextmanager
def serving(model: str | None, *options: str) -> Iterator[Server]:
    """A server at a free port until the end of the block, which has to end in order.

    Args:
        model: folder; None for the bundled model.
        options: more of the command line.

    Raises:
        RuntimeError: the server did not start, or did not end with the status 0.
    """
    with tempfile.TemporaryDirectory() as folder:
        batches = Path(folder, "batches")
        batches.touch()
        command = python_command("benchmarks.speed.server_process", "serve")
        command += ["serve", "--port", "0", *options]
        command += [] if model is None else ["--model", model]
        environment = {**os.environ, BATCHES_FILE: str(batches)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            found = re.search(r"http://[^/]+:(\d+)/", first)
            if found is None:
                raise RuntimeError(f"baldwhisper serve did not start: {first.strip()}")
            yield Server(process, int(found[1]), batches)
            process.send_signal(signal.SIGINT)
            if (status := process.wait(_PATIENCE)) != 0:
                raise RuntimeError(f"baldwhisper serve ended with the status {status}")
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@functools.cache
def request_body(path: Path, language: str) -> bytes:
    """A form with a file, as bytes."""
    head = f"--{_BOUNDARY}\r\nContent-Disposition: form-data; name="
    parts = (
        f'{head}"language"\r\n\r\n{language}\r\n'.encode(),
        f'{head}"file"; filename="clip"\r\n\r\n'.encode(),
        path.read_bytes(),
        f"\r\n--{_BOUNDARY}--\r\n".encode(),
    )
    return b"".join(parts)


@dataclass
class Client:
    """One that sends a clip, waits for the text, and sends the next one."""

    port: int
    language: str
    latencies: list[float] = field(default_factory=list)
    """Seconds from the start of a request to the end of its answer."""
    texts: list[tuple[int, str]] = field(default_factory=list)
    """Number of the clip, and the text."""
    n_busy: int = 0
    """Answers that the queue is full."""

    def __post_init__(self) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE)

    def send(self, number: int, path: Path) -> None:
        """Has a clip transcribed; while the queue is full, it tries again, as the server says.

        Raises:
            RuntimeError: any other answer.
        """
        body = request_body(path, self.language)
        headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
        while True:
            began = time.perf_counter()
            self._connection.request("POST", "/v1/audio/transcriptions", body, headers)
            response = self._connection.getresponse()
            answer = response.read()
            if response.status != 429:
                break
            self.n_busy += 1
            time.sleep(float(response.headers["Retry-After"]))
        if response.status != 200:
            raise RuntimeError(f"the server answered {response.status}: {answer.decode()}")
        self.latencies.append(time.perf_counter() - began)
        self.texts.append((number, json.loads(answer)["text"]))

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()
