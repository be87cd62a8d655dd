"""Runs all measurements of a machine in sequence, and writes the pages from the results.

    python -m benchmarks.run_all --checkpoint CKPT --teacher DIR --student DIR --data AUDIOFOLDER

Each result is a file named by the chip. Results that exist are kept, and an interrupted run
resumes when you rerun the command. `make bench` runs this.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from baldwhisper_mlx.bench.machine import chip
from baldwhisper_mlx.checkpoint.files import BUNDLED, MODEL_FILES
from baldwhisper_mlx.config import PADDING_FILE
from benchmarks.machines import slug
from benchmarks.options import Benchmark, data_option, language_option

RESULTS = Path("benchmarks/results")
_BALDWHISPER = "from baldwhisper_mlx.cli.main import main; main()"
QUICK = {
    "bench": "--rounds 1 --tokens 8 --batch 1 --seconds 1 --seconds 10",
    "peers": "--limit 1",
    "scaling": "--length 10 --length 40 --batch 1 --batch 2 --tokens 8",
    "profile": "--repeats 1",
}
"""Options that check in a minute or two whether everything runs; the figures mean nothing."""


def commands(
    checkpoint: str,
    teacher: Path,
    students: dict[str, Path],
    data: Path,
    results: Path,
    *,
    language: str,
    quick: bool,
) -> Iterator[tuple[str, Path, list[str]]]:
    """Kind, result file and command of each measurement.

    Args:
        checkpoint: the teacher's weights in any format that export reads, for the other programs.
        teacher: the teacher, exported.
        students: name to folder; the one called `student` is compared with the teacher.
        data: folder of recordings with a metadata.jsonl.
        results: folder for the result files.
        language: of the recordings.
        quick: only check whether everything runs.
    """
    models = students | {"teacher": teacher}
    named = [f"{name}={folder}" for name, folder in models.items()]
    speak = ["--language", language]

    def command(kind: str, program: list[str], *arguments: str) -> tuple[str, Path, list[str]]:
        path = results / f"{kind}-{slug(chip())}.json"
        where = ["--json" if kind == "bench" else "--output", str(path)]
        more = QUICK[kind].split() if quick else []
        return kind, path, [sys.executable, *program, *arguments, *where, *more]

    pair = ["--teacher", str(teacher), "--peer", "mlx-whisper"]
    if students["student"] != BUNDLED:  # the default; a result states no path of the machine
        pair += ["--student", str(students["student"])]
    yield command("bench", ["-c", _BALDWHISPER], "bench", str(data), *pair, *speak)
    ours = [word for name, folder in students.items() for word in ("--ours", f"{name}={folder}")]
    peers = ["--data", str(data), *ours, *speak]
    yield command("peers", ["-m", "benchmarks.peers"], checkpoint, *peers)
    repeated = [word for name in named for word in ("--model", name)]
    yield command("scaling", ["-m", "benchmarks.speed.scaling"], str(data), *repeated, *speak)
    yield command("profile", ["-m", "benchmarks.speed.profile_model"], *named)


def read_students(items: tuple[str, ...]) -> dict[str, Path]:
    """Students by name; the model that comes with the package, if it is there, if none is named.

    Raises:
        click.UsageError: not NAME=DIR of a model folder, or none called `student`.
    """
    if not items and all((BUNDLED / name).is_file() for name in MODEL_FILES):
        return {"student": BUNDLED}
    found = {}
    for item in items:
        name, _, folder = item.rpartition("=")
        found[name or "student"] = Path(folder)
        if not Path(folder, MODEL_FILES[0]).is_file():
            raise click.UsageError(f"--student {item}: give DIR or NAME=DIR of a model folder")
    if "student" not in found:
        raise click.UsageError("name the model to compare with the teacher: --student DIR")
    return found


def check_teacher(folder: Path) -> None:
    """Refuses a teacher that would be measured in the padded context without anybody asking.

    Raises:
        click.UsageError: its folder has the constants.
    """
    if (folder / PADDING_FILE).is_file():
        raise click.UsageError(
            f"--teacher {folder}: has the constants of the padded audio context ({PADDING_FILE}), "
            "but the teacher is measured in full context; export it with --no-padding. The "
            "comparison with other programs has both contexts of --checkpoint"
        )


@click.command(cls=Benchmark)
@click.option(
    "--checkpoint",
    required=True,
    metavar="MODEL",
    help="The teacher in any format that export reads.",
)
@click.option("--teacher", required=True, type=click.Path(exists=True, path_type=Path),
              metavar="DIR", help="The teacher, exported with --no-padding.")  # fmt: skip
@click.option("--student", "students", multiple=True, metavar="[NAME=]DIR",
              help="An exported student; repeatable. Default: the bundled model.")  # fmt: skip
@data_option()
@click.option(
    "--results",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help=f"Folder of the result files. Default: {RESULTS}.",
)
@language_option
@click.option(
    "--quick", is_flag=True, help="Only check whether everything runs; writes to .cache/quick."
)
def main(
    checkpoint: str,
    teacher: Path,
    students: tuple[str, ...],
    data: Path,
    results: Path | None,
    language: str,
    quick: bool,
) -> None:
    """Run all measurements, and write the pages and plots."""
    results = results or (Path(".cache/quick") if quick else RESULTS)
    results.mkdir(parents=True, exist_ok=True)
    models = read_students(students)
    check_teacher(teacher)
    plan = commands(checkpoint, teacher, models, data, results, language=language, quick=quick)
    for kind, path, command in plan:
        if path.exists() and kind in ("bench", "profile"):
            click.echo(f"{path}: exists, kept", err=True)
            continue  # the others resume from their files
        click.echo(f"$ {shlex.join(command)}", err=True)
        if subprocess.run(command, check=False).returncode:
            raise click.ClickException(f"{kind} failed; rerun the command to resume")
    if results == RESULTS:
        subprocess.run([sys.executable, "-m", "benchmarks.report"], check=True)


if __name__ == "__main__":
    main()
