"""Starts a Python script or module in several processes on this machine's CPUs."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT = 300


def torchrun(*arguments: str | Path, log: Path, count: int = 2, **environment: str) -> int:
    """Runs `torchrun` with the arguments and returns its exit status.

    Args:
        arguments: a script, or `-m` and a module, with its own arguments.
        log: file for what the processes print.
        count: number of processes.
        environment: further variables.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Not `accelerate launch --cpu`: without MPI it starts one process, whatever its options say.
    launch = f"--nproc_per_node {count} --nnodes 1 --master_addr 127.0.0.1 --master_port {port}"
    command = [sys.executable, "-m", "torch.distributed.run", *launch.split()]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "convert")])
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, *map(str, arguments)],
            env=os.environ | settings | {"PYTHONPATH": paths} | environment,
            stdout=output,
            stderr=output,
        )
        try:
            process.wait(TIMEOUT)
        finally:
            # On SIGTERM torchrun ends its workers, which are in sessions of their own.
            process.terminate()
            process.wait(60)
    return process.returncode
