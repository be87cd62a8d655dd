"""A tiny teacher with four encoder layers, and students with fewer, to train on log-mel."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.compression.layers import apply_plan, keep_plan
from baldwhisper_convert.data.prepared import Windows
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training.loop import Evaluate, train
from baldwhisper_convert.training.objectives import Distillation, LossSettings
from baldwhisper_convert.training.settings import TrainingSettings
from tests.support.tiny import tiny_checkpoint
from tests.support.tiny_prepared import teacher_dims, tiny_prompts
from tests.support.tiny_runs import PLAIN

KEPT = (0, 2, 3)
GROUPS = ((0,), (1, 2), (3,))
"""Teacher layers that the encoder layers of `encoder_student` stand for."""
DECODER_GROUPS = ((0,), (1,), (2,))

STATES_ONLY = LossSettings(ce=0, kl=0, encoder=1.0)
"""The states of the encoder and nothing else: no text is needed."""


@cache
def encoder_teacher() -> Checkpoint:
    """Four encoder layers, three decoder layers, width 32."""
    return tiny_checkpoint(replace(teacher_dims(), n_audio_layer=4), alignment_heads=None)


@cache
def encoder_student() -> Checkpoint:
    """Three of its encoder layers."""
    return apply_plan(encoder_teacher(), keep_plan(4, KEPT), "encoder")


def objective(settings: LossSettings = STATES_ONLY) -> Distillation:
    """The objective of `encoder_student`."""
    teacher = Whisper.from_checkpoint(encoder_teacher())
    return Distillation(teacher, DECODER_GROUPS, settings, GROUPS)


def run_encoder(
    folder: Path,
    data: Windows,
    *,
    loss: LossSettings = STATES_ONLY,
    evaluate: Evaluate | None = None,
    **settings: Any,
) -> tuple[Whisper, dict[str, Any]]:
    """Trains `encoder_student` with a frozen decoder; the model and what `train` returns."""
    student = Whisper.from_checkpoint(encoder_student())
    options = PLAIN | {"freeze": ("decoder.*",)} | settings
    results = train(
        student, objective(loss), data, tiny_prompts(), TrainingSettings(**options), folder,
        evaluate=evaluate,
    )  # fmt: skip
    return student, results
