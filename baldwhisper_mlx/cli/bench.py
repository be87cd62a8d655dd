"""The command `baldwhisper bench`: checks its options before anything is measured.

Only click is imported at the top; the rest loads when the command runs.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from baldwhisper_mlx.bench.cases import (
    BATCHES,
    CLIP_SECONDS,
    PROTOCOLS,
    TOKENS,
    WITH_AUDIO,
    Settings,
)
from baldwhisper_mlx.files import write_files
from baldwhisper_mlx.terminal import message_of, printable

if TYPE_CHECKING:
    from baldwhisper_mlx.bench.runner import Contender

_PEERS = ("mlx-whisper",)


@click.command()
@click.argument("audio", nargs=-1)
@click.option(
    "--student",
    metavar="DIR_OR_HUB",
    help="The compressed model. Default: the bundled model.",
)
@click.option(
    "--teacher",
    metavar="DIR_OR_HUB",
    help="The model that the student is compared with, such as whisper-base.",
)
@click.option(
    "--peer",
    type=click.Choice(_PEERS),
    help="Run the teacher in this program too, compared in a separate table.",
)
@click.option(
    "-p",
    "--protocol",
    "protocols",
    type=click.Choice(PROTOCOLS),
    multiple=True,
    help="Only this protocol; repeatable. Default: all; clip and cold only with AUDIO.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Rounds of each case; at most three for clips over a minute.",
)
@click.option(
    "--tokens",
    type=click.IntRange(min=1),
    default=TOKENS,
    show_default=True,
    help="Forced tokens for each clip in the protocols paper and decode.",
)
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(min=1),
    multiple=True,
    default=BATCHES,
    show_default=True,
    help="Batch size of the protocol decode; repeatable.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    multiple=True,
    default=CLIP_SECONDS,
    show_default=True,
    help="Length of the clips that are cut from AUDIO; repeatable.",
)
@click.option("-l", "--language", help="Code of the spoken language; detected if not given.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    help="Decode at this temperature only, without fallback to others.",
)
@click.option(
    "--wer",
    "errors",
    multiple=True,
    metavar="NAME=PERCENT",
    help="Word error rate of student or teacher for the plot, such as student=5.2; repeatable.",
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Write the result to this file."
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    help="Draw the result as .png or .svg; needs matplotlib.",
)
@click.option("--force", is_flag=True, help="Replace output files that exist.")
def bench(
    audio: tuple[str, ...],
    student: str | None,
    teacher: str | None,
    peer: str | None,
    json_path: Path | None,
    plot: Path | None,
    errors: tuple[str, ...],
    force: bool,
    **options: Any,
) -> None:
    """Measure the speed of a student, compared with its teacher and the machine's limits.

    AUDIO is speech for the protocols clip and cold: files, or folders of them. The protocols:
    paper, 256 forced tokens for each of 10 clips; decode, the same at several batch sizes with
    timestamps; encode, features to encoder states; clip, an audio file to its first token and to
    its final text; cold, from the start of the program to the text. Contenders take turns. Tables
    have medians, with quartiles in brackets.
    """
    if peer and not teacher:
        raise click.UsageError("--peer runs the teacher in another program: give --teacher too")
    settings = _settings(bool(audio), options)
    rates = _error_rates(errors)
    _check_outputs([path for path in (json_path, plot) if path is not None], plot, force)
    result = _measure(audio, student, teacher, peer, settings)

    from baldwhisper_mlx.bench.report_text import render

    click.echo(printable(render(result), keep="\n"))
    try:
        if json_path is not None:
            write_files({json_path: json.dumps(result, indent=1) + "\n"}, force=force)
        if plot is not None:
            from baldwhisper_mlx.bench.plot import draw, save

            save(draw(result, rates), plot)
    except OSError as error:
        raise click.ClickException(message_of(error)) from None


def _settings(audio: bool, options: dict[str, Any]) -> Settings:
    """The options as settings; without audio, only the protocols that need none."""
    chosen = options["protocols"]
    if not audio:
        impossible = [name for name in chosen if name in WITH_AUDIO]
        if impossible:
            raise click.UsageError(f"{' and '.join(impossible)} need AUDIO: give files of speech")
        if not chosen:
            click.echo(f"no AUDIO: the protocols {' and '.join(WITH_AUDIO)} are left out", err=True)
            chosen = tuple(name for name in PROTOCOLS if name not in WITH_AUDIO)
    return Settings(
        protocols=tuple(name for name in PROTOCOLS if name in chosen) or PROTOCOLS,
        rounds=options["rounds"],
        tokens=options["tokens"],
        batches=tuple(options["batches"]),
        clip_seconds=tuple(options["seconds"]),
        language=options["language"],
        temperature=options["temperature"],
    )


def _error_rates(items: tuple[str, ...]) -> dict[str, float]:
    rates = {}
    for item in items:
        name, _, value = item.partition("=")
        try:
            rates[name] = float(value)
        except ValueError:
            raise click.UsageError(
                f"--wer {item}: give NAME=PERCENT, such as student=5.2"
            ) from None
        if name not in ("student", "teacher"):
            raise click.UsageError(f"--wer {item}: NAME is student or teacher")
    return rates


def _check_outputs(paths: list[Path], plot: Path | None, force: bool) -> None:
    """Refuses outputs that could not be written, before anything is measured."""
    for path in paths:
        if not path.parent.is_dir():
            raise click.ClickException(f"{path}: no such folder {path.parent}; make it first")
        if path.is_dir():
            raise click.ClickException(f"{path}: is a folder; give a file name")
        if path.exists() and not force:
            raise click.ClickException(f"{path}: exists; use --force to replace it")
    if plot is None:
        return
    import importlib.util

    from baldwhisper_mlx.bench.plot import FORMATS

    if plot.suffix not in FORMATS:
        raise click.UsageError(
            f"--plot {plot}: give a file name that ends in {' or '.join(FORMATS)}"
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise click.ClickException('--plot needs matplotlib: pip install "baldwhisper-mlx[bench]"')


def _measure(
    audio: tuple[str, ...],
    student: str | None,
    teacher: str | None,
    peer: str | None,
    settings: Settings,
) -> dict[str, Any]:
    from baldwhisper_mlx.bench.audio_clips import write_clips
    from baldwhisper_mlx.bench.cases import make_cases
    from baldwhisper_mlx.bench.runner import run_benchmark

    command = shlex.join(["baldwhisper", *sys.argv[1:]])
    with tempfile.TemporaryDirectory() as name:
        try:
            contenders = _contenders(student, teacher, peer, Path(name))
            lengths = settings.audio_seconds()
            clips = write_clips(audio, lengths, settings.rounds, Path(name)) if lengths else {}
            return run_benchmark(
                contenders,
                make_cases(settings, clips),
                settings,
                command=command,
                notify=lambda line: click.echo(printable(line, keep="\n"), err=True),
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise click.ClickException(message_of(error)) from None


def _contenders(
    student: str | None, teacher: str | None, peer: str | None, work: Path
) -> list[Contender]:
    from baldwhisper_mlx.bench.runner import PEER, STUDENT, TEACHER, Contender
    from baldwhisper_mlx.checkpoint.files import find_model

    ours = "baldwhisper-mlx"
    folder = find_model(student)
    contenders = [Contender(name=STUDENT, kind=ours, folder=folder, model=_label(student, folder))]
    if teacher is not None:
        folder = find_model(teacher)
        label = _label(teacher, folder)
        contenders.append(Contender(name=TEACHER, kind=ours, folder=folder, model=label))
        if peer is not None:
            from importlib.util import find_spec

            from baldwhisper_mlx.bench.processes import isolated
            from baldwhisper_mlx.bench.worker import write_mlx_whisper

            if find_spec("mlx_whisper") is None:
                raise ValueError(f'{peer} is not installed: pip install "baldwhisper-mlx[bench]"')
            theirs = work / peer
            isolated(write_mlx_whisper, str(folder), str(theirs))
            folder = theirs
            contenders.append(Contender(name=PEER, kind=peer, folder=folder, model=label))
    return contenders


def _label(name: str | None, folder: Path) -> str:
    """The last part of the name that the user gave: a folder of the Hub's cache is a hash."""
    return Path(name).resolve().name if name else folder.name
