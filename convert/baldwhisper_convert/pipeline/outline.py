"""What a stage makes of a model, in form only: layers, sizes and which parameters change.

The weights are no better than random, but every later stage finds a model of the form that it will
find when the recipe runs. So a recipe is checked, and timed, before anything is trained.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.compression.factorize import (
    FactorizeSettings,
    rough_factors,
    with_embedding_of,
)
from baldwhisper_convert.compression.merge import MergeSettings
from baldwhisper_convert.data.speech import Speech
from baldwhisper_convert.pipeline.model import Model
from baldwhisper_convert.pipeline.recipe import StageRecipe
from baldwhisper_convert.pipeline.stages import run_merge
from baldwhisper_convert.pipeline.training_stages import trained_checkpoint
from baldwhisper_convert.training.settings import TrainingSettings, matches

_MOVED = 1.001
"""Factor of the weights that a training changes."""


def outline(stage: StageRecipe, model: Model, teacher: Checkpoint, speech: Speech | None) -> Model:
    """The form of a stage's result.

    Args:
        stage: a valid one.
        model: its input.
        teacher: at that stage.
        speech: its data.

    Raises:
        ValueError: settings that do not fit the model.
    """
    if stage.stage == "merge":
        settings = stage.merge or MergeSettings()
        # A search has to measure; any choice of as many layers has the form of its result.
        method = "even" if settings.method == "search" else settings.method
        plain = dataclasses.replace(settings, refit=0.0, method=method)
        return run_merge(model, plain, None, Path())[0]
    if stage.stage == "factorize":
        dense = dense_start(model, teacher)
        form = stage.factorize or FactorizeSettings()
        return dataclasses.replace(model, checkpoint=rough_factors(dense, form))
    checkpoint = _moved(model.checkpoint, stage.trained)
    if speech is not None:
        checkpoint = trained_checkpoint(checkpoint, speech.windows)
    return dataclasses.replace(model, checkpoint=checkpoint)


def dense_start(model: Model, teacher: Checkpoint) -> Checkpoint:
    """What `factorize` starts from: the model, with its teacher's embedding if it has factors.

    Raises:
        ValueError: the teacher's embedding is factorized too, or of another shape.
    """
    checkpoint = model.checkpoint
    return (
        checkpoint if checkpoint.embedding.rank is None else with_embedding_of(checkpoint, teacher)
    )


def _moved(checkpoint: Checkpoint, training: TrainingSettings) -> Checkpoint:
    """A checkpoint in which all trained parameters are others than before."""

    def trained(name: str) -> bool:
        adapted = training.lora is None or matches(
            name.removesuffix(".weight"), training.lora.targets
        )
        return adapted and not matches(name, training.freeze)

    state = {
        name: tensor * _MOVED if tensor.is_floating_point() and trained(name) else tensor
        for name, tensor in checkpoint.state.items()
    }
    return dataclasses.replace(checkpoint, state=state)
