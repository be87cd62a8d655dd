"""The paper's choices compared with others, on the run of a recipe: short trainings, equal for all.

Layers are merged, kept or dropped, and the embedding is factorized ("sheared") in several ways;
every student is trained for as many passes as the others and evaluated on the same development
windows: word errors with 95 % bootstrap intervals from the same samples of the windows, and their
course over the steps. Interrupted runs resume with the first unfinished variant when you rerun the
command.

    python -m benchmarks.reproduction RUN --output runs/variants \\
        --results benchmarks/results/reproduction-variants.json

RUN is the output folder of `baldwhisper-convert run recipes/mboshi.toml`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from baldwhisper_convert.checkpoint.checkpoint import fingerprint
from baldwhisper_convert.compression.factorize import count_parameters
from baldwhisper_convert.data.speech import Speech, open_speech
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.pipeline.manifest import read_manifest
from baldwhisper_convert.pipeline.model import Model
from baldwhisper_convert.pipeline.stages import run_factorize, run_merge
from baldwhisper_convert.pipeline.training_stages import run_distill
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_convert.training.evaluation import Evaluator
from baldwhisper_convert.training.log import LOG_FILE, read_log
from baldwhisper_convert.training.objectives import LossSettings
from baldwhisper_convert.training.settings import TrainingSettings
from baldwhisper_mlx.files import write_atomically
from benchmarks.compression.ablation import report
from benchmarks.options import Benchmark, checkpoints_option, only_option, output_option
from benchmarks.reproduction.variants import EARLIER_NAMES, Variant, variants
from benchmarks.result_files import check_settings, file_stem, write_json

TEACHER, MERGED, STUDENT = "01-finetune", "02-merge", "03-distill"
"""Stage folders of the run."""

Metrics = dict[str, Any]
"""Metrics of a training: `steps`, `seconds` and its results."""


@dataclass(frozen=True)
class Run:
    """What variants start from and learn from."""

    teacher: Model
    student: Model
    """Merged and trained."""
    alpha: float
    beta: float
    speech: Speech
    dev: Speech


def open_run(folder: Path, share: float = 1.0) -> Run:
    """Reads a run's stages and its prepared encoder states.

    Args:
        folder: of the run.
        share: of the training speech that variants learn from.

    Raises:
        FileNotFoundError: a stage, or the states, are not there yet.
        ValueError: another recipe's run.
    """
    manifest = read_manifest(folder / MERGED)
    if manifest is None or manifest.stage != "merge":
        raise FileNotFoundError(f"{folder / MERGED}: no stage that merged; run the recipe first")
    weights = manifest.settings["merge"]
    models = {}
    for name in (TEACHER, STUDENT):
        checkpoint = read_checkpoint(folder / name)
        models[name] = Model.of(checkpoint, folder / name)
    data = {}
    for name in ("states", "dev_states"):
        found = sorted(folder.glob(f"prepared/{name}-*"))
        if len(found) != 1:
            raise FileNotFoundError(f"{folder}/prepared: {len(found)} folders called {name}-*")
        data[name] = open_speech([f"{found[0]}:{share if name == 'states' else 1.0}"])
    return Run(
        teacher=models[TEACHER],
        student=models[STUDENT],
        alpha=weights["alpha"],
        beta=weights["beta"],
        speech=data["states"],
        dev=data["dev_states"],
    )


def train_variant(run: Run, variant: Variant, training: TrainingSettings, folder: Path) -> Any:
    """Makes a variant's student, trains it in `folder` and counts its word errors."""
    training = dataclasses.replace(
        training,
        epochs=training.epochs * variant.longer,
        learning_rate=training.learning_rate / variant.slower,
        seed=variant.seed,
    )

    def train(model: Model, loss: LossSettings, folder: Path) -> tuple[Model, Metrics]:
        folder.mkdir(parents=True, exist_ok=True)
        teacher = run.teacher.checkpoint
        return run_distill(model, teacher, training, loss, run.speech, run.dev, folder)

    model, trainings = run.student, list[tuple[Path, Metrics]]()
    if variant.merge:
        model, _ = run_merge(run.teacher, variant.merge, None, folder)
    if variant.before:
        model, metrics = train(model, variant.before, folder / "before")
        trainings.append((folder / "before", metrics))
    if variant.factorize:
        model, _ = run_factorize(model, variant.factorize, run.speech, None)
    model, metrics = train(model, variant.loss, folder)
    trainings.append((folder, metrics))
    return {
        "group": variant.group,
        "parameters": count_parameters(model.checkpoint),
        "steps": sum(metrics["steps"] for _, metrics in trainings),
        "seconds": sum(metrics["seconds"] for _, metrics in trainings),
        "curve": curve(trainings),
        "settings": dataclasses.asdict(variant),
        "word_errors": word_errors(model, run.dev),
    }


def curve(trainings: Sequence[tuple[Path, Metrics]]) -> list[list[float]]:
    """Step and WER of every evaluation on development data; steps count through all trainings."""
    points, before = list[list[float]](), 0
    for folder, metrics in trainings:
        evaluations = [row for row in read_log(folder / LOG_FILE) if "dev" in row]
        points += [[before + row["step"], row["dev"]["wer"]] for row in evaluations]
        before += metrics["steps"]
    return points


def word_errors(model: Model, dev: Speech) -> list[tuple[int, int]]:
    """Errors and words of every development window, in order."""
    prompts = Prompts.of(model.checkpoint, dev.windows.language)
    student = Whisper.from_checkpoint(model.checkpoint).requires_grad_(False)
    return Evaluator(dev.windows, prompts).word_errors(student)


def summary(
    found: dict[str, dict[str, Any]], training: TrainingSettings, share: float
) -> dict[str, Any]:
    """Rates, intervals and paired differences from the first variant of each group."""
    rows: dict[str, Any] = {}
    for group in dict.fromkeys(row["group"] for row in found.values()):
        members = {name: row for name, row in found.items() if row["group"] == group}
        rows |= report(members, next(iter(members)))
    return {
        "epochs": training.epochs,
        "batch_size": training.batch_size,
        "learning_rate": training.learning_rate,
        "share": share,
        "windows": max(len(row["word_errors"]) for row in found.values()),
        "variants": rows,
    }


@click.command(cls=Benchmark)
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@checkpoints_option
@output_option(name="--results")
@click.option("--epochs", default=2.0, show_default=True, help="Passes of each training.")
@click.option("--share", default=1.0, show_default=True, help="Share of the training speech.")
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True,
              help="Windows in a step.")  # fmt: skip
@click.option("--learning-rate", default=3e-4, show_default=True, help="Peak of the schedule.")
@only_option
@click.option("--part", default="0/1", show_default=True, metavar="I/N",
              help="Every Nth variant from the Ith on, for one of several processes.")  # fmt: skip
def main(
    run: Path,
    checkpoints: Path,
    output: Path,
    epochs: float,
    share: float,
    batch_size: int,
    learning_rate: float,
    only: Sequence[str],
    part: str,
) -> None:
    """Train and measure the variants that are not measured yet."""
    opened = open_run(run, share)
    per_epoch = max(1, len(opened.speech.windows.windows) // batch_size)
    training = TrainingSettings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        evaluate_every=per_epoch,
        checkpoint_minutes=4.0,
        mixed_precision="bf16",
        mix=dataclasses.replace(TrainingSettings().mix, prompts=0.0),
    )
    every = variants(opened.alpha, opened.beta)
    facts = {"teacher": fingerprint(opened.teacher.checkpoint), "share": share}
    check_settings(checkpoints, facts | dataclasses.asdict(training))
    adopt_earlier_names(checkpoints)
    first, step = map(int, part.split("/"))
    for name in list(every)[first::step]:
        kept = _file(checkpoints, name)
        if kept.is_file() or (only and not any(piece in name for piece in only)):
            continue
        found = train_variant(opened, every[name], training, kept.with_suffix(""))
        write_atomically(kept, json.dumps(found))
        errors, words = map(sum, zip(*found["word_errors"], strict=True))
        click.echo(f"{name}: WER {100 * errors / words:.2f} %")
    done = {
        name: json.loads(_file(checkpoints, name).read_text(encoding="utf-8"))
        for name in every
        if _file(checkpoints, name).is_file()
    }
    if done:
        write_json(output, summary(done, training, share))


def adopt_earlier_names(folder: Path) -> None:
    """Renames what an earlier version left in an output folder, so that its run resumes."""
    for name, earlier in EARLIER_NAMES.items():
        new, old = _file(folder, name), _file(folder, earlier)
        # the result and the folder of checkpoints, which exists before the result does
        for source, target in ((old, new), (old.with_suffix(""), new.with_suffix(""))):
            if source.exists() and not target.exists():
                source.rename(target)


def _file(output: Path, name: str) -> Path:
    return output / f"{file_stem(name)}.json"


if __name__ == "__main__":
    main()
