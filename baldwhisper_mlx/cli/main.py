"""The command `baldwhisper`: audio files in, text out.

Only click is imported at the top, so that `--help` answers at once; NumPy, MLX and the rest are
imported when a command runs. Exit codes: 0 success, 1 a file or the model failed, 2 wrong usage,
130 interrupted. Transcripts go to standard output or to files, everything else to standard error.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import click

from baldwhisper_mlx._version import __version__
from baldwhisper_mlx.cli.bench import bench
from baldwhisper_mlx.cli.detect_language import detect_language
from baldwhisper_mlx.cli.evaluate import evaluate
from baldwhisper_mlx.cli.live import live
from baldwhisper_mlx.cli.models import models
from baldwhisper_mlx.cli.reading import exit_program
from baldwhisper_mlx.cli.serve import serve
from baldwhisper_mlx.cli.streams import open_closed_streams
from baldwhisper_mlx.cli.transcribe import transcribe
from baldwhisper_mlx.terminal import message_of, printable

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


for command in (transcribe, live, serve, detect_language, evaluate, bench, models):
    cli.add_command(command)
