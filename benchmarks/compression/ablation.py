"""What each choice of the method contributes: short trainings that differ in one setting.

Every variant starts from the same teacher, is trained for the same number of steps on the same
prepared speech and evaluated on the same development windows: KL and top-1 agreement with the
teacher along the labels, and word errors of greedy decoding, with 95 % bootstrap intervals from
the same samples of the windows for all, so that differences are paired. Interrupted runs resume
with the first unfinished variant when you rerun the command.

    python -m benchmarks.compression.ablation TEACHER --real DIR --synthetic DIR --dev DIR \\
        --output runs/ablation --results benchmarks/results/ablation.json

The folders are those that `baldwhisper-convert prepare` or `run` wrote with this teacher.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint, fingerprint
from baldwhisper_convert.checkpoint.state import EMBEDDING
from baldwhisper_convert.compression.calibration import Calibration, calibrate
from baldwhisper_convert.compression.factorize import (
    FactorizeSettings,
    calibratable,
    count_parameters,
    start,
    with_factors,
)
from baldwhisper_convert.compression.merge import MergeSettings
from baldwhisper_convert.data.prepared import Choice, Prepared, Windows
from baldwhisper_convert.data.speech import Speech, sample
from baldwhisper_convert.data.texts import count_tokens
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.pipeline.model import Model
from baldwhisper_convert.pipeline.stages import CALIBRATION_WINDOWS, run_merge
from baldwhisper_convert.pipeline.training_stages import run_distill
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_convert.training.evaluation import Evaluator
from baldwhisper_convert.training.objectives import Distillation, LossSettings
from baldwhisper_convert.training.settings import TrainingSettings
from baldwhisper_mlx.evaluation.bootstrap import Bootstrap, difference, error_rate
from benchmarks.accuracy.word_errors import interval
from benchmarks.compression.ablation_variants import VARIANTS, Variant
from benchmarks.options import (
    Benchmark,
    ablation_options,
    checkpoints_option,
    only_option,
    output_option,
)
from benchmarks.result_files import check_settings, file_stem, write_json


class Portion(Prepared):
    """Prepared data of some of its sources.

    Args:
        folder: of the data.
        share: of the sources, drawn at random, above 0. All passes of a source go together.
    """

    def __init__(self, folder: Path, share: float) -> None:
        super().__init__(folder)
        sources = sorted({window.source for window in self.windows})
        count = max(1, round(share * len(sources)))
        chosen = set(random.Random(0).sample(sources, count))
        self.windows = [window for window in self.windows if window.source in chosen]


def calibration(teacher: Checkpoint, folders: Sequence[Path]) -> Calibration:
    """Statistics of a teacher over prepared speech, as the stage `factorize` takes them."""
    data = Choice([(Prepared(folder), 1.0) for folder in folders])
    batches = sample(data, Prompts.of(teacher, data.language), CALIBRATION_WINDOWS, timestamps=0.5)
    counts = count_tokens((window.tokens for window in data.windows), teacher.dims.n_vocab)
    return calibrate(calibratable(teacher), batches, counts)


class AblationRunner:
    """Makes, trains and measures the variants' students; common parts are computed once.

    Args:
        teacher: of all.
        real: folder of prepared recordings.
        synthetic: folder of prepared synthetic speech.
        dev: development windows.
        folder: where trainings keep their checkpoints.
        steps: of each training.
        batch_size: windows a step.
    """

    def __init__(
        self,
        teacher: Checkpoint,
        real: Path,
        synthetic: Path,
        dev: Windows,
        folder: Path,
        steps: int,
        batch_size: int = 4,
    ) -> None:
        self.source = Model.of(teacher)
        self.real, self.synthetic, self.dev = real, synthetic, dev
        self.folder, self.steps, self.batch_size = folder, steps, batch_size
        self.factorized = cache(self._factorized)
        self.statistics = cache(self._statistics)
        self.kl_before = cache(self._kl_before)

    def speech(self, variant: Variant) -> Speech:
        """What a variant is trained on."""
        parts = [(self.real, variant.real), (self.synthetic, variant.synthetic)]
        data = [(Portion(folder, share), 1.0) for folder, share in parts if share]
        return Speech(windows=Choice(data), fingerprints={})

    def _statistics(self) -> Calibration:
        return calibration(self.source.checkpoint, [self.real, self.synthetic])

    def _factorized(self, settings: FactorizeSettings) -> Model:
        checkpoint = self.source.checkpoint
        embedding = checkpoint.state[f"{EMBEDDING}.weight"]
        factors, _ = start(embedding, settings, self.statistics())
        return replace(self.source, checkpoint=with_factors(checkpoint, factors))

    def student(self, variant: Variant) -> Model:
        """A variant before training."""
        model = self.factorized(variant.embedding) if variant.embedding else self.source
        return run_merge(model, variant.layers, None, self.folder)[0]

    def _kl_before(self, layers: MergeSettings, embedding: FactorizeSettings | None) -> float:
        student = self.student(Variant(layers=layers, embedding=embedding))
        kl: float = self.measure(student, words=False)["kl"]
        return kl

    def run(self, name: str, variant: Variant) -> dict[str, Any]:
        """Trains a variant and measures it."""
        speech, student = self.speech(variant), self.student(variant)
        per_epoch = len(speech.windows.windows) // self.batch_size
        steps = self.steps * variant.longer
        training = TrainingSettings(
            epochs=steps / per_epoch,
            batch_size=self.batch_size,
            learning_rate=variant.learning_rate,
            freeze=variant.freeze,
            checkpoint_minutes=3.0,
        )
        before = self.kl_before(variant.layers, variant.embedding)
        folder = self.folder / file_stem(name)
        trained, metrics = run_distill(
            student, self.source.checkpoint, training, variant.loss, speech, None, folder
        )
        return {
            "parameters": count_parameters(trained.checkpoint),
            "real": variant.real,
            "synthetic": variant.synthetic,
            "longer": variant.longer,
            "windows": len(speech.windows.windows),
            "steps": metrics["steps"],
            "seconds": metrics["seconds"],
            "kl_before": before,
            "settings": dataclasses.asdict(variant),
        } | self.measure(trained, words=True)

    def measure(self, model: Model, *, words: bool) -> dict[str, Any]:
        """KL and agreement on the development windows; word errors of each, if wanted."""
        teacher = Whisper.from_checkpoint(self.source.checkpoint)
        objective = Distillation(teacher, model.groups, LossSettings(ce=0.0, kl=1.0))
        prompts = Prompts.of(self.source.checkpoint, self.dev.language)
        evaluator = Evaluator(self.dev, prompts, objective)
        student = Whisper.from_checkpoint(model.checkpoint).eval().requires_grad_(False)
        found = evaluator.losses(student, evaluator.parts())
        result: dict[str, Any] = {"kl": found["kl"], "top1": found["agreement"]}
        if words:
            result["word_errors"] = evaluator.word_errors(student)
        return result


def report(found: dict[str, dict[str, Any]], plain: str) -> dict[str, dict[str, Any]]:
    """Word error rates with intervals, and of the differences from the plain variant.

    Args:
        found: of each variant; `word_errors` holds errors and words of each window.
        plain: name of the variant that others are compared with.
    """
    counts = {name: np.array(row["word_errors"]) for name, row in found.items()}
    drawn = Bootstrap(np.column_stack([counts[plain][:, 1], *(c[:, 0] for c in counts.values())]))
    base = 1 + list(found).index(plain)
    rows = {}
    for column, (name, row) in enumerate(found.items(), start=1):
        rate = drawn.estimate(error_rate, column, 0)
        rows[name] = {k: v for k, v in row.items() if k not in ("word_errors", "settings")} | {
            "wer": rate.to_dict(4)["value"],
            "wer_interval": interval(rate),
            "difference_interval": interval(drawn.estimate(difference, base, column, 0)),
        }
    return rows


@click.command(cls=Benchmark)
@click.argument("teacher")
@ablation_options
@checkpoints_option
@output_option(name="--results")
@click.option("--steps", type=click.IntRange(min=1), default=150, show_default=True,
              help="Of each training.")  # fmt: skip
@only_option
def main(
    teacher: str,
    real: Path,
    synthetic: Path,
    dev: Path,
    checkpoints: Path,
    output: Path,
    steps: int,
    only: Sequence[str],
) -> None:
    """Train and measure the variants that are not measured yet."""
    source, folders = read_checkpoint(teacher), {"real": real, "synthetic": synthetic, "dev": dev}
    prints = {name: Prepared(folder).fingerprint for name, folder in folders.items()}
    check_settings(checkpoints, {"teacher": fingerprint(source)} | prints)
    runner = AblationRunner(source, real, synthetic, Prepared(dev), checkpoints, steps)
    kept = checkpoints / f"variants-{steps}.json"
    found: dict[str, Any] = json.loads(kept.read_text("utf-8")) if kept.is_file() else {}
    plain = next(iter(VARIANTS))
    for name, variant in VARIANTS.items():
        if name not in found and (not only or any(part in name for part in only)):
            found[name] = runner.run(name, variant)
            write_json(kept, found)
            errors = np.array(found[name]["word_errors"]).sum(0)
            click.echo(
                f"{name}: KL {found[name]['kl_before']:.3f} -> {found[name]['kl']:.3f}, "
                f"top-1 {found[name]['top1']:.3f}, WER {100 * errors[0] / errors[1]:.2f} %"
            )
    if plain in found:
        summary = {
            "data": Path(dev).name,
            "windows": len(runner.dev.windows),
            "steps": steps,
            "plain": plain,
            "variants": report(found, plain),
        }
        write_json(output, summary)


if __name__ == "__main__":
    main()
