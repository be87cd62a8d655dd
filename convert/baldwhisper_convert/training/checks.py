"""What a training needs of its model, its objective and its data, checked before it starts.

The loop checks when a training starts, and `run` checks every stage of a recipe before the first.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from baldwhisper_convert.data.prepared import Windows
from baldwhisper_convert.data.replay import Replay
from baldwhisper_convert.data.spec_augment import check_masks
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training.settings import TrainingSettings, parameter_groups


def check_batches(
    data: Windows, settings: TrainingSettings, processes: int, *, whole: bool = True
) -> None:
    """Checks that a step can be divided among processes and accumulated batches.

    Args:
        data: to train on.
        settings: `batch_size` and `accumulate`.
        processes: that train together.
        whole: whether `data` is all of it, so that its windows can be counted.

    Raises:
        ValueError: it cannot, or there are too few windows for one step.
    """
    parts = processes * settings.accumulate
    if settings.batch_size % parts:
        raise ValueError(
            f"batch_size {settings.batch_size} is not a multiple of {parts} "
            "(processes times accumulate); change one of them"
        )
    if whole and len(data.windows) < parts:
        raise ValueError(
            f"{len(data.windows)} windows are too few to train on; a step needs {parts}"
        )
    if isinstance(data, Replay):
        replayed = data.rows(settings.batch_size)
        if whole and len(data.other.windows) < replayed:
            count = len(data.other.windows)
            raise ValueError(f"replay: {count} windows are fewer than the {replayed} of a batch")
        if min(replayed, settings.batch_size - replayed) < parts:
            raise ValueError(
                f"batch_size {settings.batch_size} has {replayed} replayed windows, and a step is "
                f"divided into {parts} parts (processes times accumulate), which need windows of "
                "both languages; change batch_size, accumulate or replay.share"
            )


def check_evaluations(settings: TrainingSettings, *, has_dev: bool) -> None:
    """Checks that settings of evaluations can have an effect.

    Args:
        settings: `evaluate_every` and `patience`.
        has_dev: whether there is development data to evaluate on.

    Raises:
        ValueError: they cannot.
    """
    for name in ("evaluate_every", "patience"):
        if getattr(settings, name) and not has_dev:
            raise ValueError(f"{name} needs development data to evaluate on; name some as dev")
    if settings.patience and not settings.evaluate_every:
        raise ValueError("patience needs evaluate_every, the steps between two evaluations")


def trained_parameters(
    model: Whisper, objective: nn.Module, data: Windows, settings: TrainingSettings
) -> list[dict[str, Any]]:
    """Freezes parameters, and checks that the data has what the others learn from.

    Args:
        model: `requires_grad` of its parameters is set.
        objective: of the training.
        data: to train on.
        settings: which parameters are frozen or late.

    Returns:
        Parameter groups, from `parameter_groups`.

    Raises:
        ValueError: a pattern fits no parameter, nothing is left to train, or the data lacks text
            or log-mel.
    """
    check_masks(settings.spec_augment, is_mel=data.is_mel)
    groups = parameter_groups(model, objective, settings)
    if getattr(objective, "needs_text", True) and not data.labelled:
        raise ValueError(
            'the prepared data has no text (labels = "none"), which every term of the loss '
            "but loss.encoder needs; set the others to 0, or prepare data with text"
        )
    if not data.is_mel and any(p.requires_grad for p in model.encoder.parameters()):
        raise ValueError(
            "the prepared data is encoder states, but the encoder is not frozen and needs "
            'log-mel; freeze `encoder.*`, or prepare the data with features = "mel"'
        )
    return groups
