"""The command `baldwhisper detect-language`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from baldwhisper_mlx.cli.inputs import expand
from baldwhisper_mlx.cli.reporting import FILE_ERRORS, is_readable, label, report


@click.command("detect-language", short_help="Print the most probable languages of audio files.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-m", "--model",
              help="Model folder, or Hugging Face Hub id such as owner/name. Default: the model "
              "that comes with the package.")  # fmt: skip
@click.option("--revision", help="Branch, tag or commit of a Hub model.")
@click.option("--windows", type=click.IntRange(min=1), default=3, show_default=True,
              help="Number of 30 s windows, spread over each file, to average over.")  # fmt: skip
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True,
              help="Number of languages to print per file.")  # fmt: skip
def detect_language(
    files: tuple[str, ...], model: str | None, revision: str | None, windows: int, top: int
) -> None:
    """Print the most probable languages of audio FILEs, with their probabilities.

    FILE is a file, a folder, a quoted pattern, or `-` for standard input, as for `transcribe`.
    """
    failed = _detect_languages(expand(files), model, revision, windows, top)
    if failed:
        raise click.exceptions.Exit(1)


def _detect_languages(
    files: Sequence[str], model_name: str | None, revision: str | None, windows: int, top: int
) -> list[str]:
    """Prints the most probable languages of files, a line each.

    Args:
        files: audio paths, or `-` for standard input.
        model_name: folder or Hub id; None for the bundled model.
        revision: of a Hub model.
        windows: of 30 s, over which probabilities are averaged.
        top: languages to print.

    Returns:
        Names of the files that failed.

    Raises:
        click.ClickException: the model cannot be loaded.
    """
    from baldwhisper_mlx.cli.loading import open_model
    from baldwhisper_mlx.cli.reading import audio_of_files
    from baldwhisper_mlx.transcription import detect_language as language

    failed = [name for name in files if not is_readable(name)]
    readable = [name for name in files if name not in failed]
    model = open_model(model_name, revision, None) if readable else None
    for name, audio in audio_of_files(readable):
        try:
            samples = audio.result()
            assert not isinstance(samples, list)
            probabilities = language.detect_language(samples, model, windows=windows)
        except FILE_ERRORS as error:
            report(name, error)
            failed.append(name)
            continue
        likeliest = list(probabilities.items())[:top]
        listed = ", ".join(f"{code} {probability:.3f}" for code, probability in likeliest)
        click.echo(f"{label(name)}: {listed or 'no speech'}")
    return failed
