"""What each choice for a language with few hours contributes: short trainings, one change each.

Every student starts from the same fine-tuned teacher and is trained for as many steps as the
others, with two seeds. The best of its evaluations on `--select` is kept, and its word errors are
counted on `--report`, with 95 % bootstrap intervals from the same samples of the windows for all.
Interrupted runs resume with the first unfinished training when you rerun the command.

    python -m benchmarks.reproduction.levers TEACHER --speech DIR --select DIR --report DIR \\
        --output runs/levers --results benchmarks/results/reproduction-levers.json

The folders are encoder states that `baldwhisper-convert prepare` or `run` wrote with this teacher;
those of `--speech` are of several passes, the first of them unchanged and the others augmented.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint, fingerprint
from baldwhisper_convert.compression.factorize import FactorizeSettings, count_parameters
from baldwhisper_convert.compression.merge import MergeSettings
from baldwhisper_convert.data.prepared import Choice, Prepared, PreparedWindow
from baldwhisper_convert.data.speech import Speech
from baldwhisper_convert.pipeline.model import Model
from baldwhisper_convert.pipeline.stages import run_factorize, run_merge
from baldwhisper_convert.pipeline.training_stages import run_distill
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_convert.training.objectives import LossSettings
from baldwhisper_convert.training.settings import TrainingSettings
from baldwhisper_mlx.files import write_atomically
from benchmarks.compression.ablation import Portion, report
from benchmarks.options import (
    Benchmark,
    checkpoints_option,
    only_option,
    output_option,
    prepared_options,
)
from benchmarks.reproduction.measure import word_errors
from benchmarks.reproduction.variants import LAYERS
from benchmarks.result_files import check_settings, file_stem, write_json

SEEDS = (0, 1)
EVALUATIONS = 3
"""On `--select`, in every training."""
RANK_96 = FactorizeSettings(rank=96)

Found = dict[str, dict[int, dict[str, Any]]]
"""What was measured, by lever and seed."""


@dataclass(frozen=True, kw_only=True)
class Lever:
    """A student and its training; the defaults are the one that others are compared with."""

    keep: tuple[int, ...] = (0, 3, 5)
    """Decoder layers of the teacher."""
    embedding: FactorizeSettings = RANK_96
    layers_first: bool = False
    """Whether half of the steps train the layers alone, before the embedding is factorized."""
    augmented: bool = True
    """Whether all passes over the speech are used, or the first one as many times."""
    loss: LossSettings = LAYERS
    learning_rate: float = 3e-4
    ema: float = 0.0


LEVERS = {
    "layers 0, 3, 5, rank 96": Lever(),
    "speech not augmented": Lever(augmented=False),
    "rank 80 and 1,500 dense rows": Lever(embedding=FactorizeSettings(rank=80, dense_rows=1500)),
    "rank 128": Lever(embedding=FactorizeSettings(rank=128)),
    "plain SVD": Lever(embedding=FactorizeSettings(rank=96, init="svd")),
    "layers 0, 2, 4": Lever(keep=(0, 2, 4)),
    "layers 0, 2, 3, 5": Lever(keep=(0, 2, 3, 5)),
    "layers first, then the embedding": Lever(layers_first=True),
    "no KL": Lever(loss=LossSettings(ce=1.0, kl=0.0)),
    "no cross-entropy": Lever(loss=replace(LAYERS, ce=0.0)),
    "layers compared": Lever(loss=replace(LAYERS, hidden=1.0)),
    "average of the weights": Lever(ema=0.98),
    "three times the learning rate": Lever(learning_rate=1e-3),
}


def first_pass(data: Prepared) -> Prepared:
    """Prepared clips without their augmented copies, which come after them.

    Raises:
        ValueError: windows of several clips, which are others in every pass.
    """
    if data.settings["report"]["settings"]["windows"].get("single", 1.0) != 1.0:
        raise ValueError(f"{data.folder}: prepare with windows.single = 1, for windows of one clip")
    windows: dict[str, PreparedWindow] = {}
    for window in data.windows:
        windows.setdefault(window.source, window)
    once = copy.copy(data)
    once.windows = list(windows.values())
    return once


class LeverSpeech:
    """The speech that all levers are trained, chosen and measured with.

    Args:
        speech: folder of prepared windows to train on.
        share: of the sources of the speech.
        select: windows that choose the best evaluation of a training.
        report: windows that word errors are counted on.
        batch_size: windows a step.
    """

    def __init__(
        self, speech: Path, share: float, select: Path, report: Path, batch_size: int = 16
    ) -> None:
        self.batch_size = batch_size
        every = Portion(speech, share)
        self.all_passes, self.first_pass = _speech(every), _speech(first_pass(every))
        self.select, self.report = _speech(Prepared(select)), _speech(Prepared(report))
        self.steps = len(every.windows) // batch_size

    def training(
        self, *, augmented: bool, seed: int, steps: int | None = None, **changes: Any
    ) -> tuple[Speech, TrainingSettings]:
        """The speech of a training and its settings.

        Args:
            augmented: all passes over the speech, or the first one as many times.
            seed: of the training.
            steps: by default those of one pass over all passes.
            changes: other settings.
        """
        speech = self.all_passes if augmented else self.first_pass
        steps = steps or self.steps
        return speech, TrainingSettings(
            epochs=steps / (len(speech.windows.windows) // self.batch_size),
            batch_size=self.batch_size,
            evaluate_every=-(-steps // EVALUATIONS),
            mixed_precision="bf16",
            mix=replace(TrainingSettings().mix, prompts=0.0),
            seed=seed,
            **changes,
        )


class LeverRunner:
    """Makes, trains and measures students of a teacher."""

    def __init__(self, teacher: Checkpoint, speech: LeverSpeech) -> None:
        self.source, self.speech = Model.of(teacher), speech
        self.factorized = cache(self._factorized)

    def run(self, lever: Lever, seed: int, folder: Path) -> dict[str, Any]:
        """Trains a student and counts its word errors; the folder is for its checkpoints."""
        steps = self.speech.steps
        merge = MergeSettings(method="keep", keep=lever.keep)
        if lever.layers_first:
            steps //= 2
            model, _ = run_merge(self.source, merge, None, folder)
            model = self._trained(model, lever, seed, steps, folder / "layers")
            model, _ = run_factorize(model, lever.embedding, self.speech.all_passes, None)
        else:
            model, _ = run_merge(self.factorized(lever.embedding), merge, None, folder)
        model = self._trained(model, lever, seed, steps, folder)
        return measures(model, lever, 2 * steps if lever.layers_first else steps, self.speech)

    def _factorized(self, settings: FactorizeSettings) -> Model:
        return run_factorize(self.source, settings, self.speech.all_passes, None)[0]

    def _trained(self, model: Model, lever: Lever, seed: int, steps: int, folder: Path) -> Model:
        folder.mkdir(parents=True, exist_ok=True)
        speech, training = self.speech.training(
            augmented=lever.augmented, seed=seed, steps=steps,
            learning_rate=lever.learning_rate, ema=lever.ema,
        )  # fmt: skip
        teacher, select = self.source.checkpoint, self.speech.select
        return run_distill(model, teacher, training, lever.loss, speech, select, folder)[0]


def measures(model: Model, lever: Any, steps: int, speech: LeverSpeech) -> dict[str, Any]:
    """What is kept of a trained model."""
    return {
        "parameters": count_parameters(model.checkpoint),
        "steps": steps,
        "settings": asdict(lever),
        "word_errors": word_errors(model, speech.report),
    }


def _speech(data: Prepared) -> Speech:
    return Speech(windows=Choice([(data, 1.0)]), fingerprints={})


def measured(
    levers: Mapping[str, Any],
    run: Callable[[Any, int, Path], dict[str, Any]],
    checkpoints: Path,
    only: Sequence[str],
) -> Found:
    """Trains and measures with all seeds what is not measured yet, and prints all.

    Args:
        levers: by name.
        run: trains one with a seed, in a folder for its checkpoints.
        checkpoints: folder of those folders, and of what was measured.
        only: parts of the names of levers; all, if there are none.
    """
    found: Found = {}
    for seed in SEEDS:
        for name, lever in levers.items():
            folder = checkpoints / f"{file_stem(name)}-{seed}"
            kept = folder.with_suffix(".json")
            if not kept.is_file():
                if only and not any(part in name for part in only):
                    continue
                write_atomically(kept, json.dumps(run(lever, seed, folder)))
            row = json.loads(kept.read_text("utf-8"))
            found.setdefault(name, {})[seed] = row
            errors, words = map(sum, zip(*row["word_errors"], strict=True))
            click.echo(f"{name}, seed {seed}: WER {100 * errors / words:.2f} %")
    return found


def summary(found: Found) -> dict[str, dict[str, Any]]:
    """Rates over all seeds, and paired differences from the first lever.

    Args:
        found: by lever and seed.
    """
    both, rates = {}, {}
    for name, seeds in found.items():
        counts = np.array([row["word_errors"] for row in seeds.values()])
        first = next(iter(seeds.values()))
        both[name] = first | {"word_errors": counts.sum(0).tolist()}
        totals = counts.sum(1)
        rates[name] = [round(float(errors / words), 4) for errors, words in totals]
    rows = report(both, next(iter(both)))
    return {name: row | {"wer_of_seeds": rates[name]} for name, row in rows.items()}


def command(
    levers: Mapping[str, Any], runner: Callable[[Checkpoint, LeverSpeech], Any], text: str
) -> click.Command:
    """A command that trains and measures levers that are not measured yet.

    Args:
        levers: by name; others are compared with the first.
        runner: takes the teacher and the speech; its `run` trains and measures a lever.
        text: of its help.
    """

    @click.command(cls=Benchmark, help=text)
    @click.argument("teacher")
    @prepared_options(
        speech="the speech to train on, in several passes",
        select="clips that choose the best evaluation",
        report="clips that word errors are counted on",
    )
    @checkpoints_option
    @output_option(name="--results")
    @click.option("--share", default=0.2, show_default=True, help="Share of the speech.")
    @only_option
    def main(
        teacher: str,
        speech: Path,
        select: Path,
        report: Path,
        checkpoints: Path,
        output: Path,
        share: float,
        only: Sequence[str],
    ) -> None:
        source, data = read_checkpoint(teacher), LeverSpeech(speech, share, select, report)
        prints = [Prepared(folder).fingerprint for folder in (speech, select, report)]
        facts = {"teacher": fingerprint(source), "data": prints, "share": share}
        check_settings(checkpoints, facts | {name: asdict(one) for name, one in levers.items()})
        run = runner(source, data).run
        found = measured(levers, run, checkpoints, only)
        complete = {name: seeds for name, seeds in found.items() if len(seeds) == len(SEEDS)}
        if next(iter(levers)) not in complete:
            return
        windows = len(data.report.windows.windows)
        facts = {"share": share, "steps": data.steps, "windows": windows, "seeds": list(SEEDS)}
        write_json(output, facts | {"levers": summary(complete)})

    return main


main = command(LEVERS, LeverRunner, "Train and measure the students that are not measured yet.")

if __name__ == "__main__":
    main()
