"""Word error rates of exported models on folders of speech, through the shipped runtime.

Whole files with the default options, the fallback to higher temperatures included; Whisper's
English normalizer. Every transcript is appended to a JSONL file in --work, from which an
interrupted run resumes when you rerun the command. Errors and intervals are those of
`baldwhisper evaluate`, for any number of models, all paired.

    python -m benchmarks.accuracy.word_errors --data FOLDER --model teacher=DIR \
        --model student=DIR --baseline teacher --work .cache/words \
        --out benchmarks/results/word_errors.json

Half of the development speech chose the bundled model; the figures quoted of it are from the other
half: `--data mini_librispeech/dev --clips 1::2 --data speechocean762/dev --clips 1::6`.
"""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

import baldwhisper_mlx
from baldwhisper_mlx.checkpoint.files import find_model
from baldwhisper_mlx.evaluation import bootstrap
from baldwhisper_mlx.evaluation.bootstrap import Bootstrap, Estimate
from baldwhisper_mlx.evaluation.hypotheses import fingerprint
from baldwhisper_mlx.evaluation.normalizers import load_normalizer
from baldwhisper_mlx.evaluation.scoring import has_loop, score
from baldwhisper_mlx.output.json_lines import append_json_lines, read_json_lines
from benchmarks.options import (
    Benchmark,
    data_option,
    limit_option,
    model_or_bundled,
    models_option,
    output_option,
)
from benchmarks.result_files import (
    check_settings,
    data_name,
    read_clips,
    transcripts_file,
    write_json,
)


def transcribe_missing(
    model: str,
    clips: Sequence[dict[str, Any]],
    folder: Path,
    work: Path,
    name: str,
    **options: Any,
) -> None:
    """Transcribes the clips that the work file does not have yet, and appends them to it.

    Args:
        model: folder; empty for the bundled one.
        clips: rows of the folder's metadata.
        folder: of the speech.
        work: file of the transcripts.
        name: of the model there.
        options: of `transcribe`.
    """
    check_settings(work.parent, {f"model {name}": fingerprint(find_model(model or None))})
    done = {(row["model"], row["file_name"]) for row in read_json_lines(work)}
    left = [clip for clip in clips if (name, clip["file_name"]) not in done]
    if not left:
        return
    loaded = baldwhisper_mlx.load_model(model or None)
    for clip in tqdm(left, desc=name, unit="clip"):
        result = baldwhisper_mlx.transcribe(
            folder / clip["file_name"], loaded, language="en", **options
        )
        row = {"model": name, "file_name": clip["file_name"], "text": result.text.strip()}
        append_json_lines(work, [row])


def clip_slice(text: str) -> slice:
    """START::STEP as a slice.

    Example:
        >>> list(range(7))[clip_slice("1::2")]
        [1, 3, 5]

    Raises:
        ValueError: not two whole numbers with two colons between them, or a step of 0.
    """
    start, step = (int(part) for part in text.split("::"))
    if start < 0 or step < 1:
        raise ValueError(f"{text}: START must not be negative, STEP at least 1")
    return slice(start, None, step)


def errors(clips: Sequence[dict[str, Any]], texts: dict[str, str]) -> np.ndarray:
    """Word errors and reference words of every clip, (N, 2)."""
    normalize = load_normalizer("whisper-english")
    scores = [score(clip["text"], texts[clip["file_name"]], normalize).words for clip in clips]
    return np.array([(one.errors, one.total) for one in scores])


def interval(estimate: Estimate) -> list[Any]:
    """The bounds of an estimate, rounded."""
    found: list[Any] = estimate.to_dict(4)["interval"]
    return found


def rate_of(clips: Sequence[dict[str, Any]], texts: dict[str, str]) -> dict[str, Any]:
    """`wer` of transcripts by file name, and `wer_interval`; None without the extra `evaluate`."""
    if not all(importlib.util.find_spec(name) for name in ("jiwer", "whisper_normalizer")):
        return {"wer": None, "wer_interval": None}
    rate = Bootstrap(errors(clips, texts)).estimate(bootstrap.error_rate, 0, 1)
    return {"wer": rate.to_dict(4)["value"], "wer_interval": interval(rate)}


def report(
    clips: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], baseline: str
) -> dict[str, Any]:
    """Word error rates of all models, and each relative to the baseline's."""
    names = sorted({row["model"] for row in rows})
    counts = {
        name: errors(clips, {r["file_name"]: r["text"] for r in rows if r["model"] == name})
        for name in names
    }
    drawn = Bootstrap(
        np.column_stack([counts[baseline][:, 1], *(c[:, 0] for c in counts.values())])
    )
    base = 1 + names.index(baseline)
    result: dict[str, Any] = {}
    for column, name in enumerate(names, start=1):
        pair = (base, column)
        rate = drawn.estimate(bootstrap.error_rate, column, 0)
        ratio = drawn.estimate(bootstrap.retention, *pair)
        accuracy = drawn.estimate(bootstrap.accuracy_ratio, *pair, 0)
        result[name] = {
            "wer": rate.to_dict(4)["value"],
            "wer_interval": interval(rate),
            "wer_ratio": ratio.to_dict(4)["value"],
            "wer_ratio_interval": interval(ratio),
            "accuracy_ratio": accuracy.to_dict(4)["value"],
            "accuracy_ratio_interval": interval(accuracy),
            "word_errors": int(drawn.totals[column]),
            "loops": sum(has_loop(row["text"]) for row in rows if row["model"] == name),
            "words": int(drawn.totals[0]),
        }
    return result


def checked(
    _context: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """The values of --clips, if `clip_slice` reads them."""
    for value in values:
        try:
            clip_slice(value)
        except ValueError:
            raise click.BadParameter(f"{value!r} is not START::STEP, such as 1::2") from None
    return values


@click.command(cls=Benchmark)
@data_option(multiple=True)
@click.option("--clips", "selections", multiple=True, callback=checked, metavar="START::STEP",
              help="Only every STEP-th clip from the START-th (0 is the first); for each --data "
                   "in order.")  # fmt: skip
@models_option(bundled=True)
@click.option("--baseline", required=True, help="Name of the model that others are compared with.")
@click.option("--work", required=True, type=click.Path(path_type=Path), metavar="DIR",
              help="Folder of the transcripts so far.")  # fmt: skip
@output_option(name="--out")
@limit_option
def main(
    data: Sequence[Path],
    selections: Sequence[str],
    models: Sequence[str],
    baseline: str,
    work: Path,
    output: Path,
    limit: int | None,
) -> None:
    """Measure word error rates."""
    if len(selections) not in (0, len(data)):
        raise click.UsageError(f"{len(selections)} times --clips for {len(data)} times --data")
    named = dict(model_or_bundled(item) for item in models)
    work.mkdir(parents=True, exist_ok=True)
    speech = []
    for folder, selection in itertools.zip_longest(data, selections):
        file = transcripts_file(work, folder)
        clips = read_clips(folder)[clip_slice(selection or "0::1")][:limit]
        for name, model in named.items():
            transcribe_missing(str(model or ""), clips, folder, file, name)
        wanted = {clip["file_name"] for clip in clips}
        rows = [
            row
            for row in read_json_lines(file)
            if row["file_name"] in wanted and row["model"] in named
        ]
        speech.append(
            {
                "data": data_name(folder),
                "selection": selection,
                "clips": len(clips),
                "models": report(clips, rows, baseline),
            }
        )
        show(speech[-1])
    write_json(
        output,
        {"normalizer": "whisper EnglishTextNormalizer", "baseline": baseline, "speech": speech},
    )


def show(found: dict[str, Any]) -> None:
    """Prints the rates on one folder of speech."""
    click.echo(f"{found['data']}, {found['clips']} clips")
    for name, row in found["models"].items():
        click.echo(
            f"  {name:20} {rate_text(row)}  accuracy ratio {row['accuracy_ratio']}  "
            f"loops {row['loops']}"
        )


def rate_text(row: dict[str, Any]) -> str:
    """The word error rate of a model in `report`, with its interval, and relative."""
    low, high = row["wer_interval"]
    return (
        f"WER {100 * row['wer']:6.2f} % [{100 * low:.2f}, {100 * high:.2f}]  "
        f"relative WER {row['wer_ratio']}"
    )


if __name__ == "__main__":
    main()
