"""Word error rates of exported models on a folder of speech, through the shipped runtime.

Greedy, whole files, default options but for the temperature; Whisper's English normalizer. Every
transcript is appended to a JSONL file, from which an interrupted run resumes when you rerun the
command. Errors and intervals are those of `baldwhisper evaluate`, for any number of models, all
paired.

    python -m benchmarks.accuracy.word_errors --data FOLDER --model teacher=DIR \
        --model student=DIR --baseline teacher --work words.jsonl \
        --out benchmarks/results/word_errors.json
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

import baldwhisper_mlx
from baldwhisper_mlx.evaluation import bootstrap
from baldwhisper_mlx.evaluation.bootstrap import Bootstrap, Estimate
from baldwhisper_mlx.evaluation.normalizers import load_normalizer
from baldwhisper_mlx.evaluation.scoring import score
from benchmarks.options import Benchmark, data_option, limit_option, models_option, output_option
from benchmarks.result_files import data_name, read_clips, write_json


def transcribe_missing(
    model: str, clips: Sequence[dict[str, Any]], folder: Path, work: Path, name: str
) -> None:
    """Transcribes the clips that the work file does not have yet, and appends them to it."""
    done = {(row["model"], row["file_name"]) for row in read_rows(work)}
    left = [clip for clip in clips if (name, clip["file_name"]) not in done]
    if not left:
        return
    loaded = baldwhisper_mlx.load_model(model)
    with work.open("a", encoding="utf-8") as file:
        for clip in tqdm(left, desc=name, unit="clip"):
            result = baldwhisper_mlx.transcribe(
                folder / clip["file_name"], loaded, language="en", temperature=0.0
            )
            row = {
                "model": name,
                "file_name": clip["file_name"],
                "text": result.text.strip(),
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()


def read_rows(work: Path) -> list[dict[str, Any]]:
    """The rows of a work file."""
    if not work.is_file():
        return []
    return [json.loads(line) for line in work.read_text(encoding="utf-8").splitlines()]


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
            "words": int(drawn.totals[0]),
        }
    return result


@click.command(cls=Benchmark)
@data_option()
@models_option()
@click.option("--baseline", required=True, help="Name of the model that others are compared with.")
@click.option("--work", required=True, type=click.Path(path_type=Path), metavar="FILE",
              help="Transcripts so far (JSONL).")  # fmt: skip
@output_option(name="--out")
@limit_option
def main(
    data: Path, models: Sequence[str], baseline: str, work: Path, output: Path, limit: int | None
) -> None:
    """Measure word error rates."""
    clips = read_clips(data, limit)
    for item in models:
        name, _, folder = item.partition("=")
        transcribe_missing(folder, clips, data, work, name)
    wanted = {clip["file_name"] for clip in clips}
    rows = [row for row in read_rows(work) if row["file_name"] in wanted]
    result: dict[str, Any] = {
        "data": data_name(data),
        "clips": len(clips),
        "normalizer": "whisper EnglishTextNormalizer",
        "baseline": baseline,
        "models": report(clips, rows, baseline),
    }
    write_json(output, result)
    for name, row in result["models"].items():
        low, high = row["wer_interval"]
        click.echo(
            f"{name:20} WER {100 * row['wer']:6.2f} % [{100 * low:.2f}, {100 * high:.2f}]  "
            f"relative WER {row['wer_ratio']}  accuracy ratio {row['accuracy_ratio']}"
        )


if __name__ == "__main__":
    main()
