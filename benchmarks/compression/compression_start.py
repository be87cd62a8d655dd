"""Compressed models before any training: forms of the embedding, choices of layers.

Teacher-forced on development windows: KL to the teacher in nats a token, and how often the
likeliest token is the teacher's. The embedding is calibrated as the stage `factorize` does it; of
the layers, every choice of three, of four and of five is tried, and merged pairs.

    python -m benchmarks.compression.compression_start TEACHER --real DIR --synthetic DIR \\
        --dev DIR --results benchmarks/results/compression_start.json

The folders are those that `baldwhisper-convert prepare` or `run` wrote with this teacher.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.checkpoint.state import EMBEDDING
from baldwhisper_convert.compression.agreement import Reference
from baldwhisper_convert.compression.calibration import Calibration
from baldwhisper_convert.compression.factorize import (
    FactorizeSettings,
    count_parameters,
    measure,
    measurements_table,
    start,
    with_factors,
)
from baldwhisper_convert.compression.layers import LayerPlan
from baldwhisper_convert.compression.merge import MergeSettings, all_choices
from baldwhisper_convert.compression.ranking import rank
from baldwhisper_convert.data.batches import Batch
from baldwhisper_convert.data.prepared import Prepared
from baldwhisper_convert.data.speech import sample
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.readers.read import read_checkpoint
from benchmarks.compression.ablation import calibration
from benchmarks.options import Benchmark, ablation_options, output_option
from benchmarks.result_files import write_json

HELD_OUT_WINDOWS = 48
ALPHAS = (0.0, 0.1, 0.5, 1.0)
RANK, RANKS, ROWS = 96, (64, 128, 192, 256), (500, 1000, 2000, 4000, 9000, 18000)
HYBRID, FOCUS = (64, 2000), (0.03, 0.3)


def forms() -> Iterator[FactorizeSettings]:
    """The paper's start, what is changed of it one thing at a time, ranks and dense rows."""
    plain, svd = FactorizeSettings(rank=RANK), FactorizeSettings(rank=RANK, init="svd")
    yield from (svd, replace(svd, mean=True))
    yield from (replace(plain, projections="shared"), plain)
    yield from (replace(plain, focus=focus) for focus in FOCUS)
    for other in RANKS:
        yield from (replace(svd, rank=other), replace(plain, rank=other))
    yield from (replace(plain, dense_rows=rows) for rows in ROWS)
    yield replace(plain, rank=HYBRID[0], dense_rows=HYBRID[1])


def plans(n_layers: int) -> list[LayerPlan]:
    """Merged pairs, and every choice of half of the layers, of two thirds, and of all but one."""
    merged = [MergeSettings(alpha=alpha).plan(n_layers) for alpha in ALPHAS]
    counts = sorted({-(-n_layers // 2), -(-2 * n_layers // 3), n_layers - 1})
    return merged + [plan for count in counts for plan in all_choices(n_layers, count)]


def embeddings(
    teacher: Checkpoint, statistics: Calibration, held_out: Sequence[Batch]
) -> list[dict[str, Any]]:
    """Every form of the factorized embedding, measured."""
    model = Whisper.from_checkpoint(teacher).requires_grad_(False)
    rows = []
    for form in forms():
        factors, energy = start(teacher.state[f"{EMBEDDING}.weight"], form, statistics)
        student = with_factors(teacher, factors)
        metrics = measure(model, student, held_out)
        rows.append(
            {
                "init": form.init,
                "rank": form.rank,
                "projections": form.projections
                or ("separate" if form.init == "joint" else "shared"),
                "mean": factors.mean is not None,
                "dense_rows": form.dense_rows,
                "focus": form.focus,
                "parameters": count_parameters(student),
            }
            | energy
            | metrics
        )
        click.echo(f"{form}\n{measurements_table(metrics)}")
    return rows


def layers(teacher: Checkpoint, held_out: Sequence[Batch]) -> list[dict[str, Any]]:
    """Every choice of layers, closest to the teacher first."""
    reference = Reference(Whisper.from_checkpoint(teacher), held_out)
    ranking = rank(teacher, plans(teacher.dims.n_text_layer), reference.compare)
    return [
        {
            "plan": str(plan),
            "weights": [list(weights) for weights in plan.weights],
            "kl": found.kl,
            "top1": found.top1,
        }
        for plan, found in ranking
    ]


@click.command(cls=Benchmark)
@click.argument("teacher")
@ablation_options
@output_option(name="--results")
def main(teacher: str, real: Path, synthetic: Path, dev: Path, output: Path) -> None:
    """Measure every form of the embedding and choice of layers before training."""
    checkpoint = read_checkpoint(teacher)
    windows = Prepared(dev)
    held_out = sample(windows, Prompts.of(checkpoint, windows.language), HELD_OUT_WINDOWS)
    found = {
        "data": dev.name,
        "windows": min(HELD_OUT_WINDOWS, len(windows)),
        "embedding": embeddings(checkpoint, calibration(checkpoint, [real, synthetic]), held_out),
        "layers": layers(checkpoint, held_out),
    }
    write_json(output, found)


if __name__ == "__main__":
    main()
