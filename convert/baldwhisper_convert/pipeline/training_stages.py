"""The stages that train, `finetune` and `distill`: from a model and an objective to a new model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.data.prepared import Windows
from baldwhisper_convert.data.speech import ReplayTeacher, Speech
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.pipeline.model import Model
from baldwhisper_convert.processes import Processes
from baldwhisper_convert.training.checks import check_evaluations
from baldwhisper_convert.training.evaluation import Evaluator
from baldwhisper_convert.training.loop import new_accelerator, train
from baldwhisper_convert.training.lora import add_lora
from baldwhisper_convert.training.objectives import Distillation, LossSettings, Transcription
from baldwhisper_convert.training.replay import WithReplay
from baldwhisper_convert.training.settings import TrainingSettings


def run_finetune(
    model: Model, training: TrainingSettings, speech: Speech, dev: Speech | None, folder: Path
) -> tuple[Model, dict[str, Any]]:
    """Trains a model on the labels; `folder` is the training run's."""
    return _train(model, Transcription(), training, speech, dev, folder)


def run_distill(
    model: Model,
    teacher: Checkpoint,
    training: TrainingSettings,
    loss: LossSettings,
    speech: Speech,
    dev: Speech | None,
    folder: Path,
) -> tuple[Model, dict[str, Any]]:
    """Trains a student against its teacher; `folder` is the training run's."""
    return _train(model, distillation(model, teacher, loss), training, speech, dev, folder)


def distillation(model: Model, teacher: Checkpoint, loss: LossSettings) -> Distillation:
    """The objective of `distill`."""
    return Distillation(Whisper.from_checkpoint(teacher), model.groups, loss, model.encoder_groups)


def with_kept(objective: nn.Module, model: Model, replay: ReplayTeacher | None) -> nn.Module:
    """The objective of a training, with the predictions that it is to keep on replayed speech."""
    if replay is None:
        return objective
    kept = Whisper.from_checkpoint(replay.checkpoint)
    return WithReplay(
        objective, kept, model.groups, replay.weight, model.encoder_groups,
        full_context=replay.full_context,
    )  # fmt: skip


def move_teachers(objective: nn.Module, device: torch.device) -> None:
    """Moves the frozen models of an objective to the device of the training."""
    if isinstance(objective, WithReplay):
        for teacher in objective.teachers:
            teacher.to(device)
    elif isinstance(objective, Distillation):
        objective.teacher.to(device)


def _train(
    model: Model,
    objective: nn.Module,
    training: TrainingSettings,
    speech: Speech,
    dev: Speech | None,
    folder: Path,
) -> tuple[Model, dict[str, Any]]:
    """Trains a model with an objective; evaluates on `dev` if there is one."""
    check_evaluations(training, has_dev=dev is not None)
    prompts = Prompts.of(model.checkpoint, speech.windows.language)
    module = Whisper.from_checkpoint(model.checkpoint)
    merge_lora = add_lora(module, training)
    accelerator = new_accelerator()
    device = accelerator.device
    evaluate = None
    if dev:
        evaluate = Evaluator(
            dev.windows, prompts, objective, device=device, processes=Processes.start()
        )
    keeping = with_kept(objective, model, speech.replay)
    move_teachers(keeping, device)
    metrics = train(
        module, keeping, speech.windows, prompts, training, folder,
        evaluate=evaluate, accelerator=accelerator,
    )  # fmt: skip
    merge_lora()
    if training.start_share:
        add_start(module, model.checkpoint, training.start_share)
        if evaluate:
            # A training that had ended before has frozen nothing, which objectives check.
            metrics |= evaluate(module.to(device).requires_grad_(False))
    checkpoint = dataclasses.replace(model.checkpoint, state=module.canonical_state())
    checkpoint = trained_checkpoint(checkpoint, speech.windows)
    return dataclasses.replace(model, checkpoint=checkpoint), metrics


def trained_checkpoint(checkpoint: Checkpoint, windows: Windows) -> Checkpoint:
    """Sets the audio context of a checkpoint and adds the language of what it was trained on."""
    checkpoint = in_context(checkpoint, *windows.audio_context)
    if checkpoint.languages is not None:
        known = tuple(dict.fromkeys([*checkpoint.languages, *windows.languages]))
        checkpoint = dataclasses.replace(checkpoint, languages=known)
    return checkpoint


@torch.no_grad()
def add_start(module: Whisper, start: Checkpoint, share: float) -> None:
    """Moves trained weights towards those they started from: share start + (1 - share) trained."""
    first = Whisper.from_checkpoint(start).state_dict()
    for name, weight in module.state_dict().items():
        if weight.is_floating_point():
            weight.lerp_(first[name].to(weight), share)


def in_context(checkpoint: Checkpoint, context: str, margin: int) -> Checkpoint:
    """Sets the audio context of a checkpoint to the one it was trained in."""
    if context == "dynamic":
        return dataclasses.replace(checkpoint, audio_context="dynamic", audio_context_margin=margin)
    if checkpoint.audio_context == "dynamic":
        return dataclasses.replace(checkpoint, audio_context="full")
    return checkpoint
