"""Our models and other programs on the same clips, with the same weights, in one run.

Greedy, with timestamps, one process each, sequentially. The result file is written after every
program, and an interrupted run resumes when you rerun the command. A program that is missing or
fails is reported as such. `--ours` adds compressed models, which are other weights, and `--also`
another checkpoint in the programs of `ALSO`.

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
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from baldwhisper_mlx import __version__
from baldwhisper_mlx.bench.machine import load_average
from baldwhisper_mlx.bench.processes import python_command
from baldwhisper_mlx.text.tokenizer import Tokenizer
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
from benchmarks.peers.programs import OURS, PROGRAMS, Program
from benchmarks.result_files import data_name, resume, write_json

SCHEMA = "baldwhisper-peers/1"
TEACHER = "baldwhisper-mlx"
ALSO = (TEACHER, "faster-whisper int8", "whisper.cpp q8_0")
"""The programs that run the checkpoints of --also: ours in full context, and the fastest others."""


@dataclass(frozen=True)
class Contender:
    """What is measured: a program, and the weights that it gets."""

    program: str
    """A name in `PROGRAMS`, or `TEACHER` for our runtime."""
    checkpoint: str | None = None
    """In any format that export reads; None for that of the command line."""
    folder: Path | None = None
    """An exported model instead of a checkpoint."""
    context: str | None = None
    """Audio context of ours; None for the folder's own."""

    @property
    def runs(self) -> Program:
        """What transcribes."""
        return PROGRAMS.get(self.program, OURS)


def run_program(one: Contender, model: Path, clips: Clips, threads: int, language: str) -> Any:
    """Runs one program on all clips in a process of its own, and times its start from here.

    Args:
        one: the program, and the audio context.
        model: the weights in the form that it reads.
        clips: to transcribe.
        threads: for programs that take a number of threads.
        language: of the clips.

    Returns:
        `settings`, `startup_seconds` (process start to model loaded), `first_seconds` (the first
        clip, cold), `times` and `texts` of the clips, `peak_process_bytes`, `pieces` (length to
        times).

    Raises:
        RuntimeError: the program failed; the message is its own.
    """
    job = {
        "program": one.program,
        "model": str(model),
        "threads": threads,
        "language": language,
        "clips": clips.paths,
        "pieces": clips.pieces,
        "audio_context": one.context,
    }
    command = [*python_command("benchmarks.peers.programs"), json.dumps(job)]
    startup, lines = _answers(command, 3 + len(clips.paths) + sum(map(len, clips.pieces.values())))
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


def _answers(command: Sequence[str], expected: int) -> tuple[float, list[dict[str, Any]]]:
    """Seconds until the first line of JSON that a command prints, and all of them.

    Raises:
        RuntimeError: it failed, or did not print `expected` lines; the message is its own.
    """
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
        if process.returncode != 0 or len(lines) != expected:
            log.seek(0)
            said = log.read().strip().splitlines() or [f"exit code {process.returncode}"]
            raise RuntimeError(said[-1])
    return startup, lines


def measure(
    one: Contender, forms: Forms, clips: Clips, threads: int, language: str, tokenizer: Tokenizer
) -> dict[str, Any]:
    """One entry of the result: measured, missing or failed.

    Args:
        one: what is measured.
        forms: of its checkpoint.
        clips: to transcribe.
        threads: for programs that take a number of threads.
        language: of the clips.
        tokenizer: that counts the tokens of a text.
    """
    program = one.runs
    try:
        number = __version__ if program is OURS else version(program.package)
        release = f"{program.package} {number}"
    except PackageNotFoundError:
        return {"status": "missing", "reason": f"{program.package} is not installed"}
    try:
        path = one.folder or forms.path(program.form)
        before = load_average()
        found = run_program(one, path, clips, threads, language)
    except Exception as error:  # of any kind: a failure of another program is its result
        return {"status": "failed", "version": release, "reason": f"{error}"}
    return {
        "status": "measured",
        "version": release,
        "model_bytes": model_bytes(path),
        "load_before": before,
        "load_after": load_average(),
    } | summary(found, clips, tokenizer)


def plan(ours: Sequence[str], also: Sequence[str], only: Sequence[str]) -> dict[str, Contender]:
    """Name to all that is to be measured, in order.

    Raises:
        click.UsageError: something that is not NAME=DIR or NAME=CHECKPOINT, or no such name.
    """
    wanted = {
        TEACHER: Contender(TEACHER, context="full"),
        f"{TEACHER}, padded context": Contender(TEACHER, context="padded"),
    }
    for item in ours:
        name, folder = named_model(item)
        wanted[f"{TEACHER}, {name}"] = Contender(TEACHER, folder=folder)
    wanted |= {name: Contender(name) for name in PROGRAMS}
    for item in also:
        name, _, checkpoint = item.partition("=")
        if not name or not checkpoint:
            raise click.UsageError(f"--also {item}: give NAME=CHECKPOINT")
        for program in ALSO:
            wanted[f"{program}, {name}"] = Contender(program, checkpoint, context="full")
    unknown = [name for name in only if name not in wanted]
    if unknown:
        raise click.UsageError(f"--only {unknown[0]}: none of {', '.join(wanted)}")
    return {name: one for name, one in wanted.items() if not only or name in only}


@click.command(cls=Benchmark)
@click.argument("checkpoint")
@data_option()
@click.option("--ours", multiple=True, metavar="NAME=DIR", help="Another model of ours.")
@click.option("--also", multiple=True, metavar="NAME=CHECKPOINT",
              help=f"Another checkpoint, for {', '.join(ALSO)}.")  # fmt: skip
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
    also: tuple[str, ...],
    only: tuple[str, ...],
    limit: int | None,
    threads: int,
    language: str,
    work: Path,
    output: Path,
) -> None:
    """Measure CHECKPOINT in all programs; results that the output file has are kept.

    Another program that fails is reported as such. If one of our own models fails, the exit code
    is 1.
    """
    wanted = plan(ours, also, only)
    forms: dict[str | None, Forms] = {None: Forms(checkpoint, work / slug(Path(checkpoint).name))}
    for one in wanted.values():
        if one.checkpoint:
            forms[one.checkpoint] = Forms(one.checkpoint, work / slug(Path(one.checkpoint).name))
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
        tokenizer = read_tokenizer(forms[None].path(OURS.form))
        for name, one in wanted.items():
            if result["peers"].get(name, {}).get("status") != "measured":
                click.echo(f"{name} ...", err=True)
                result["peers"][name] = measure(
                    one, forms[one.checkpoint], clips, threads, language, tokenizer
                )
                write_json(output, result)
            click.echo(line(name, result["peers"][name]))
    own = [name for name, one in wanted.items() if one.runs is OURS]
    if failed := [name for name in own if result["peers"][name]["status"] == "failed"]:
        raise click.ClickException(f"failed: {'; '.join(failed)}")


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
