"""Our models and other programs on the same clips, with the same weights, in one run.

Greedy, with timestamps, one process each, sequentially. The result file is written after every
program, and an interrupted run resumes when you rerun the command. A program that is missing or
fails is reported as such. `--ours` adds compressed models, which are other weights.

    python -m benchmarks.peers CHECKPOINT --data AUDIOFOLDER --ours "student=DIR"

CHECKPOINT is in any format that export reads; AUDIOFOLDER has a metadata.jsonl (file_name, text).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from baldwhisper_mlx import __version__
from baldwhisper_mlx.bench.machine import load_average
from baldwhisper_mlx.bench.processes import python_command
from benchmarks.machines import describe, fast_cores, slug
from benchmarks.options import (
    Benchmark,
    data_option,
    language_option,
    limit_option,
    named_model,
    output_option,
)
from benchmarks.peers.figures import Clips, read_tokenizer, summary
from benchmarks.peers.models import Forms, model_bytes
from benchmarks.peers.programs import OURS, PROGRAMS
from benchmarks.result_files import data_name, resume, write_json

SCHEMA = "baldwhisper-peers/1"
TEACHER = "baldwhisper-mlx"
PADDED = f"{TEACHER}, padded context"
CONTEXTS = {TEACHER: "full", PADDED: "padded"}
"""Of the checkpoint's rows; our other models run in their folders' own."""


def run_program(program: str, model: Path, clips: Clips, threads: int, language: str) -> Any:
    """Runs one program on all clips in a process of its own, and times its start from here.

    Returns:
        `settings`, `startup_seconds` (process start to model loaded), `first_seconds` (the first
        clip, cold), `times` and `texts` of the clips, `peak_process_bytes`, `pieces` (length to
        times).

    Raises:
        RuntimeError: the program failed; the message is its own.
    """
    job = {
        "program": program,
        "model": str(model),
        "threads": threads,
        "language": language,
        "clips": clips.paths,
        "pieces": clips.pieces,
        "audio_context": CONTEXTS.get(program),
    }
    command = [*python_command("benchmarks.peers.programs"), json.dumps(job)]
    with tempfile.TemporaryFile(mode="w+") as log:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        startup, lines = 0.0, []
        try:
            for line in process.stdout:
                if line.startswith("{"):  # a program may print what it likes besides
                    lines.append(json.loads(line))
                    startup = startup or time.perf_counter() - began
        finally:
            process.stdout.close()
            if sys.exc_info()[0]:  # interrupted
                process.kill()
            process.wait()
        expected = 3 + len(clips.paths) + sum(map(len, clips.pieces.values()))
        if process.returncode != 0 or len(lines) != expected:
            log.seek(0)
            said = log.read().strip().splitlines() or [f"exit code {process.returncode}"]
            raise RuntimeError(said[-1])
    settings, first = lines[:2]
    after_clips = 2 + len(clips.paths)
    clips_done, peak, pieces = lines[2:after_clips], lines[after_clips], lines[after_clips + 1 :]
    return {
        "settings": settings["settings"],
        "startup_seconds": startup,
        "first_seconds": first["seconds"],
        "times": [line["seconds"] for line in clips_done],
        "texts": [line["text"] for line in clips_done],
        "peak_process_bytes": peak["peak_process_bytes"],
        "pieces": {
            str(length): [line["seconds"] for line in pieces if line["length"] == str(length)]
            for length in clips.pieces
        },
    }


def measure(
    name: str, model: Path | None, forms: Forms, clips: Clips, threads: int, language: str
) -> dict[str, Any]:
    """One entry of the result: measured, missing or failed.

    Args:
        name: of the program, or of one of our models.
        model: folder of our model; None for the checkpoint in the form the program reads.
        forms: of the checkpoint.
        clips: to transcribe.
        threads: for programs that take a number of threads.
        language: of the clips.
    """
    program = PROGRAMS.get(name, OURS)
    try:
        number = __version__ if program is OURS else version(program.package)
        release = f"{program.package} {number}"
    except PackageNotFoundError:
        return {"status": "missing", "reason": f"{program.package} is not installed"}
    try:
        path = model or forms.path(program.form)
        before = load_average()
        found = run_program(name, path, clips, threads, language)
    except Exception as error:  # of any kind: a failure of another program is its result
        return {"status": "failed", "version": release, "reason": f"{error}"}
    return {
        "status": "measured",
        "version": release,
        "model_bytes": model_bytes(path),
        "load_before": before,
        "load_after": load_average(),
    } | summary(found, clips, read_tokenizer(forms.path(OURS.form)))


def plan(ours: Sequence[str], only: Sequence[str]) -> dict[str, Path | None]:
    """Name to folder of all that is to be measured, in order.

    Raises:
        click.UsageError: a model of ours that is not NAME=DIR, or no such name.
    """
    wanted: dict[str, Path | None] = dict.fromkeys(CONTEXTS)
    for item in ours:
        name, folder = named_model(item)
        wanted[f"{TEACHER}, {name}"] = folder
    wanted |= dict.fromkeys(PROGRAMS)
    unknown = [name for name in only if name not in wanted]
    if unknown:
        raise click.UsageError(f"--only {unknown[0]}: none of {', '.join(wanted)}")
    return {name: path for name, path in wanted.items() if not only or name in only}


@click.command(cls=Benchmark)
@click.argument("checkpoint")
@data_option()
@click.option("--ours", multiple=True, metavar="NAME=DIR", help="Another model of ours.")
@click.option("--only", multiple=True, metavar="NAME", help="Only this program; repeatable.")
@limit_option
@click.option("--threads", type=click.IntRange(min=1), default=fast_cores(), show_default=True,
              help="For programs that take a number of threads.")  # fmt: skip
@language_option
@click.option("--work", type=click.Path(path_type=Path), default=".cache/peers", show_default=True,
              help="Folder for the weights in other programs' formats.")  # fmt: skip
@output_option("peers")
def main(
    checkpoint: str,
    data: Path,
    ours: tuple[str, ...],
    only: tuple[str, ...],
    limit: int | None,
    threads: int,
    language: str,
    work: Path,
    output: Path,
) -> None:
    """Measure CHECKPOINT in all programs; results that the output file has are kept."""
    wanted = plan(ours, only)
    forms = Forms(checkpoint, work / slug(Path(checkpoint).name))
    with tempfile.TemporaryDirectory() as folder:
        clips = Clips(data, limit, Path(folder))
        empty: dict[str, Any] = {
            "schema": SCHEMA,
            "machine": describe(),
            "checkpoint": Path(checkpoint).name,
            "data": data_name(data),
            "clips": len(clips.rows),
            "audio_seconds": round(sum(clips.seconds), 1),
            "language": language,
            "threads": threads,
            "peers": {},
        }
        result = resume(output, empty, "peers")
        for name, model in wanted.items():
            if result["peers"].get(name, {}).get("status") != "measured":
                click.echo(f"{name} ...", err=True)
                result["peers"][name] = measure(name, model, forms, clips, threads, language)
                write_json(output, result)
            click.echo(line(name, result["peers"][name]))


def line(name: str, found: dict[str, Any]) -> str:
    """One program in a line."""
    if found["status"] != "measured":
        return f"{name}: {found['status']} ({found['reason']})"
    settings = ", ".join(f"{key} {value}" for key, value in found["settings"].items())
    wer = "-" if found["wer"] is None else f"{100 * found['wer']:.2f} %"
    return (
        f"{name} ({found['version']}): RTF {found['rtf']:.4f}, "
        f"{found['tokens_per_second']:.1f} tokens/s, WER {wer}, "
        f"peak {found['peak_process_bytes'] / 1e6:.0f} MB, "
        f"start {found['startup_seconds']:.2f} s ({settings})"
    )


if __name__ == "__main__":
    main()
