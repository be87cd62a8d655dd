"""The command `baldwhisper`: audio files in, text out.

Only click is imported at the top, so that `--help` answers at once; NumPy, MLX and the rest
load when a command runs. Exit codes: 0 all done, 1 something failed, 2 wrong usage,
130 interrupted. Transcripts go to standard output or to files, everything else to standard error.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import Any

import click

from baldwhisper_mlx._version import __version__
from baldwhisper_mlx.cli.bench import bench
from baldwhisper_mlx.cli.evaluate import evaluate
from baldwhisper_mlx.cli.inputs import STDIN, expand, plan_outputs
from baldwhisper_mlx.files import prepare_folder
from baldwhisper_mlx.output.subtitles import PLAIN, Layout
from baldwhisper_mlx.output.writers import WRITERS, writers_with

INTERRUPTED = 130
"""The shell's code for a process that ended on Ctrl-C: 128 + SIGINT."""


class _Group(click.Group):
    """A group whose commands end with 130 on Ctrl-C; click alone would say 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\nInterrupted: finished outputs are whole, the rest is absent.", err=True)
            ctx.exit(INTERRUPTED)


def main() -> None:
    """Runs `baldwhisper`; the entry point of the console script."""
    try:
        cli()
    except KeyboardInterrupt:  # before click was listening
        sys.exit(INTERRUPTED)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="baldwhisper")
def cli() -> None:
    """Speech recognition with Whisper and BaldWhisper models on MLX."""


cli.add_command(evaluate)


_COUNT = click.IntRange(min=1)


def _finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a temperature.", ctx, param)
    return value


@cli.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "-m",
    "--model",
    help="Model folder, or id on the Hugging Face Hub. By default the English model that comes "
    "with the package.",
)
@click.option("--revision", help="Branch, tag or commit of a Hub model.")
@click.option(
    "-l", "--language", help="Code or English name of the spoken language; detected if not given."
)
@click.option(
    "--task",
    type=click.Choice(["transcribe", "translate"]),
    default="transcribe",
    show_default=True,
    help="Write what is said, or translate it into English.",
)
@click.option("--initial-prompt", help="Text the audio seems to follow: names, spelling, style.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0.0),
    callback=_finite,
    help="Sample at this temperature only. By default 0, raised in steps of 0.2 up to 1 "
    "where the result is repetitive or improbable.",
)
@click.option(
    "--condition-on-previous-text/--no-condition-on-previous-text",
    default=True,
    show_default=True,
    help="Whether each 30 s window is told the text before it.",
)
@click.option("--without-timestamps", is_flag=True, help="Text only, one segment per 30 s window.")
@click.option(
    "--word-timestamps", is_flag=True, help="The time of every word, in json, srt and vtt."
)
@click.option("--highlight-words", is_flag=True,
              help="In srt and vtt, underline each word as it is said.")  # fmt: skip
@click.option("--max-line-width", type=_COUNT, help="Characters of a line of srt and vtt.")
@click.option("--max-line-count", type=_COUNT,
              help="Lines of a subtitle; with --max-line-width only.")  # fmt: skip
@click.option("--max-words-per-line", type=_COUNT,
              help="Words of a subtitle; not with --max-line-width.")  # fmt: skip
@click.option("--vad", is_flag=True,
              help="Transcribe only where Silero's detector finds speech, so that nothing is "
              "made up over silence or noise.")  # fmt: skip
@click.option("--batch-size", type=_COUNT, default=1, show_default=True,
              help="Stretches of audio decoded at once, cut where it is quiet; no window is told "
              "the text before it.")  # fmt: skip
@click.option(
    "-f",
    "--output-format",
    "output_format",
    type=click.Choice([*WRITERS, "all"]),
    default="txt",
    show_default=True,
    help="What to write; all needs --output-dir.",
)
@click.option(
    "-o",
    "--output-dir",
    type=click.Path(path_type=Path),
    help="Write a file per input and format here, named after the input. Without it the "
    "result goes to standard output.",
)
@click.option("--force", is_flag=True, help="Replace outputs that are already there.")
@click.option("--skip-existing", is_flag=True, help="Leave out files whose outputs are all there.")
@click.option("--pcm-rate", type=_COUNT, metavar="HZ",
              help="Standard input is raw PCM: 16 bits, little-endian, one channel.")  # fmt: skip
def transcribe(
    files: tuple[str, ...],
    model: str | None,
    revision: str | None,
    output_format: str,
    output_dir: Path | None,
    force: bool,
    skip_existing: bool,
    pcm_rate: int | None,
    highlight_words: bool,
    max_line_width: int | None,
    max_line_count: int | None,
    max_words_per_line: int | None,
    **options: Any,
) -> None:
    """Transcribe audio FILEs; `-` reads one from standard input.

    A folder stands for the audio files in it and below, a pattern in quotes for what fits it.
    Inputs of the same name get outputs numbered in the order given: talk.txt, talk-2.txt. A file
    that fails is reported and the others go on; the exit code is then 1.
    """
    if files.count(STDIN) > 1:
        raise click.UsageError("standard input can be read once: give `-` a single time")
    files = tuple(expand(files))
    _check_usage(files, output_format, output_dir)
    if skip_existing and (force or output_dir is None):
        raise click.UsageError("--skip-existing goes with --output-dir, and not with --force")
    if pcm_rate is not None and files != (STDIN,):
        raise click.UsageError("--pcm-rate is for raw PCM on standard input alone: give just `-`")
    layout = Layout(
        highlight_words=highlight_words,
        max_line_width=max_line_width,
        max_line_count=max_line_count,
        max_words_per_line=max_words_per_line,
    )
    _check_layout(layout, options["word_timestamps"])
    formats = list(WRITERS) if output_format == "all" else [output_format]
    plan: list[dict[str, Path]] | None = None
    try:
        if output_dir is not None:
            plan = plan_outputs(files, output_dir, formats, force=force or skip_existing)
            prepare_folder(output_dir)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None

    if skip_existing and plan is not None:
        files, plan = _without_existing(files, plan)
    from baldwhisper_mlx.cli.transcribe import transcribe_files

    if options["temperature"] is None:
        del options["temperature"]  # transcribe's own default is the schedule
    failed = transcribe_files(
        files, model, revision, writers=writers_with(layout), printed_format=formats[0],
        plan=plan, force=force, pcm_rate=pcm_rate, options=options,
    )  # fmt: skip
    if failed:
        if len(files) > 1:
            click.echo(f"{len(failed)} of {len(files)} files failed: {', '.join(failed)}", err=True)
        raise click.exceptions.Exit(1)


@cli.command("detect-language")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-m", "--model", help="Model folder or Hub id; by default the bundled model.")
@click.option("--revision", help="Branch, tag or commit of a Hub model.")
@click.option("--windows", type=_COUNT, default=3, show_default=True,
              help="Windows of 30 s, spread over each file, to listen to.")  # fmt: skip
@click.option("--top", type=_COUNT, default=5, show_default=True, help="Languages to name.")
def detect_language(
    files: tuple[str, ...], model: str | None, revision: str | None, windows: int, top: int
) -> None:
    """Say which languages are spoken in audio FILEs, with probabilities."""
    from baldwhisper_mlx.cli.transcribe import detect_languages

    failed = detect_languages(expand(files), model, revision, windows, top)
    if failed:
        raise click.exceptions.Exit(1)


@cli.command()
@click.argument("model", required=False)
@click.option("--revision", help="Branch, tag or commit of a Hub model.")
def info(model: str | None, revision: str | None) -> None:
    """Describe MODEL, a folder or an id on the Hugging Face Hub; or the bundled model."""
    from baldwhisper_mlx.checkpoint.describe import describe_model
    from baldwhisper_mlx.checkpoint.files import find_model

    try:
        lines = describe_model(find_model(model, revision))
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    width = max(map(len, lines))
    for label, text in lines.items():
        click.echo(f"{label:<{width}}  {text}")


cli.add_command(bench)


def _check_usage(files: tuple[str, ...], output_format: str, output_dir: Path | None) -> None:
    if STDIN in files and sys.stdin.isatty():
        raise click.UsageError("`-` reads audio from standard input: pipe a file into it")
    if output_dir is not None:
        return
    if output_format == "all":
        raise click.UsageError("--output-format all writes several files: give --output-dir")
    if len(files) > 1 and output_format != "txt":
        raise click.UsageError(
            f"several files as {output_format} cannot share standard output: give --output-dir"
        )


def _without_existing(
    files: tuple[str, ...], plan: list[dict[str, Path]]
) -> tuple[tuple[str, ...], list[dict[str, Path]]]:
    """Files with an output that is not there yet, and those outputs; says how many are left out."""
    missing = [
        {kind: path for kind, path in outputs.items() if not os.path.lexists(path)}
        for outputs in plan
    ]
    kept = [i for i, outputs in enumerate(missing) if outputs]
    if len(kept) < len(files):
        click.echo(f"{len(files) - len(kept)} of {len(files)} files are done already", err=True)
    return tuple(files[i] for i in kept), [missing[i] for i in kept]


def _check_layout(layout: Layout, word_timestamps: bool) -> None:
    if layout != PLAIN and not word_timestamps:
        raise click.UsageError("lines and highlights are made of words: give --word-timestamps")
    if layout.max_line_count is not None and layout.max_line_width is None:
        raise click.UsageError("--max-line-count goes with --max-line-width")
    if layout.max_words_per_line is not None and layout.max_line_width is not None:
        raise click.UsageError("give --max-words-per-line or --max-line-width, not both")
