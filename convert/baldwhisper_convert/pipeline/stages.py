"""The stages: from a model to a stage folder.

`baldwhisper-convert merge` and the other commands perform a single stage, `run` several in order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint, fingerprint
from baldwhisper_convert.compression.factorize import (
    FactorizeSettings,
    factorize,
    with_embedding_of,
)
from baldwhisper_convert.compression.merge import MergeSettings, merge
from baldwhisper_convert.data.speech import SAMPLE_BATCH, Speech, by_name, sample
from baldwhisper_convert.data.texts import count_text, count_tokens
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.pipeline.manifest import Manifest, read_manifest
from baldwhisper_convert.pipeline.model import Model, save_stage
from baldwhisper_convert.pipeline.recipe import StageRecipe, finetuning
from baldwhisper_convert.pipeline.run_folders import run_folder
from baldwhisper_convert.pipeline.training_stages import run_distill, run_finetune
from baldwhisper_convert.processes import Processes
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_convert.training.checkpoints import RunFolder, interrupted_at
from baldwhisper_convert.training.log import CURVES_FILE, LOG_FILE
from baldwhisper_convert.training.objectives import LossSettings
from baldwhisper_convert.training.settings import TrainingSettings

MERGE_WINDOWS, CALIBRATION_WINDOWS, HELD_OUT_WINDOWS = 24, 120, 24
"""Numbers of windows that merge measures with, and that factorize calibrates and measures with."""
REFIT_WINDOWS = 48
"""Further windows that merge fits the encoder's layers to."""

ONE_PROCESS = ("merge", "factorize")
"""Stages that the main process performs; the others wait, and read what it wrote."""


def run_merge(
    model: Model, settings: MergeSettings, speech: Speech | None, report: Path, count: int = 0
) -> tuple[Model, dict[str, Any]]:
    """Makes fewer decoder or encoder layers; with speech, also measures other choices of layers.

    Args:
        model: the teacher.
        settings: which layers.
        speech: to measure with, or None.
        report: folder for the similarity matrix and the choices.
        count: number of windows to measure with; 0 for `MERGE_WINDOWS`.

    Returns:
        The student and the metrics of `merge`.
    """
    batches, calibration = None, None
    if speech:
        prompts = Prompts.of(model.checkpoint, speech.windows.language)
        measured = count or MERGE_WINDOWS
        fitted = REFIT_WINDOWS if settings.refit else 0
        sampled = sample(speech.windows, prompts, measured + fitted)
        # Measured on other windows than those that the layers are fitted to.
        cut = max(1, len(sampled) - fitted // SAMPLE_BATCH)
        batches, calibration = sampled[:cut], sampled[cut:]
    has_text = speech is None or speech.windows.labelled
    student, groups, metrics = merge(
        model.checkpoint, settings, batches, report, has_text=has_text, calibration=calibration
    )
    # After a second merge, the groups name layers of the first teacher still.
    of_encoder = settings.part == "encoder"
    before = model.encoder_groups if of_encoder else model.groups
    original = tuple(tuple(i for layer in group for i in before[layer]) for group in groups)
    changed = {"encoder_groups" if of_encoder else "groups": original}
    return dataclasses.replace(model, checkpoint=student, **changed), metrics


def run_factorize(
    model: Model,
    settings: FactorizeSettings,
    speech: Speech,
    dev: Speech | None,
    count: int = 0,
    teacher: Checkpoint | None = None,
) -> tuple[Model, dict[str, Any]]:
    """Factorizes the token embedding.

    Args:
        model: with a dense embedding, or a factorized one to be replaced.
        settings: rank and form.
        speech: to calibrate on.
        dev: to measure on; if None, other windows of `speech`.
        count: number of windows to calibrate on; 0 for `CALIBRATION_WINDOWS`.
        teacher: its embedding is factorized if the model's already is.

    Returns:
        The student and the metrics of `factorize`.
    """
    checkpoint = model.checkpoint
    if teacher and checkpoint.embedding.rank is not None:
        checkpoint = with_embedding_of(checkpoint, teacher)
    check_labelled(speech, dev)
    prompts = Prompts.of(model.checkpoint, speech.windows.language)
    count = min(count or CALIBRATION_WINDOWS, len(speech.windows.windows))
    if dev:
        calibration = sample(speech.windows, prompts, count, timestamps=0.5)
        held_out = sample(dev.windows, prompts, HELD_OUT_WINDOWS)
    else:
        batches = sample(speech.windows, prompts, count + HELD_OUT_WINDOWS, timestamps=0.5)
        cut = max(1, len(batches) - HELD_OUT_WINDOWS // SAMPLE_BATCH)
        calibration, held_out = batches[:cut], batches[cut:] or batches[-1:]
    # Count all available text; a hundred windows are too few to tell which tokens are frequent.
    n_vocab = checkpoint.dims.n_vocab
    counts = count_tokens((w.tokens for w in speech.windows.windows), n_vocab)
    for text in speech.texts:
        counts += count_text(text, prompts.tokenizer, n_vocab)
    student, metrics = factorize(checkpoint, settings, calibration, held_out, counts)
    return dataclasses.replace(model, checkpoint=student), metrics


def check_labelled(speech: Speech, dev: Speech | None) -> None:
    """Raises ValueError for data without text, which `factorize` cannot count tokens of."""
    if not speech.windows.labelled or (dev and not dev.windows.labelled):
        raise ValueError("the stage factorize counts tokens of text; give data with labels")


def perform(
    stage: StageRecipe,
    model: Model,
    folder: Path,
    runs: Path,
    *,
    teacher: Checkpoint | None = None,
    speech: Speech | None = None,
    dev: Speech | None = None,
    say: Callable[[str], None] = print,
) -> tuple[Model, dict[str, Any]]:
    """Performs one stage and saves its result in `folder`.

    Args:
        stage: the stage and its settings.
        model: the input.
        folder: the stage folder; replaced if it is an exported model.
        runs: folder for checkpoints of trainings, in a subfolder named after stage and settings.
        teacher: for `distill`, and for `factorize` if the model is factorized already.
        speech: prepared data.
        dev: prepared development data.
        say: receives where an interrupted training resumes.

    Returns:
        The new model and the stage's metrics.

    Raises:
        ValueError: the stage needs data or a teacher, and none is given.
    """
    processes = Processes.start()
    manifest = plan_manifest(stage, model, teacher, speech, dev)
    if stage.stage in ONE_PROCESS and not processes.main:
        processes.wait()
        written = read_manifest(folder)
        return Model.of(read_checkpoint(folder), folder), written.metrics if written else {}
    work = run_folder(runs, stage, manifest)
    work.mkdir(parents=True, exist_ok=True)
    if (step := interrupted_at(work)) and processes.main:
        say(f"{folder}: resumes after step {step}")
    if stage.stage == "merge":
        settings = stage.merge or MergeSettings()
        result, metrics = run_merge(model, settings, speech, work, stage.speech)
    elif speech is None:
        raise ValueError(f"the stage {stage.stage} needs data")
    elif stage.stage == "factorize":
        form = stage.factorize or FactorizeSettings()
        result, metrics = run_factorize(model, form, speech, dev, stage.speech, teacher)
    elif stage.stage == "finetune":
        result, metrics = run_finetune(model, stage.training or finetuning(), speech, dev, work)
    elif teacher is None:
        raise ValueError("the stage distill needs a teacher")
    else:
        training, loss = stage.training or TrainingSettings(), stage.loss or LossSettings()
        result, metrics = run_distill(model, teacher, training, loss, speech, dev, work)
    reports = [work / LOG_FILE, work / CURVES_FILE, *sorted(work.glob("layer_*"))]
    if processes.main:
        save_stage(result, folder, dataclasses.replace(manifest, metrics=metrics), reports)
        RunFolder(work).discard()
    processes.wait()
    return result, metrics


def plan_manifest(
    stage: StageRecipe,
    model: Model,
    teacher: Checkpoint | None,
    speech: Speech | None,
    dev: Speech | None,
) -> Manifest:
    """The manifest of a stage without its results; for the arguments see `perform`."""
    again = stage.stage == "factorize" and model.checkpoint.embedding.rank is not None
    taught = stage.stage == "distill" or again
    return Manifest(
        stage=stage.stage,
        parent=fingerprint(model.checkpoint),
        teacher=fingerprint(teacher) if teacher and taught else None,
        settings=stage.settings,
        data=by_name(item for used in (speech, dev) if used for item in used.fingerprints.items()),
        seed=stage.training.seed if stage.training else 0,
    )


def describe(metrics: dict[str, Any]) -> str:
    """Formats the scalar results of a stage in one line."""
    scalars = {k: v for k, v in metrics.items() if isinstance(v, int | float | str)}
    return ", ".join(
        f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in scalars.items()
    )
