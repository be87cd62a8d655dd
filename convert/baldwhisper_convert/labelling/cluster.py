"""Runs the workers in Ray Data: on this machine, or on the machines of a cluster.

Ray distributes the shards, starts a worker again that was killed or whose machine was lost, and
gives its shard to another. Workers write their shards themselves, because a file that Ray writes
has another name in every run and is not whole until it is closed, so that a run which is killed and
started again could neither know nor replace it.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from baldwhisper_convert.labelling.shards import Report
from baldwhisper_convert.labelling.worker import Job, Worker
from baldwhisper_mlx.audio.speech_dataset import SpeechData

LOCAL = "local"
_ANSWERS = 10.0
"""Seconds that a cluster has to answer."""
_EXPECTED = (ValueError, OSError, ImportError, MemoryError, FloatingPointError)
"""What is wrong with the data, a model or a machine, and not with the program."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What Ray gives to the workers.

    Raises:
        ValueError: a number out of range.
    """

    address: str = LOCAL
    """Of a cluster, as `ray.init` takes it; `local` starts Ray on this machine."""
    workers: int | None = None
    """Number of them; None for as many as there are CPUs, or GPUs, for."""
    cpus: int = 1
    """Of a worker."""
    gpus: float = 0.0
    """Of a worker; may be a fraction."""

    def __post_init__(self) -> None:
        if (self.workers is not None and self.workers < 1) or self.cpus < 1 or self.gpus < 0:
            raise ValueError("workers and CPUs of a worker must be at least 1, GPUs not negative")


def check_installed() -> None:
    """Checks that Ray Data can be used.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    import ray.data  # noqa: F401


class RayWorker:
    """A worker as an actor of Ray Data.

    Args:
        job: what to do.
        data: reference to the source, in a list, which Ray leaves as it is.
    """

    def __init__(self, job: Job, data: list[Any]) -> None:
        import ray

        # The runtime's own threads; those of OpenMP follow what Ray has set.
        os.environ["BALDWHISPER_THREADS"] = str(job.threads)
        self._worker: Worker | None = None
        try:
            self._worker = Worker(job, ray.get(data[0]))
        except _EXPECTED as error:
            self._error = error

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Labels the shard of a row; returns the figures of its report, or what went wrong."""
        report, problem = Report(), ""
        try:
            if self._worker is None:
                raise self._error
            report = self._worker.label_shard(int(row["shard"]))
        except _EXPECTED as error:
            # Not raised here: Ray would wrap it in pages of its own.
            problem = str(error) or type(error).__name__
        figures = {"rows": report.rows, "kept": report.kept, "seconds": report.seconds}
        return figures | {"problem": problem}


def label_shards(
    job: Job, data: SpeechData, shards: Sequence[int], resources: Resources
) -> Iterator[Report]:
    """Labels shards in several processes.

    Args:
        job: what to do.
        data: the source.
        shards: their numbers.
        resources: of the workers.

    Yields:
        Figures of a shard that is written, in any order.

    Raises:
        ModuleNotFoundError: Ray is not installed.
        ConnectionError: no cluster at the address.
        ValueError: what a worker could not do, such as load a model or use a row.
    """
    import ray
    import ray.data

    with _connected(resources):
        # Here for as long as a worker may be started again, which reads it.
        source = ray.put(data)
        # One block, and so one task, for each shard.
        rows = ray.data.from_items(
            [{"shard": shard} for shard in shards], override_num_blocks=len(shards)
        )
        pool = ray.data.ActorPoolStrategy(
            size=min(_workers(resources), len(shards)), max_tasks_in_flight_per_actor=1
        )
        results = rows.map(
            RayWorker,
            fn_constructor_args=(job, [source]),
            compute=pool,
            num_cpus=resources.cpus,
            num_gpus=resources.gpus or None,
        )
        for row in results.iter_rows():
            if row["problem"]:
                raise ValueError(row["problem"])
            yield Report(rows=row["rows"], kept=row["kept"], seconds=row["seconds"])


def _workers(resources: Resources) -> int:
    """How many there are resources for, unless a number is given."""
    import ray

    if resources.workers is not None:
        return resources.workers
    there = ray.cluster_resources()
    by_gpu = there.get("GPU", 0) // resources.gpus if resources.gpus else float("inf")
    return max(1, int(min(there.get("CPU", 1) // resources.cpus, by_gpu)))


def check_reachable(address: str) -> None:
    """Checks that something listens at an address, where Ray would try for many minutes.

    Raises:
        ConnectionError: nothing does.
        ValueError: it is no address.
    """
    if address in (LOCAL, "auto"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{address}: not the address of a Ray cluster, as auto or ray://HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWERS).close()
    except OSError as error:
        raise ConnectionError(
            f"{address}: no Ray cluster answers ({error}); start one with `ray start --head`, or "
            "leave --address out to work on this machine"
        ) from None


@contextmanager
def _connected(resources: Resources) -> Iterator[None]:
    """Connects to the cluster, or starts Ray here, and leaves or ends it."""
    import ray
    import ray.data

    check_reachable(resources.address)
    # Ray reports its use to its makers otherwise; who has set the variable has decided.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    local: dict[str, Any] = {"include_dashboard": False} if resources.address == LOCAL else {}
    if local and resources.workers is not None:
        local["num_cpus"] = max(os.cpu_count() or 1, resources.workers * resources.cpus)
    try:
        ray.init(address=resources.address, logging_level=logging.ERROR, **local)
    except Exception as error:  # Ray's own are of no narrower kind
        raise ConnectionError(
            f"{resources.address}: Ray does not start ({error}); if the machine is busy, try again"
        ) from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    try:
        yield
    finally:
        ray.shutdown()
