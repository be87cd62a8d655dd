"""Throughput of `baldwhisper serve`: clients at the same time against one in a row.

    python -m benchmarks.speed.server AUDIOFOLDER --model "tiny-en=" --model "base=DIR" \\
        --longest 3 --output benchmarks/results/server.json

The server is a process of its own; clients are threads of this one, each of which sends the next
clip as soon as it has the text of the last. One client therefore sends the clips one in a row. The
numbers of clients take turns, round by round, and are compared within a round. Every text is
compared with that of `transcribe`.

With `--seconds`, one number of clients sends clips for that time instead, and the memory and the
open files of the server are noted:

    python -m benchmarks.speed.server AUDIOFOLDER --clients 50 --seconds 120
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from baldwhisper_mlx.bench.processes import isolated
from baldwhisper_mlx.bench.statistics import alternate, quartiles, speed_ups
from benchmarks.machines import describe
from benchmarks.options import (
    Benchmark,
    language_option,
    limit_option,
    model_or_bundled,
    models_option,
    numbers,
)
from benchmarks.result_files import data_name, read_clips, spread, write_json
from benchmarks.speed.server_process import Client, Server, serving

_READING_SECONDS = 10.0
"""Between two readings of the memory."""


@dataclass(frozen=True)
class Clips:
    """Files, their lengths, and what `transcribe` makes of them."""

    paths: Sequence[Path]
    seconds: Sequence[float]
    texts: Sequence[str]

    def check(self, answers: Sequence[tuple[int, str]]) -> dict[str, int]:
        """Answers that have another text than `transcribe`, and those of another clip.

        Args:
            answers: number of the clip, and the text that the server gave.
        """
        different = [(number, text) for number, text in answers if text != self.texts[number]]
        others = set(self.texts)
        return {
            "different": len(different),
            "mixed_up": sum(bool(text) and text in others for _, text in different),
        }


def transcribe_all(model: str | None, paths: Sequence[Path], language: str) -> list[str]:
    """The texts of files by `transcribe`, one in a row."""
    import baldwhisper_mlx

    loaded = baldwhisper_mlx.load_model(model)
    return [
        baldwhisper_mlx.transcribe(path, loaded, language=language).text.strip() for path in paths
    ]


def send_all(
    server: Server, n_clients: int, language: str, clips: Clips, deadline: float | None = None
) -> list[Client]:
    """Has clients send all clips once, or again and again until a deadline (monotonic seconds).

    Raises:
        RuntimeError: an answer other than a text, or that the queue is full.
    """
    clients = [Client(server.port, language) for _ in range(n_clients)]
    count = len(clips.paths)
    order: Iterator[int] = iter(range(count)) if deadline is None else itertools.count()
    lock = threading.Lock()

    def work(client: Client) -> None:
        try:
            while deadline is None or time.monotonic() < deadline:
                with lock:
                    number = next(order, None)
                if number is None:
                    return
                client.send(number % count, clips.paths[number % count])
        finally:
            client.close()

    with ThreadPoolExecutor(n_clients) as pool:
        list(pool.map(work, clients))
    return clients


def one_round(server: Server, n_clients: int, language: str, clips: Clips) -> dict[str, Any]:
    """Time, latencies and batches of all clips."""
    before, processor = len(server.batch_sizes()), server.processor_seconds
    began = time.perf_counter()
    clients = send_all(server, n_clients, language, clips)
    seconds = time.perf_counter() - began
    sizes = server.batch_sizes(before)
    answers = [one for client in clients for one in client.texts]
    return {
        "seconds": seconds,
        "processor": server.processor_seconds - processor,
        "latencies": [one for client in clients for one in client.latencies],
        "windows": sum(sizes),
        "batches": len(sizes),
        **clips.check(answers),
    }


def summary(rounds: dict[str, list[dict[str, Any]]], clips: Clips) -> dict[str, dict[str, Any]]:
    """The figures of every number of clients; one is the measure of the gain.

    Args:
        rounds: what `one_round` found, by the number of clients.
        clips: of a round.
    """
    seconds = {name: [one["seconds"] for one in own] for name, own in rounds.items()}
    count, audio = len(clips.paths), sum(clips.seconds)
    found: dict[str, dict[str, Any]] = {}
    for name, own in rounds.items():
        latencies = [latency for one in own for latency in one["latencies"]]
        batches = sum(one["batches"] for one in own)
        found[name] = {
            "requests_per_second": quartiles([count / value for value in seconds[name]]),
            "audio_per_second": quartiles([audio / value for value in seconds[name]]),
            "latency_median": float(np.median(latencies)),
            "latency_p95": float(np.percentile(latencies, 95)),
            "processor_seconds": quartiles([one["processor"] / count for one in own]),
            "windows_per_batch": sum(one["windows"] for one in own) / max(1, batches),
            "different": sum(one["different"] for one in own),
            "mixed_up": sum(one["mixed_up"] for one in own),
        }
        if "1" in rounds:
            found[name]["gain"] = quartiles(speed_ups(seconds, name, "1"))
    return found


def endurance(
    server: Server, n_clients: int, language: str, clips: Clips, seconds: float
) -> dict[str, Any]:
    """Clients that send clips for some time, and what the process holds meanwhile."""
    readings: list[dict[str, float]] = []
    began, stop = time.monotonic(), threading.Event()

    def read() -> None:
        while True:
            readings.append({
                "seconds": time.monotonic() - began,
                "bytes": server.status("VmRSS"),
                "descriptors": server.descriptors,
            })  # fmt: skip
            if stop.wait(_READING_SECONDS):
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        clients = send_all(server, n_clients, language, clips, began + seconds)
    finally:
        stop.set()
        reader.join()
    answers = [one for client in clients for one in client.texts]
    latencies = [one for client in clients for one in client.latencies]
    return {
        "clients": n_clients,
        "seconds": time.monotonic() - began,
        "answers": len(answers),
        "busy": sum(client.n_busy for client in clients),
        "latency_median": float(np.median(latencies)),
        "latency_p95": float(np.percentile(latencies, 95)),
        "descriptors_at_end": server.descriptors,
        "readings": readings,
        **clips.check(answers),
    }


@click.command(cls=Benchmark)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@models_option(required=False, bundled=True)
@click.option("--clients", default="1,2,4,8", show_default=True, callback=lambda *a: numbers(a[2]),
              help="How many at the same time, with commas between them.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True,
              help="Times that all numbers of clients are tried; the medians count.")  # fmt: skip
@click.option("--seconds", type=float, help="Send clips for this time, with one number of clients.")
@click.option("--shortest", default=0.0, show_default=True, help="Seconds of the shortest clip.")
@click.option("--longest", default=30.0, show_default=True, help="Seconds of the longest clip.")
@limit_option
@language_option
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Result file.")
def main(
    folder: Path,
    models: tuple[str, ...],
    clients: tuple[int, ...],
    rounds: int,
    seconds: float | None,
    shortest: float,
    longest: float,
    limit: int | None,
    language: str,
    output: Path | None,
) -> None:
    """Send the clips of FOLDER to `baldwhisper serve`."""
    if seconds is not None and len(clients) > 1:
        raise click.UsageError("--seconds needs one number of --clients")
    rows = [row for row in read_clips(folder) if shortest <= row["duration"] <= longest]
    rows = spread(rows, limit)
    if not rows:
        raise click.UsageError(f"{folder}: no clips of {shortest:g} to {longest:g} s")
    paths = [folder / row["file_name"] for row in rows]
    lengths = [row["duration"] for row in rows]
    result: dict[str, Any] = {
        "machine": describe(), "data": data_name(folder), "clips": len(paths),
        "audio_seconds": sum(lengths), "rounds": rounds, "models": {},
    }  # fmt: skip
    for item in models or ("tiny-en=",):
        name, model = model_or_bundled(item)
        source = None if model is None else str(model)
        clips = Clips(paths, lengths, isolated(transcribe_all, source, paths, language))
        with serving(source) as server:
            send_all(server, 1, language, Clips(paths[:2], lengths[:2], clips.texts[:2]))
            if seconds is not None:
                found = endurance(server, clients[0], language, clips, seconds)
                click.echo(f"{name}: {found}")
            else:
                found = throughput(server, clients, rounds, language, clips)
                for count, row in found.items():
                    click.echo(f"{name}, {line_of(count, row)}")
            peak = server.status("VmHWM")
        click.echo(f"{name}: peak {peak / 1e6:.0f} MB")
        key = "clients" if seconds is None else "endurance"
        result["models"][name] = {"peak_process_bytes": peak, key: found}
        if output is not None:
            write_json(output, result)


def throughput(
    server: Server, clients: Sequence[int], rounds: int, language: str, clips: Clips
) -> dict[str, dict[str, Any]]:
    """The figures of every number of clients, which take turns."""
    found: dict[str, list[dict[str, Any]]] = {str(count): [] for count in clients}
    for _, name in alternate(list(found), rounds):
        found[name].append(one_round(server, int(name), language, clips))
    return summary(found, clips)


def line_of(clients: str, row: dict[str, Any]) -> str:
    """The figures of a number of clients for a terminal."""
    gain = f", {row['gain']['median']:.2f} times one" if "gain" in row else ""
    return (
        f"{clients} clients: {row['requests_per_second']['median']:.2f} requests/s{gain}, "
        f"{row['audio_per_second']['median']:.1f} s of audio/s, latency "
        f"{row['latency_median']:.2f} s (95 %: {row['latency_p95']:.2f}), "
        f"{row['processor_seconds']['median']:.3f} s of the processor a request, "
        f"{row['windows_per_batch']:.2f} windows a batch, {row['different']} texts differ, "
        f"{row['mixed_up']} mixed up"
    )


if __name__ == "__main__":
    main()
