"""Word error rates of exported models on a folder of speech, through the shipped runtime.

Greedy, whole files, default options but for the temperature; whisper's English normalizer. Every
utterance goes to a JSONL file as it comes, and a second run goes on from there. Intervals are
from 10,000 bootstrap samples of the utterances, the same ones for every model, so that ratios
are paired.

    python benchmarks/word_errors.py --data FOLDER --model teacher=DIR --model student=DIR \
        --baseline teacher --work words.jsonl --out benchmarks/results/word_errors.json
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

import baldwhisper_mlx

SAMPLES = 10_000


def listen(
    model: str, clips: Sequence[dict[str, Any]], folder: Path, work: Path, name: str
) -> None:
    """Transcribes the clips that the work file does not have yet."""
    done = {(row["model"], row["file_name"]) for row in read_rows(work)}
    left = [clip for clip in clips if (name, clip["file_name"]) not in done]
    if not left:
        return
    loaded = baldwhisper_mlx.load_model(model)
    with work.open("a", encoding="utf-8") as file:
        for clip in tqdm(left, desc=name, unit="clip"):
            began = time.perf_counter()
            result = baldwhisper_mlx.transcribe(
                folder / clip["file_name"], loaded, language="en", temperature=0.0
            )
            row = {
                "model": name,
                "file_name": clip["file_name"],
                "seconds": round(time.perf_counter() - began, 3),
                "duration": result.duration,
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
    import jiwer
    from whisper.normalizers import EnglishTextNormalizer

    normalize = EnglishTextNormalizer()
    counts = []
    for clip in clips:
        wanted, found = normalize(clip["text"]), normalize(texts[clip["file_name"]])
        result = jiwer.process_words(wanted, found)
        wrong = result.substitutions + result.deletions + result.insertions
        counts.append((wrong, len(wanted.split())))
    return np.array(counts)


def bootstrap(counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Word error rates of `SAMPLES` draws of the clips, the same draws for every model.

    Args:
        counts: of each model, word errors and reference words of every clip (N, 2).
    """
    size = len(next(iter(counts.values())))
    draw = np.random.default_rng(0).integers(size, size=(SAMPLES, size))
    return {name: c[draw, 0].sum(1) / c[draw, 1].sum(1) for name, c in counts.items()}


def interval(values: np.ndarray) -> list[float]:
    """The middle 95 % of bootstrap values."""
    return [round(float(v), 4) for v in np.percentile(values, [2.5, 97.5])]


def report(
    clips: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], baseline: str
) -> dict[str, Any]:
    """Rates of all models, and how much of the baseline each retains."""
    names = sorted({row["model"] for row in rows})
    counts = {
        name: errors(clips, {r["file_name"]: r["text"] for r in rows if r["model"] == name})
        for name in names
    }
    rates = bootstrap(counts)
    result: dict[str, Any] = {}
    for name in names:
        wrong, words = (int(v) for v in counts[name].sum(0))
        mine = [row for row in rows if row["model"] == name]
        wer, base = wrong / words, counts[baseline].sum(0)[0] / counts[baseline].sum(0)[1]
        result[name] = {
            "wer": round(wer, 4),
            "wer_interval": interval(rates[name]),
            "wer_ratio": round(float(base / wer), 4) if wer else None,
            "wer_ratio_interval": interval(rates[baseline] / rates[name]),
            "accuracy_ratio": round(float((1 - wer) / (1 - base)), 4),
            "accuracy_ratio_interval": interval((1 - rates[name]) / (1 - rates[baseline])),
            "word_errors": wrong,
            "words": words,
            "rtf": round(sum(r["seconds"] for r in mine) / sum(r["duration"] for r in mine), 4),
        }
    return result


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--model", "models", multiple=True, required=True, metavar="NAME=DIR")
@click.option("--baseline", required=True, help="Name of the model that others are held against.")
@click.option("--work", required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--limit", type=int, help="Only the first clips.")
def main(
    data: Path, models: Sequence[str], baseline: str, work: Path, out: Path, limit: int | None
) -> None:
    """Measure word error rates."""
    lines = (data / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    clips = [json.loads(line) for line in lines][:limit]
    for item in models:
        name, _, folder = item.partition("=")
        listen(folder, clips, data, work, name)
    wanted = {clip["file_name"] for clip in clips}
    rows = [row for row in read_rows(work) if row["file_name"] in wanted]
    result = {
        "data": f"{data.parent.name}/{data.name}",
        "clips": len(clips),
        "normalizer": "whisper EnglishTextNormalizer",
        "baseline": baseline,
        "models": report(clips, rows, baseline),
    }
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, row in result["models"].items():
        low, high = row["wer_interval"]
        click.echo(
            f"{name:20} WER {100 * row['wer']:6.2f} % [{100 * low:.2f}, {100 * high:.2f}]  "
            f"WER ratio {row['wer_ratio']}  accuracy ratio {row['accuracy_ratio']}"
        )


if __name__ == "__main__":
    main()
