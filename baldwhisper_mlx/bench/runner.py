"""Runs a benchmark: contenders in turn, with the ceilings of each, in one result.

The result is plain data, the contents of a result file (docs/benchmarks.md says what is in it).
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from baldwhisper_mlx.bench.cases import Case, Settings
from baldwhisper_mlx.bench.machine import load_average
from baldwhisper_mlx.bench.processes import Child, run_to_first_line
from baldwhisper_mlx.bench.statistics import alternate, quartiles, speed_ups
from baldwhisper_mlx.checkpoint.describe import stored_facts

SCHEMA = "baldwhisper-bench/1"
"""What a result says of its form; docs/benchmarks.md describes it."""

STREAM_BYTES = 2**28
"""Read to measure the bandwidth: 256 MiB, far more than any cache."""

Notify = Callable[[str], None]
_COUNTS = ("tokens", "windows", "fallbacks")
_PEAKS = ("peak_mlx_bytes", "peak_process_bytes")


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model in a runtime."""

    name: str
    kind: str
    """Of the runtime, see `worker.load_runtime`."""
    folder: Path
    model: str
    """What to call the model in a report; the folder may be a temporary one."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two contenders that differ in one thing only, and so measure its gain."""

    name: str
    title: str
    fast: str
    slow: str


STUDENT, TEACHER, PEER = "student", "teacher", "teacher in mlx-whisper"
COMPARISONS = (
    Comparison(
        name="compression",
        title="What compression gains: both in baldwhisper-mlx",
        fast=STUDENT,
        slow=TEACHER,
    ),
    Comparison(
        name="runtime",
        title="What the runtime gains: the same weights in both",
        fast=TEACHER,
        slow=PEER,
    ),
)


def run_benchmark(
    contenders: Sequence[Contender],
    cases: Sequence[Case],
    settings: Settings,
    *,
    command: str,
    notify: Notify,
) -> dict[str, Any]:
    """Measures every case for every contender.

    Args:
        contenders: in the order in which they take turns.
        cases: from `make_cases`.
        settings: those the cases were made with, for the record.
        command: command line, for the record.
        notify: called with a line of progress now and then.

    Raises:
        RuntimeError: a contender cannot be loaded or failed; the message names it.
    """
    before = load_average()
    notify("loading the models, measuring the machine's bandwidth and rate of products")
    facts, ceilings, machine = {}, {}, None
    bounds: dict[str, list[float | None]] = {}
    for contender in contenders:
        with Child(contender.kind, str(contender.folder)) as child:
            machine = machine or child.ask("machine")
            described = child.ask("describe") | stored_facts(contender.folder)
            facts[contender.name] = described | {"model": contender.model}
            if contender.kind == "baldwhisper-mlx":
                ceilings[contender.name] = child.ask("ceilings", stream_bytes=STREAM_BYTES)
                bounds[contender.name] = [
                    _bound(case, child, ceilings[contender.name]) for case in cases
                ]
    measured = []
    for index, case in enumerate(cases):
        limits = {name: limit[index] for name, limit in bounds.items()}
        measured.append(measure_case(case, contenders, limits))
        notify(_progress(measured[-1], index + 1, len(cases)))
    return {
        "schema": SCHEMA,
        "command": command,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": {**(machine or {}), "load_before": before, "load_after": load_average()},
        "settings": asdict(settings) | {"protocols": list(settings.protocols)},
        "contenders": facts,
        "ceilings": ceilings,
        "comparisons": {
            c.name: {"title": c.title, "fast": c.fast, "slow": c.slow}
            for c in COMPARISONS
            if c.fast in facts and c.slow in facts
        },
        "cases": measured,
    }


def measure_case(
    case: Case, contenders: Sequence[Contender], limits: dict[str, float | None]
) -> dict[str, Any]:
    """One case: a warm-up of each contender, then rounds in turn.

    Args:
        case: what to do.
        contenders: who does it.
        limits: by contender, the seconds that a round takes at least, where that is known.

    Raises:
        RuntimeError: a contender failed.
    """
    replies: dict[str, list[dict[str, Any]]] = {c.name: [] for c in contenders}
    with contextlib.ExitStack() as stack:
        runners = {c.name: stack.enter_context(_runner(c, case)) for c in contenders}
        for runner in runners.values():
            runner(case.round(-1))
        for number, name in alternate(list(runners), case.rounds):
            replies[name].append(runners[name](case.round(number)))
    seconds = {name: [reply["seconds"] for reply in answers] for name, answers in replies.items()}
    return {
        "name": case.name,
        "protocol": case.protocol,
        "label": case.label,
        "unit": case.unit,
        "amount": case.amount,
        "results": {
            name: _result(case, answers, limits.get(name)) for name, answers in replies.items()
        },
        "speed_ups": {
            c.name: quartiles(speed_ups(seconds, c.fast, c.slow))
            for c in COMPARISONS
            if c.fast in seconds and c.slow in seconds
        },
    }


@contextlib.contextmanager
def _runner(contender: Contender, case: Case) -> Iterator[Callable[[dict[str, Any]], Any]]:
    """A function that runs one round of a case, given its arguments."""
    if case.action == "cold":
        yield lambda arguments: run_to_first_line(*_cold_program(contender, **arguments))
        return
    with Child(contender.kind, str(contender.folder)) as child:
        yield lambda arguments: child.ask(case.action, **arguments)


def _cold_program(
    contender: Contender, audio: str, language: str | None, temperature: float | None
) -> tuple[str, str, list[str]]:
    """The program that prints the text of a file: module, function and arguments."""
    folder = str(contender.folder)
    if contender.kind == "baldwhisper-mlx":
        options = ["--language", language] if language else []
        options += [] if temperature is None else ["--temperature", str(temperature)]
        return (
            "baldwhisper_mlx.cli.main",
            "main",
            ["transcribe", "--model", folder, audio, *options],
        )
    arguments = [folder, audio, language or "", str(temperature)]
    return "baldwhisper_mlx.bench.mlx_whisper", "print_text", arguments


def _bound(case: Case, child: Child, ceilings: dict[str, float]) -> float | None:
    """Least seconds of a round, from the bytes or operations that it needs."""
    if case.action == "decode":
        tokens: int = case.arguments["tokens"]
        step: float = child.ask("step_bytes", **case.arguments)
        return tokens * step / ceilings["bytes_per_second"]
    if case.action == "encode":
        flops: float = child.ask("encoder_flops", **case.arguments)
        return flops / ceilings["flops_per_second"]
    return None


def _result(case: Case, replies: list[dict[str, Any]], limit: float | None) -> dict[str, Any]:
    """The result of one contender in a case."""
    seconds = [reply["seconds"] for reply in replies]
    values = [case.amount / s for s in seconds] if case.unit == "tokens/s" else seconds
    value = quartiles(values)
    best = None
    if limit is not None:
        best = case.amount / limit if case.unit == "tokens/s" else limit
    result: dict[str, Any] = {
        "seconds": seconds,
        "value": value,
        "ceiling": best,
        "fraction": None if limit is None else limit / quartiles(seconds)["median"],
    }
    for key in _PEAKS:
        measured = [reply[key] for reply in replies if key in reply]
        result[key] = max(measured) if measured else None
    for key in _COUNTS:
        measured = [reply[key] for reply in replies if key in reply]
        result[key] = sum(measured) if measured else None
    return result


def _progress(case: dict[str, Any], done: int, total: int) -> str:
    parts = [
        f"{name} {result['value']['median']:.4g} {case['unit']}"
        for name, result in case["results"].items()
    ]
    return f"[{done}/{total}] {case['name']}: {'; '.join(parts)}"
