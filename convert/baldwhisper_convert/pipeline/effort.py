"""Rough sizes of the work of a run, relative to each other, for the time that is left of it.

They count multiplications: parameters times positions or tokens, three times for what is trained.
The bars multiply them by the time that the present work takes; `run --dry-run` measures instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.data.batches import per_epoch
from baldwhisper_convert.data.prepared import Windows
from baldwhisper_convert.data.replay import Replay, without_replay
from baldwhisper_convert.data.speech import Speech
from baldwhisper_convert.data.windows import WINDOW_POSITIONS
from baldwhisper_convert.pipeline.planned_data import PlannedData
from baldwhisper_convert.pipeline.planned_stage import PlannedStage, prepared_once
from baldwhisper_convert.pipeline.stages import CALIBRATION_WINDOWS, MERGE_WINDOWS
from baldwhisper_convert.training.settings import matches

_AUDIO = 1.5e7
"""Multiplications that take as long as reading a position of audio, augmentation and log-mel: two
cores of an AMD EPYC read 12,000 positions a second, and trained whisper-base at 1.8e11."""

Work = tuple[int, str]
"""Number of a stage, and the name of the data that it prepares; empty for the stage itself."""


class Efforts:
    """The work of a run in order, and what comes after each piece of it.

    Args:
        stages: of the recipe.
        prepared_first: number of the stage and name of the data that is prepared before all stages.
    """

    def __init__(self, stages: list[PlannedStage], prepared_first: Sequence[Work] = ()) -> None:
        first, then = dict[Work, float](), dict[Work, float]()
        prepared = set[tuple[str, int]]()
        for stage in stages:
            for data, teacher in stage.sets:
                if (known := prepared_once(data, teacher)) not in prepared:
                    prepared.add(known)
                    work = (stage.number, data.folder.name)
                    (first if work in prepared_first else then)[work] = preparing(teacher, data)
            then[(stage.number, "")] = performing(stage)
        self._efforts = first | then

    def after(self, number: int, name: str = "") -> float | None:
        """What comes after a piece of work, as a multiple of it; None if that is unknown."""
        works = list(self._efforts)
        if (number, name) not in works or not self._efforts[(number, name)]:
            return None
        place = works.index((number, name))
        rest = sum(self._efforts[work] for work in works[place + 1 :])
        return rest / self._efforts[(number, name)]


def preparing(teacher: Checkpoint, data: PlannedData) -> float:
    """Effort of preparing a data set."""
    settings = data.settings["report"]["settings"]
    encoder, decoder = _parameters(teacher)
    dynamic = settings["audio_context"] == "dynamic"
    positions = sum(w.positions if dynamic else WINDOW_POSITIONS for w in data.windows)
    runs_encoder = not data.is_mel or settings["labels"] == "teacher"
    effort = positions * (_AUDIO + (encoder if runs_encoder else 0))
    if settings["labels"] == "teacher":
        effort += sum(len(window.tokens) for window in data.windows) * decoder
    return effort


def performing(stage: PlannedStage) -> float:
    """Effort of a stage whose data is prepared."""
    if stage.speech is None:
        return 0.0
    windows = without_replay(stage.speech.windows)
    if stage.stage.stage in ("merge", "factorize"):
        most = MERGE_WINDOWS if stage.stage.stage == "merge" else CALIBRATION_WINDOWS
        share = min(1.0, (stage.stage.speech or most) / max(1, len(windows.windows)))
        return 4 * share * _pass(stage.model.checkpoint, windows, trained=False)
    training = stage.stage.trained
    encoder_trained = any(
        name.startswith("encoder.") and not matches(name, training.freeze)
        for name in stage.model.checkpoint.state
    )
    one = _pass(stage.model.checkpoint, windows, trained=True, encoder_trained=encoder_trained)
    if stage.stage.stage == "distill":
        one += _pass(stage.teacher, windows, trained=False)
    steps = training.steps(per_epoch(stage.speech.windows, training.batch_size))
    # With replay, a pass over the speech takes more steps of as many windows.
    effort = one * steps * training.batch_size / max(1, len(windows.windows))
    effort += steps * _replaying(stage.speech, training.batch_size)
    if stage.dev:
        every = training.evaluate_every
        count = math.ceil(steps / every) if every else 1
        # Once for the loss, and once for decoding.
        effort += 2 * count * _pass(stage.model.checkpoint, stage.dev.windows, trained=False)
    return effort


def _replaying(speech: Speech, batch_size: int) -> float:
    """Effort of the other teacher in a step, for the windows that are replayed."""
    if speech.replay is None or not isinstance(speech.windows, Replay):
        return 0.0
    teacher, other = speech.replay.checkpoint, speech.windows.other
    positions = WINDOW_POSITIONS if speech.replay.full_context else None
    one = _pass(teacher, other, trained=False, positions=positions)
    return one * speech.windows.rows(batch_size) / len(other.windows)


def _pass(
    model: Checkpoint,
    windows: Windows,
    *,
    trained: bool,
    encoder_trained: bool = False,
    positions: int | None = None,
) -> float:
    """Effort of a pass over windows, each of so many positions or of its own."""
    encoder, decoder = _parameters(model)
    positions = sum(positions or window.positions for window in windows.windows)
    tokens = sum(len(window.tokens) for window in windows.windows)
    effort = float(tokens * decoder * (3 if trained else 1))
    # The cross-attention's keys and values of all positions.
    dims = model.dims
    effort += 2.0 * positions * dims.n_text_layer * dims.n_text_state**2
    if windows.is_mel:
        effort += positions * encoder * (3 if encoder_trained else 1)
    return effort


def _parameters(model: Checkpoint) -> tuple[int, int]:
    """Numbers of parameters of encoder and decoder."""
    encoder = sum(t.numel() for name, t in model.state.items() if name.startswith("encoder."))
    return encoder, sum(tensor.numel() for tensor in model.state.values()) - encoder
