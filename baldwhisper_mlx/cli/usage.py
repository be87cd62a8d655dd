"""Combinations of options that `baldwhisper transcribe` refuses before any work is done."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from baldwhisper_mlx.cli.inputs import STDIN
from baldwhisper_mlx.cli.streams import is_closed
from baldwhisper_mlx.output.subtitles import PLAIN, Layout


def several(_ctx: click.Context, _param: click.Parameter, value: str | None) -> list[str] | None:
    """A click callback: what an option lists with commas between."""
    if value is None:
        return None
    names = [name.strip() for name in value.split(",")]
    if not all(names):
        raise click.BadParameter(f"{value!r} is no list such as en,fr,de.")
    return names


languages_option = click.option(
    "--languages", metavar="CODES", callback=several,
    help="Languages among which the spoken one is detected, with commas between them, such as "
    "en,fr,de. Default: all that the model knows.",
)  # fmt: skip
task_option = click.option(
    "--task", type=click.Choice(["transcribe", "translate"]), default="transcribe",
    show_default=True, help="Write the spoken words, or translate them into English.",
)  # fmt: skip


def check_detection(
    language: str | None, languages: Sequence[str] | None, multilingual: bool
) -> None:
    """Checks that there is a language to detect, if options say how.

    Args:
        language: of all files.
        languages: to choose from.
        multilingual: whether it is detected in every window.

    Raises:
        click.UsageError: `language` leaves nothing to detect.
    """
    if language is not None and (multilingual or languages is not None):
        other = "--multilingual" if multilingual else "--languages"
        raise click.UsageError(
            f"{other} is about detecting the language: leave out --language, or {other}"
        )


def check_input(
    files: Sequence[str], pcm_rate: int | None, track: int | None, channels: str
) -> None:
    """Checks the inputs.

    Args:
        files: audio paths, or `-` for standard input.
        pcm_rate: Hz, if standard input is raw PCM.
        track: number of the audio track.
        channels: which are transcribed.

    Raises:
        click.UsageError: standard input is a terminal, or raw PCM is not the only input or has
            tracks or channels to choose.
        click.ClickException: standard input is closed.
    """
    if STDIN in files and (sys.stdin is None or is_closed("stdin")):
        raise click.ClickException("`-` reads audio from standard input, which is closed")
    if STDIN in files and sys.stdin.isatty():
        raise click.UsageError(
            "`-` reads audio from standard input, which is a terminal: pipe a file into it"
        )
    if pcm_rate is not None and list(files) != [STDIN]:
        raise click.UsageError(
            "--pcm-rate is for raw PCM on standard input: give `-` as the only FILE"
        )
    if pcm_rate is not None and (track is not None or channels != "mix"):
        raise click.UsageError("--track and --channels are not for raw PCM, which has one of each")


def check_output(
    n_files: int, output_format: str, output_dir: Path | None, force: bool, skip_existing: bool
) -> None:
    """Checks where results go.

    Args:
        n_files: inputs.
        output_format: one of `FORMATS`, or "all".
        output_dir: folder for the results; None for standard output.
        force: whether existing outputs are replaced.
        skip_existing: whether inputs with existing outputs are skipped.

    Raises:
        click.UsageError: results that cannot share standard output, or options that exclude each
            other.
        click.ClickException: results would go to standard output, which is closed.
    """
    if skip_existing and (force or output_dir is None):
        raise click.UsageError("--skip-existing needs --output-dir and excludes --force")
    if output_dir is not None:
        return
    if sys.stdout is None or is_closed("stdout"):
        raise click.ClickException("standard output is closed: give --output-dir")
    if output_format == "all":
        raise click.UsageError("--output-format all writes several files: give --output-dir")
    if n_files > 1 and output_format != "txt":
        raise click.UsageError(
            f"several {output_format} results cannot share standard output: give --output-dir"
        )


def check_colors(print_colors: bool, output_format: str, output_dir: Path | None) -> None:
    """Checks that what is to be coloured is printed, and text.

    Raises:
        click.UsageError: it is not.
    """
    if print_colors and (output_dir is not None or output_format != "txt"):
        raise click.UsageError(
            "--print-colors is for text that is printed: it excludes --output-dir and the formats "
            "other than txt"
        )


def check_layout(layout: Layout, word_timestamps: bool) -> None:
    """Checks the layout of subtitles.

    Raises:
        click.UsageError: it needs word timestamps, or its options exclude each other.
    """
    if layout != PLAIN and not word_timestamps:
        raise click.UsageError(
            "--highlight-words, --max-line-width, --max-line-count and --max-words-per-line need "
            "--word-timestamps"
        )
    if layout.max_line_count is not None and layout.max_line_width is None:
        raise click.UsageError("--max-line-count needs --max-line-width")
    if layout.max_words_per_line is not None and layout.max_line_width is not None:
        raise click.UsageError("give --max-words-per-line or --max-line-width, not both")


def check_search(beam_size: int | None, patience: float | None) -> None:
    """Checks the options of beam search.

    Raises:
        click.UsageError: patience without beams, or so little that the search would not begin.
    """
    if patience is None:
        return
    if beam_size is None:
        raise click.UsageError("--patience is for beam search: give --beam-size")
    if not beam_size * patience > 0.5:
        raise click.UsageError("--patience times --beam-size must be above 0.5")


def check_values(options: Mapping[str, Any]) -> None:
    """Checks options whose values have a form of their own.

    Args:
        options: of `transcribe`, by name.

    Raises:
        click.UsageError: they cannot be read, one needs another, or two exclude each other.
    """
    from baldwhisper_mlx.transcription.ranges import parse_ranges

    check_detection(options["language"], options["languages"], options["multilingual"])
    check_search(options["beam_size"], options["patience"])
    silence = "hallucination_silence_threshold"
    if options[silence] is not None and not options["word_timestamps"]:
        raise click.UsageError("--hallucination-silence-threshold needs --word-timestamps")
    ids = [item.strip() for item in options["suppress_tokens"].split(",") if item.strip()]
    if not all(item.removeprefix("-").isdecimal() for item in ids):
        raise click.UsageError("--suppress-tokens: give token ids with commas between them")
    if options["carry_initial_prompt"] and not options["initial_prompt"]:
        raise click.UsageError("--carry-initial-prompt needs --initial-prompt")
    try:
        if options["clip_timestamps"] is not None:
            parse_ranges(options["clip_timestamps"])
    except ValueError as error:
        raise click.UsageError(str(error).replace("clip_timestamps", "--clip-timestamps")) from None
