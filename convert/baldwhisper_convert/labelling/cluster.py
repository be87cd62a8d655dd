"""Runs the workers in Ray Data: on this machine, or on the machines of a cluster.

Ray distributes the shards, starts a worker again that was killed or whose machine was lost, and
gives its shard to another. Workers write their shards themselves, because a file that Ray writes
has another name in every run and is not whole until it is closed, so that a run which is killed and
started again could neither know nor replace it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from baldwhisper_convert.labelling.shards import Report
from baldwhisper_convert.labelling.worker import Job, Worker
from baldwhisper_mlx.audio.speech_dataset import SpeechData

LOCAL = "local"


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
        self._worker = Worker(job, ray.get(data[0]))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Labels the shard of a row; returns the figures of its report."""
        report = self._worker.label_shard(int(row["shard"]))
        return {"rows": report.rows, "kept": report.kept, "seconds": report.seconds}


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
        ValueError, OSError: what a worker raised.
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
        try:
            for row in results.iter_rows():
                yield Report(rows=row["rows"], kept=row["kept"], seconds=row["seconds"])
        except ray.exceptions.RayError as error:
            raise _cause(error) from error


def _workers(resources: Resources) -> int:
    """How many there are resources for, unless a number is given."""
    import ray

    if resources.workers is not None:
        return resources.workers
    there = ray.cluster_resources()
    by_gpu = there.get("GPU", 0) // resources.gpus if resources.gpus else float("inf")
    return max(1, int(min(there.get("CPU", 1) // resources.cpus, by_gpu)))


@contextmanager
def _connected(resources: Resources) -> Iterator[None]:
    """Connects to the cluster, or starts Ray here, and leaves or ends it."""
    import ray
    import ray.data

    # Ray reports its use to its makers otherwise; who has set the variable has decided.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    local: dict[str, Any] = {"include_dashboard": False} if resources.address == LOCAL else {}
    if local and resources.workers is not None:
        local["num_cpus"] = max(os.cpu_count() or 1, resources.workers * resources.cpus)
    ray.init(address=resources.address, logging_level=logging.ERROR, **local)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    try:
        yield
    finally:
        ray.shutdown()


def _cause(error: BaseException) -> BaseException:
    """What a worker raised, without the report of Ray around it; else the error itself."""
    seen = error
    while (cause := getattr(seen, "cause", None) or seen.__cause__) is not None:
        seen = cause
    return seen
