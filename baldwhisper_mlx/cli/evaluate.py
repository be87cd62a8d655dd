"""The command `baldwhisper evaluate`.

Whatever can be refused is refused before a model is loaded: hours of decoding must not end with a
missing package or a folder that holds another report. Results go to standard output, all else to
standard error.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from baldwhisper_mlx.evaluation.normalizers import NORMALIZERS
from baldwhisper_mlx.files import prepare_folder, write_files
from baldwhisper_mlx.terminal import message_of, printable

HYPOTHESES_FILE = "hypotheses.jsonl"
UTTERANCES_FILE = "utterances.jsonl"
REPORT_FILE = "report.json"


@click.command()
@click.option(
    "-m",
    "--model",
    help="Model folder, or id on the Hugging Face Hub. Default: the bundled English model.",
)
@click.option(
    "--baseline",
    metavar="MODEL",
    help="Model to compare with on the same clips, such as the teacher.",
)
@click.option(
    "--data",
    required=True,
    metavar="FOLDER_OR_DATASET",
    help="Speech with its text: a folder (with metadata.jsonl or metadata.csv, of Common Voice, "
    "Kaldi, parquet files, tar shards or save_to_disk), a CSV, TSV, JSON or JSONL list of files, "
    "or a Hugging Face dataset (owner/name or owner/name:config).",
)
@click.option("--split", default="test", show_default=True, help="Split of a dataset.")
@click.option("--text-column", default="text", show_default=True,
              help="Column of the transcripts. If there is no text, the default also finds "
              "sentence, transcription, transcript and the like.")  # fmt: skip
@click.option("--audio-column", default="audio", show_default=True,
              help="Column of the audio in a dataset.")  # fmt: skip
@click.option(
    "--speaker-column",
    help="Column of the speakers. Default: speaker, speaker_id or client_id, if there is one.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many clips.")
@click.option("--streaming", is_flag=True,
              help="Read a Hub dataset while it is downloaded, without storing it. Each model "
              "downloads it again; with --limit only the beginning.")  # fmt: skip
@click.option(
    "-n",
    "--normalizer",
    type=click.Choice(NORMALIZERS),
    default="basic",
    show_default=True,
    help="How texts are normalized before they are compared; see docs/evaluation.md.",
)
@click.option(
    "-l",
    "--language",
    help="Code or English name of the spoken language; detected clip by clip if not given.",
)
@click.option("--without-timestamps", is_flag=True, help="Decode without timestamps.")
@click.option(
    "--condition-on-previous-text/--no-condition-on-previous-text",
    default=True,
    show_default=True,
    help="Whether each 30 s window of a longer clip is conditioned on the previous text.",
)
@click.option(
    "--fallback",
    is_flag=True,
    help="Retry at rising temperatures where the result is repetitive or improbable, as "
    "`transcribe` does. By default only temperature 0 is used.",
)
@click.option("--beam-size", type=click.IntRange(1, 100),
              help="Hypotheses that beam search keeps at temperature 0. Default: greedy "
              "decoding.")  # fmt: skip
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Clips whose first 30 s are decoded together.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write the report, every utterance with its alignment, and the transcripts so far here. "
    "Interrupted runs resume when you rerun the command.",
)
@click.option("--force", is_flag=True, help="Replace a report on other models, data or options.")
@click.option("--skip-bad", is_flag=True,
              help="Leave out rows that cannot be used, and name each of them: without text or "
              "audio, or with audio that cannot be read.")  # fmt: skip
@click.option("--show-errors", type=click.IntRange(min=0), default=0, metavar="N",
              help="Show the N utterances with the most word errors, word by word.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def evaluate(
    model: str | None,
    baseline: str | None,
    output: Path | None,
    force: bool,
    skip_bad: bool,
    show_errors: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure the word and character errors of a model on labelled speech.

    With --baseline both models transcribe the same clips, and ratios and differences have paired
    intervals. Needs the extra `evaluate`: pip install "baldwhisper-mlx[evaluate]".
    """
    try:
        models = {"model": model} | ({} if baseline is None else {"baseline": baseline})
        report, utterances = _evaluate(models, output, force, skip_bad, options)
    except (OSError, ValueError, ArithmeticError, ModuleNotFoundError) as error:
        raise click.ClickException(message_of(error)) from None

    from baldwhisper_mlx.evaluation.report_text import render, render_errors
    from baldwhisper_mlx.evaluation.utterances import worst

    shown = worst(utterances, show_errors)
    if as_json:
        if show_errors:
            report = report | {"worst": [one.to_dict() for one in shown]}
        text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    else:
        text = render(report) + ("\n" + render_errors(shown) if shown else "")
    if sys.stdout.isatty():
        text = printable(text, keep="\n\t")
    click.echo(text.encode("utf-8", errors="surrogateescape"), nl=False)


def _evaluate(
    models: dict[str, str | None],
    output: Path | None,
    force: bool,
    skip_bad: bool,
    options: dict[str, Any],
) -> tuple[dict[str, Any], list[Any]]:
    """Report and utterances; everything is checked first, and written last."""
    from baldwhisper_mlx.checkpoint.files import find_model
    from baldwhisper_mlx.evaluation.dataset import Source, Speech
    from baldwhisper_mlx.evaluation.hypotheses import Hypotheses, fingerprint
    from baldwhisper_mlx.evaluation.inference import NO_BEAMS
    from baldwhisper_mlx.evaluation.normalizers import load_normalizer
    from baldwhisper_mlx.evaluation.report import make_report
    from baldwhisper_mlx.evaluation.scoring import load_jiwer
    from baldwhisper_mlx.evaluation.utterances import score_utterances

    load_jiwer()
    normalize = load_normalizer(options["normalizer"])
    columns = ("split", "text_column", "audio_column", "speaker_column", "limit")
    # Speech that is streamed or stored gives the same report.
    streaming = options.pop("streaming")
    source = Source(
        name=options["data"], streaming=streaming, **{key: options[key] for key in columns}
    )
    speech = Speech(source, skip_bad=skip_bad, say=_say)
    options = options | {"text_column": speech.text_column}
    if next(iter(speech), None) is None:
        raise ValueError(f"{options['data']}: no clips in it")
    missing = [] if skip_bad else speech.missing_files()
    if missing:
        raise FileNotFoundError(
            f"{options['data']}: {len(missing)} of {speech.count} clips not there, such as "
            f"{', '.join(missing[:3])}; use --skip-bad to leave them out"
        )
    prints = {role: fingerprint(find_model(name)) for role, name in models.items()}
    written = {key: value for key, value in options.items() if (key, value) != NO_BEAMS}
    settings = written | {"fingerprints": prints}
    known = Hypotheses(None if output is None else _open_folder(output, settings, force))
    results, runs = {}, {}
    for role, name in models.items():
        runs[role], results[role] = _transcribe(
            name, prints[role], speech, options, known, skip_bad
        )
    utterances, skipped = score_utterances(results, normalize)
    for one in skipped:
        _say(f"skipped: {one['file']}: {one['reason'].removeprefix(one['file'] + ': ')}")
    report = make_report(utterances, runs, settings=settings, skipped=skipped)
    if output is not None:
        rows = (json.dumps(one.to_dict(), ensure_ascii=False) for one in utterances)
        texts = {
            output / UTTERANCES_FILE: "".join(f"{row}\n" for row in rows),
            output / REPORT_FILE: json.dumps(report, indent=2, ensure_ascii=False) + "\n",
        }
        write_files(texts, force=True)
    return report, utterances


def _open_folder(output: Path, settings: dict[str, Any], force: bool) -> Path:
    """Prepares the output folder; returns the path of the transcripts so far.

    Raises:
        FileExistsError: it holds a report on other models, data or options.
        ValueError: it cannot be written to.
    """
    prepare_folder(output)
    path = output / REPORT_FILE
    if path.exists() and not force:
        try:
            same = json.loads(path.read_text(encoding="utf-8"))["settings"] == settings
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            raise FileExistsError(
                f"{path}: a report on other models, data or options; use another --output, or "
                "--force to replace it (transcripts are kept)"
            )
    return output / HYPOTHESES_FILE


def _transcribe(
    name: str | None,
    fingerprint: str,
    speech: Any,
    options: dict[str, Any],
    known: Any,
    skip_bad: bool,
) -> tuple[Any, Any]:
    """Transcribes all clips with one model; returns its run and its results."""
    from baldwhisper_mlx.cli.loading import open_model
    from baldwhisper_mlx.evaluation.inference import InferenceSettings, transcribe_dataset

    chosen = {field.name: options[field.name] for field in fields(InferenceSettings)}
    decoding = InferenceSettings(**chosen)
    loaded = open_model(name, None, options["language"])
    label = name or "bundled model"
    run = decoding.run(loaded, label, fingerprint)
    before = len(known.of(run))
    if before:
        _say(f"{label}: {before} clips already transcribed")
    with _progress_bar(label, speech.count) as on_clip:
        results = transcribe_dataset(
            loaded, speech, decoding, run, known, skip_bad=skip_bad, on_clip=on_clip
        )
    return run, results


def _say(line: str) -> None:
    """Prints a line to standard error."""
    click.echo(printable(line), err=True)


@contextlib.contextmanager
def _progress_bar(label: str, total: int | None) -> Iterator[Callable[[Any], None] | None]:
    """A progress bar of clips on a terminal; elsewhere None, and no bar."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=label, unit=" clips", leave=False) as bar:
        yield lambda _: bar.update()
