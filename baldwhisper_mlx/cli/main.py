"""The command `baldwhisper`: audio files in, text out.

Only click is imported at the top, so that `--help` answers at once; NumPy, MLX and the rest are
imported when a command runs. Exit codes: 0 success, 1 a file or the model failed, 2 wrong usage,
130 interrupted. Transcripts go to standard output or to files, everything else to standard error.
"""

from __future__ import annotations

import math
import signal
import sys
from pathlib import Path
from typing import Any

import click

from baldwhisper_mlx._version import __version__
from baldwhisper_mlx.cli.bench import bench
from baldwhisper_mlx.cli.evaluate import evaluate
from baldwhisper_mlx.cli.inputs import STDIN, expand, plan_outputs
from baldwhisper_mlx.cli.models import models
from baldwhisper_mlx.cli.reading import exit_program
from baldwhisper_mlx.cli.streams import open_closed_streams
from baldwhisper_mlx.cli.usage import check_input, check_layout, check_output
from baldwhisper_mlx.files import prepare_folder
from baldwhisper_mlx.output.formats import FORMATS
from baldwhisper_mlx.output.subtitles import Layout
from baldwhisper_mlx.terminal import message_of, printable

CHANNELS = ["mix", "left", "right", "split"]
"""As in audio/channels.py, which `--help` should not load."""
INTERRUPTED = 130
"""The shell's code for a process that ended on Ctrl-C: 128 + SIGINT."""


class _Group(click.Group):
    """A group whose commands end with 130 on Ctrl-C, and whose errors are safe to print.

    Click alone would exit with 1, and pass escape sequences on to the terminal.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            # It may quote a file's name, or what a model says about itself.
            raise _printable(error) from None
        except KeyboardInterrupt:
            click.echo("\nInterrupted: outputs written so far are complete.", err=True)
            ctx.exit(INTERRUPTED)


def _printable(error: click.ClickException) -> click.ClickException:
    """The error with its message made safe for a terminal; the same one if it is."""
    message = printable(error.message, keep="\n")
    if message == error.message:
        return error
    if isinstance(error, click.UsageError):
        return click.UsageError(message, error.ctx)
    return click.ClickException(message)


def main() -> None:
    """Runs `baldwhisper`; the entry point of the console script.

    SIGTERM ends it as Ctrl-C does, so that temporary files are removed.
    """
    open_closed_streams()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        cli()
    except KeyboardInterrupt:  # before click was listening
        exit_program(INTERRUPTED)
    except OSError as error:  # standard output is closed or full
        click.echo(f"Error: {message_of(error)}", err=True)
        exit_program(1)
    except SystemExit as ending:
        exit_program(ending.code if isinstance(ending.code, int) else int(ending.code is not None))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="baldwhisper")
def cli() -> None:
    """Transcribe speech with Whisper and BaldWhisper models on MLX."""


cli.add_command(evaluate)


_COUNT = click.IntRange(min=1)


def _finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number.", ctx, param)
    return value


@cli.command(short_help="Transcribe audio files.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-m", "--model",
              help="Model folder, or Hugging Face Hub id such as owner/name. Default: the English "
              "model that comes with the package.")  # fmt: skip
@click.option("--revision", help="Branch, tag or commit of a Hub model.")
@click.option(
    "-l",
    "--language",
    help="Spoken language, as a code or English name. Default: detected in each file.",
)
@click.option("--task", type=click.Choice(["transcribe", "translate"]), default="transcribe",
              show_default=True,
              help="Write the spoken words, or translate them into English.")  # fmt: skip
@click.option("--initial-prompt",
              help="Text to condition the first window on, as if it preceded the audio: names, "
              "spelling, style.")  # fmt: skip
@click.option(
    "--temperature",
    type=click.FloatRange(min=0.0),
    callback=_finite,
    help="Decode at this temperature only. Default: 0, then up to 1 in steps of 0.2 while the "
    "result is repetitive or improbable.",
)
@click.option("--condition-on-previous-text/--no-condition-on-previous-text",
              default=True, show_default=True,
              help="Whether each 30 s window is conditioned on the previous text.")  # fmt: skip
@click.option("--without-timestamps", is_flag=True,
              help="One segment per 30 s window, decoded without timestamps.")  # fmt: skip
@click.option("--word-timestamps", is_flag=True,
              help="Add the start and end of every word (json and subtitles).")  # fmt: skip
@click.option("--highlight-words", is_flag=True,
              help="Mark each word while it is spoken (srt, vtt, lrc, ass); "
              "needs --word-timestamps.")  # fmt: skip
@click.option("--max-line-width", type=_COUNT,
              help="Most characters in a subtitle line; needs --word-timestamps.")  # fmt: skip
@click.option("--max-line-count", type=_COUNT,
              help="Most lines in a subtitle; needs --max-line-width.")  # fmt: skip
@click.option("--max-words-per-line", type=_COUNT,
              help="Most words in a subtitle; needs --word-timestamps, and excludes "
              "--max-line-width.")  # fmt: skip
@click.option("--audio-context", type=click.Choice(["full", "padded"]),
              help="Encode 30 s whatever the length of a clip (full, as OpenAI's Whisper), or the "
              "clip alone with constants for the rest (padded). Default: padded if the model "
              "folder has padding.safetensors.")  # fmt: skip
@click.option("--vad", is_flag=True,
              help="Transcribe only where Silero's detector finds speech, so that nothing is "
              "made up over silence or noise.")  # fmt: skip
@click.option("--batch-size", type=_COUNT, default=1, show_default=True,
              help="Number of parts of a file that are decoded together; it is cut where it is "
              "quiet, and no window is conditioned on the previous text.")  # fmt: skip
@click.option("--track", type=_COUNT, metavar="N",
              help="Number of the audio track, from 1. Default: the one marked as default, or "
              "else the first.")  # fmt: skip
@click.option("--channels", type=click.Choice(CHANNELS), default="mix", show_default=True,
              help="Transcribe the mean of all channels, the left or the right one, or each by "
              "itself (split): segments are then labelled and merged by time.")  # fmt: skip
@click.option("--max-duration", type=click.FloatRange(min=0.0, min_open=True), callback=_finite,
              default=24 * 3600.0, show_default="24 h", metavar="SECONDS",
              help="Refuse recordings that are longer.")  # fmt: skip
@click.option(
    "-f",
    "--output-format",
    "output_format",
    type=click.Choice([*FORMATS, "all"]),
    default="txt",
    show_default=True,
    help="Output format; `all` writes one file per format and needs --output-dir.",
)
@click.option(
    "-o",
    "--output-dir",
    type=click.Path(path_type=Path),
    help="Folder for the results, one file per input and format, named after the input. "
    "Default: standard output.",
)
@click.option("--force", is_flag=True, help="Replace output files that exist.")
@click.option("--skip-existing", is_flag=True,
              help="Skip inputs whose output files all exist.")  # fmt: skip
@click.option("--pcm-rate", type=_COUNT, metavar="HZ",
              help="Read standard input as raw PCM at this sample rate: 16-bit signed integers, "
              "little-endian, one channel.")  # fmt: skip
def transcribe(
    files: tuple[str, ...],
    model: str | None,
    revision: str | None,
    output_format: str,
    output_dir: Path | None,
    force: bool,
    skip_existing: bool,
    pcm_rate: int | None,
    audio_context: str | None,
    highlight_words: bool,
    max_line_width: int | None,
    max_line_count: int | None,
    max_words_per_line: int | None,
    **options: Any,
) -> None:
    """Transcribe audio FILEs; `-` reads one from standard input.

    A FILE can be a folder, for all audio files in it and below, or a quoted pattern such as
    'talks/*.mp3'. Inputs with the same name get numbered outputs, in the order given: talk.txt,
    talk-2.txt. A file that fails is reported, the remaining ones are still transcribed, and the
    exit code is 1.
    """
    if files.count(STDIN) > 1:
        raise click.UsageError("standard input can be read only once: give `-` only once")
    files = tuple(expand(files))
    audio_options = {name: options.pop(name) for name in ("track", "channels", "max_duration")}
    check_input(files, pcm_rate, audio_options["track"], audio_options["channels"])
    check_output(len(files), output_format, output_dir, force, skip_existing)
    layout = Layout(
        highlight_words=highlight_words, max_line_width=max_line_width,
        max_line_count=max_line_count, max_words_per_line=max_words_per_line,
    )  # fmt: skip
    check_layout(layout, options["word_timestamps"])
    formats = list(FORMATS) if output_format == "all" else [output_format]
    plan: list[dict[str, Path]] | None = None
    try:
        if output_dir is not None:
            plan = plan_outputs(files, output_dir, formats, force=force or skip_existing)
            prepare_folder(output_dir)
    except (OSError, ValueError) as error:
        raise click.ClickException(message_of(error)) from None

    from baldwhisper_mlx.cli.transcribe import skip_finished, transcribe_files

    if skip_existing and plan is not None:
        files, plan = skip_finished(files, plan)
    if options["temperature"] is None:
        del options["temperature"]  # transcribe's own default is the schedule
    failed = transcribe_files(
        files, model, revision, layout=layout, printed_format=formats[0], plan=plan,
        force=force, pcm_rate=pcm_rate, audio_context=audio_context, audio_options=audio_options,
        options=options,
    )  # fmt: skip
    if failed and len(files) > 1:
        names = printable(", ".join(failed))
        click.echo(f"{len(failed)} of {len(files)} files failed: {names}", err=True)
    if failed:
        raise click.exceptions.Exit(1)


@cli.command("detect-language", short_help="Print the most probable languages of audio files.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-m", "--model",
              help="Model folder, or Hugging Face Hub id such as owner/name. Default: the model "
              "that comes with the package.")  # fmt: skip
@click.option("--revision", help="Branch, tag or commit of a Hub model.")
@click.option("--windows", type=_COUNT, default=3, show_default=True,
              help="Number of 30 s windows, spread over each file, to average over.")  # fmt: skip
@click.option("--top", type=_COUNT, default=5, show_default=True,
              help="Number of languages to print per file.")  # fmt: skip
def detect_language(
    files: tuple[str, ...], model: str | None, revision: str | None, windows: int, top: int
) -> None:
    """Print the most probable languages of audio FILEs, with their probabilities.

    FILE is a file, a folder, a quoted pattern, or `-` for standard input, as for `transcribe`.
    """
    from baldwhisper_mlx.cli.transcribe import detect_languages

    failed = detect_languages(expand(files), model, revision, windows, top)
    if failed:
        raise click.exceptions.Exit(1)


@cli.command(short_help="Describe a model: layers, vocabulary, precision, size.")
@click.argument("model", required=False)
@click.option("--revision", help="Branch, tag or commit of a Hub model.")
def info(model: str | None, revision: str | None) -> None:
    """Describe MODEL: layers, vocabulary, parameters, precision and size on disk.

    MODEL is a folder or a Hugging Face Hub id such as owner/name; by default the model that comes
    with the package.
    """
    from baldwhisper_mlx.checkpoint.describe import describe_model
    from baldwhisper_mlx.checkpoint.files import find_model

    try:
        lines = describe_model(find_model(model, revision))
    except (OSError, ValueError) as error:
        raise click.ClickException(message_of(error)) from None
    width = max(map(len, lines))
    for label, text in lines.items():
        click.echo(f"{label:<{width}}  {printable(text)}")


cli.add_command(bench)
cli.add_command(models)
