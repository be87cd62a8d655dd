"""`baldwhisper-convert`: the compressor's stages as commands.

torch takes seconds to import, so a command imports what it needs when it runs; `--help`
and wrong options answer at once.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click

from baldwhisper_mlx._version import __version__
from baldwhisper_mlx.config import AudioContext, Dtype


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="baldwhisper-convert")
def main() -> None:
    """Turn Whisper checkpoints into models for baldwhisper-mlx."""


@main.command()
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST", type=click.Path(path_type=Path))
@click.option(
    "--dtype",
    type=click.Choice(get_args(Dtype)),
    default="float16",
    show_default=True,
    help="Type the weights are stored in.",
)
@click.option("--revision", help="Branch, tag or commit, if SRC is a hub id.")
@click.option(
    "--tokenizer",
    metavar="PATH_OR_HUB_ID",
    help="Where to take the tokenizer from; by default SRC, and if that has none, OpenAI's.",
)
@click.option("--force", is_flag=True, help="Replace DST if it is an exported model.")
@click.option(
    "--audio-context",
    type=click.Choice(get_args(AudioContext)),
    default="full",
    show_default=True,
    help="What the model was trained for; anything but full makes others less accurate.",
)
def export(
    source: str,
    destination: Path,
    dtype: Dtype,
    revision: str | None,
    tokenizer: str | None,
    force: bool,
    audio_context: AudioContext,
) -> None:
    """Convert the checkpoint SRC to the model folder DST.

    SRC is a Hugging Face, CTranslate2 (faster-whisper) or mlx-community folder, an OpenAI .pt
    file, or a hub id such as openai/whisper-base. DST is written whole or not at all.
    """
    with _one_line_errors():
        from baldwhisper_convert.checkpoint import read_checkpoint
        from baldwhisper_convert.export import check_destination, export_mlx

        check_destination(destination, source, force=force)
        checkpoint = read_checkpoint(source, revision=revision, tokenizer=tokenizer)
        path = export_mlx(
            checkpoint, destination, dtype=dtype, audio_context=audio_context, force=force
        )
        size = sum(file.stat().st_size for file in path.iterdir())
        click.echo(f"{path}: {checkpoint.format} checkpoint as {dtype}, {size / 1e6:.1f} MB")


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Expected errors and the sources' warnings as one line each; anything else is a bug
    and keeps its traceback. SIGTERM unwinds like Ctrl-C, so that nothing half is left."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            yield
        except (ValueError, OSError) as error:
            raise click.ClickException(" ".join(str(error).split())) from None


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if category.__name__ == "SourceWarning":
        click.echo(f"Warning: {message}", err=True)


if __name__ == "__main__":
    main()
