"""The command `baldwhisper detect-language`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from baldwhisper_mlx.cli.inputs import expand
from baldwhisper_mlx.cli.reporting import FILE_ERRORS, is_readable, label, report
from baldwhisper_mlx.cli.usage import several

if TYPE_CHECKING:
    from baldwhisper_mlx.audio.buffer import Samples


@click.command("detect-language", short_help="Print the most probable languages of audio files.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-m", "--model",
              help="Model folder, or Hugging Face Hub id such as owner/name. Default: the model "
              "that comes with the package.")  # fmt: skip
@click.option("--revision", help="Branch, tag or commit of a Hub model.")
@click.option("--windows", type=click.IntRange(min=1), default=3, show_default=True,
              help="Number of 30 s windows, spread over each file, to average over.")  # fmt: skip
@click.option("--per-window", is_flag=True,
              help="Print a line for every 30 s of a file instead, with its time.")  # fmt: skip
@click.option("--languages", metavar="CODES", callback=several,
              help="Languages to choose from, with commas between them, such as en,fr,de. "
              "Default: all that the model knows.")  # fmt: skip
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True,
              help="Number of languages to print per file.")  # fmt: skip
@click.pass_context
def detect_language(
    ctx: click.Context,
    files: tuple[str, ...],
    model: str | None,
    revision: str | None,
    windows: int,
    per_window: bool,
    languages: list[str] | None,
    top: int,
) -> None:
    """Print the most probable languages of audio FILEs, with their probabilities.

    FILE is a file, a folder, a quoted pattern, or `-` for standard input, as for `transcribe`.
    """
    given = ctx.get_parameter_source("windows") is not click.core.ParameterSource.DEFAULT
    if per_window and given:
        raise click.UsageError("--per-window prints all windows: leave out --windows")
    n_windows = None if per_window else windows
    failed = _detect_languages(expand(files), model, revision, n_windows, languages, top)
    if failed:
        raise click.exceptions.Exit(1)


def _detect_languages(
    files: Sequence[str],
    model_name: str | None,
    revision: str | None,
    windows: int | None,
    languages: Sequence[str] | None,
    top: int,
) -> list[str]:
    """Prints the most probable languages of files, a line each, or for each of their windows.

    Args:
        files: audio paths, or `-` for standard input.
        model_name: folder or Hub id; None for the bundled model.
        revision: of a Hub model.
        windows: of 30 s, over which probabilities are averaged; None for a line for each.
        languages: codes or names to choose from; None for all that the model knows.
        top: languages to print.

    Returns:
        Names of the files that failed.

    Raises:
        click.ClickException: the model cannot be loaded.
    """
    from baldwhisper_mlx.cli.loading import open_model
    from baldwhisper_mlx.cli.reading import audio_of_files

    failed = [name for name in files if not is_readable(name)]
    readable = [name for name in files if name not in failed]
    model = open_model(model_name, revision, None, languages=languages) if readable else None
    for name, audio in audio_of_files(readable):
        try:
            samples = audio.result()
            assert not isinstance(samples, list)
            lines = list(_lines(samples, model, windows, languages, top))
        except FILE_ERRORS as error:
            report(name, error)
            failed.append(name)
            continue
        for line in lines:
            click.echo(f"{label(name)}: {line}")
    return failed


def _lines(
    samples: Samples,
    model: Any,
    windows: int | None,
    languages: Sequence[str] | None,
    top: int,
) -> Iterator[str]:
    """What is printed about a file; arguments as in `_detect_languages`."""
    from baldwhisper_mlx.transcription import detect_language as detection

    if windows is not None:
        found = detection.detect_language(samples, model, windows=windows, languages=languages)
        yield _listed(found, top)
        return
    for window in detection.detect_language_per_window(samples, model, languages=languages):
        yield f"{window.start:.1f} to {window.end:.1f} s: {_listed(window.probabilities, top)}"


def _listed(probabilities: Mapping[str, float], top: int) -> str:
    likeliest = list(probabilities.items())[:top]
    return ", ".join(f"{code} {one:.3f}" for code, one in likeliest) or "no speech"
