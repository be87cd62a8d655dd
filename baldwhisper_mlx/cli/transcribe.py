"""The command `baldwhisper transcribe`: its options, checked before any work is done.

runner.py does the work. Only click is imported at the top, as in main.py.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import click

from baldwhisper_mlx.cli.inputs import STDIN, expand, plan_outputs
from baldwhisper_mlx.cli.usage import (
    check_colors,
    check_input,
    check_layout,
    check_output,
    check_values,
    languages_option,
    task_option,
)
from baldwhisper_mlx.files import prepare_folder
from baldwhisper_mlx.output.formats import FORMATS
from baldwhisper_mlx.output.subtitles import Layout
from baldwhisper_mlx.terminal import message_of, printable

CHANNELS = ["mix", "left", "right", "split"]
"""As in audio/channels.py, which `--help` should not load."""
_COUNT = click.IntRange(min=1)
_HYPOTHESES = click.IntRange(1, 100)


def _finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number.", ctx, param)
    return value


@click.command(short_help="Transcribe audio files.")
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
@languages_option
@click.option("--multilingual", is_flag=True,
              help="Detect the language again in every window, and end a window where it changes; "
              "for recordings in several languages.")  # fmt: skip
@task_option
@click.option("--initial-prompt",
              help="Text to condition the first window on, as if it preceded the audio: names, "
              "spelling, style.")  # fmt: skip
@click.option("--carry-initial-prompt", is_flag=True,
              help="Condition every window on the initial prompt, before the previous "
              "text.")  # fmt: skip
@click.option("--hotwords", metavar="TEXT",
              help="Names and terms to condition every window on, also in batches, such as "
              "'Kokoro, BaldWhisper'.")  # fmt: skip
@click.option("--prefix", metavar="TEXT",
              help="Text that the transcript begins with; the model continues it.")  # fmt: skip
@click.option("--suppress-tokens", metavar="IDS", default="-1", show_default=True,
              help="Token ids that are never written, with commas between them; -1 stands for "
              "symbols that nobody speaks, '' for none.")  # fmt: skip
@click.option("--repetition-penalty", type=click.FloatRange(0.01, 100), callback=_finite,
              default=1.0, show_default=True,
              help="Above 1, tokens that a window has already are less probable.")  # fmt: skip
@click.option("--no-repeat-ngram-size", type=click.IntRange(min=0), metavar="N", default=0,
              show_default=True,
              help="No sequence of N tokens occurs twice in a window; 0 for no such "
              "rule.")  # fmt: skip
@click.option(
    "--temperature",
    type=click.FloatRange(min=0.0),
    callback=_finite,
    help="Decode at this temperature only. Default: 0, then up to 1 in steps of 0.2 while the "
    "result is repetitive or improbable.",
)
@click.option("--beam-size", type=_HYPOTHESES,
              help="Hypotheses that beam search keeps at temperature 0. Default: greedy "
              "decoding.")  # fmt: skip
@click.option("--patience", type=click.FloatRange(min=0.0, min_open=True), callback=_finite,
              help="End beam search with beam size times patience finished hypotheses; needs "
              "--beam-size. Default: 1.")  # fmt: skip
@click.option("--length-penalty", type=click.FloatRange(0.0, 1.0), callback=_finite,
              metavar="ALPHA",
              help="Rank hypotheses by their log-probability over ((5 + length) / 6) ** ALPHA. "
              "Default: over their length.")  # fmt: skip
@click.option("--best-of", type=_HYPOTHESES,
              help="Samples that are drawn at each temperature above 0, of which the most "
              "probable is used. Default: 1.")  # fmt: skip
@click.option("--condition-on-previous-text/--no-condition-on-previous-text",
              default=True, show_default=True,
              help="Whether each 30 s window is conditioned on the previous text.")  # fmt: skip
@click.option("--without-timestamps", is_flag=True,
              help="One segment per 30 s window, decoded without timestamps.")  # fmt: skip
@click.option("--word-timestamps", is_flag=True,
              help="Add the start and end of every word (json and subtitles).")  # fmt: skip
@click.option("--clip-timestamps", metavar="RANGES",
              help="Transcribe only these ranges of seconds, in their order, such as 0-10,60-; the "
              "last one may have no end.")  # fmt: skip
@click.option("--hallucination-silence-threshold", metavar="SECONDS",
              type=click.FloatRange(min=0.0), callback=_finite,
              help="Leave out words of unlikely length or probability that have silence of this "
              "length around them; needs --word-timestamps.")  # fmt: skip
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
@click.option("--print-colors", is_flag=True,
              help="On a terminal, print each word in the colour of its confidence: red, yellow "
              "or green. Without --word-timestamps, each window has one colour.")  # fmt: skip
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
    print_colors: bool,
    output_dir: Path | None,
    force: bool,
    skip_existing: bool,
    pcm_rate: int | None,
    audio_context: str | None,
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
    check_colors(print_colors, output_format, output_dir)
    layout = Layout(**{part.name: options.pop(part.name) for part in dataclasses.fields(Layout)})
    check_layout(layout, options["word_timestamps"])
    check_values(options)
    formats = list(FORMATS) if output_format == "all" else [output_format]
    plan: list[dict[str, Path]] | None = None
    try:
        if output_dir is not None:
            plan = plan_outputs(files, output_dir, formats, force=force or skip_existing)
            prepare_folder(output_dir)
    except (OSError, ValueError) as error:
        raise click.ClickException(message_of(error)) from None

    from baldwhisper_mlx.cli.printing import Printer
    from baldwhisper_mlx.cli.runner import skip_finished, transcribe_files

    if skip_existing and plan is not None:
        files, plan = skip_finished(files, plan)
    printer = None
    if plan is None:
        printer = Printer(output_format, layout, headers=len(files) > 1, colors=print_colors)
    if options["temperature"] is None:
        del options["temperature"]  # transcribe's own default is the schedule
    failed = transcribe_files(
        files, model, revision, layout=layout, printer=printer, plan=plan,
        force=force, pcm_rate=pcm_rate, audio_context=audio_context, audio_options=audio_options,
        options=options,
    )  # fmt: skip
    if failed and len(files) > 1:
        names = printable(", ".join(failed))
        click.echo(f"{len(failed)} of {len(files)} files failed: {names}", err=True)
    if failed:
        raise click.exceptions.Exit(1)
