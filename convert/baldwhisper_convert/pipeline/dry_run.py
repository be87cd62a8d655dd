"""What a run would do and what it would cost: windows, steps, time, memory and disk.

Nothing is written to the output folder. What is done already is found as `run` finds it.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.compression.factorize import count_parameters
from baldwhisper_convert.compression.merge import MergeSettings, candidates
from baldwhisper_convert.data.batches import per_epoch
from baldwhisper_convert.data.replay import without_replay
from baldwhisper_convert.data.speech import ReplayTeacher
from baldwhisper_convert.pipeline import timing
from baldwhisper_convert.pipeline.manifest import Manifest
from baldwhisper_convert.pipeline.model import save_stage
from baldwhisper_convert.pipeline.outline import dense_start
from baldwhisper_convert.pipeline.planned_data import PlannedData
from baldwhisper_convert.pipeline.planned_stage import PlannedStage, prepared_once
from baldwhisper_convert.pipeline.stages import (
    CALIBRATION_WINDOWS,
    HELD_OUT_WINDOWS,
    MERGE_WINDOWS,
)
from baldwhisper_convert.pipeline.state import RunState
from baldwhisper_convert.pipeline.training_stages import distillation, with_kept
from baldwhisper_convert.progress import duration, stopwatch
from baldwhisper_convert.training.objectives import LossSettings, Transcription
from baldwhisper_convert.training.settings import matches

DONE, TO_DO = "done already", "to do"
_LINE_BYTES = 400
"""About the length of a line of windows.jsonl."""
_FLOAT32 = 4


@dataclass(frozen=True, kw_only=True)
class Row:
    """One piece of work of a run."""

    stage: int
    work: str
    """Such as `prepare train` or `distill`."""
    status: str
    """`to do`, `done already`, or where it resumes."""
    windows: int
    steps: int = 0
    seconds: float = 0.0
    """Still to be spent; 0 if it is done."""
    memory: int = 0
    """Largest resident memory of the process that was measured, in bytes."""
    disk: int = 0
    """Bytes that stay on disk."""
    extra_disk: int = 0
    """Bytes that are needed on top while it works."""
    at_least: bool = False
    """Whether it reads a stream, of which only the beginning is known."""


def dry_run(
    stages: list[PlannedStage], state: RunState, say: Callable[[str], None] = print
) -> list[Row]:
    """Predicts what a run would do, and measures what it would cost.

    Args:
        stages: of the recipe, checked.
        state: what its output folder has already.
        say: receives progress messages.
    """
    rows, prepared = [], set[tuple[str, int]]()
    for planned in stages:
        say(f"measuring stage {planned.number} of {len(stages)}: {planned.stage.stage}")
        found = state.of_stage(planned)
        for data, teacher in planned.sets:
            if (known := prepared_once(data, teacher)) not in prepared:
                prepared.add(known)
                rows.append(_prepare_row(planned, data, teacher, state))
        work = _work(planned)
        steps, left = work.steps, 1.0
        status = TO_DO
        if found.done:
            status, left = DONE, 0.0
        elif found.step:
            status = f"resumes at step {found.step} of {steps}"
            left = 1 - found.step / steps
        seconds, memory, disk = (0.0, 0, 0) if found.done else _costs(planned, work, left)
        rows.append(
            Row(
                stage=planned.number, work=planned.stage.stage, status=status,
                windows=work.windows, steps=steps, seconds=seconds, memory=memory,
                disk=disk, extra_disk=0 if found.done else work.extra_disk,
                at_least=not all(data.speech.whole for data, _ in planned.sets),
            )
        )  # fmt: skip
    return rows


@dataclass(frozen=True)
class _Work:
    windows: int
    steps: int = 0
    evaluations: int = 0
    extra_disk: int = 0


def _prepare_row(
    planned: PlannedStage, data: PlannedData, teacher: Checkpoint, state: RunState
) -> Row:
    name = data.folder.name
    settings = state.sources.settings_of(name)
    done = state.prepared_windows(planned, data, teacher)
    total = len(data.windows)
    row = Row(
        stage=planned.number, work=f"prepare {name}", status=DONE, windows=total,
        at_least=not data.speech.whole,
    )  # fmt: skip
    if done is None:
        return row
    cost = timing.time_prepare(teacher, data, settings, total - done)
    return dataclasses.replace(
        row,
        status=f"resumes at window {done} of {total}" if done else TO_DO,
        seconds=cost.seconds,
        memory=cost.memory,
        disk=data.n_bytes + _LINE_BYTES * total,
    )


def _work(planned: PlannedStage) -> _Work:
    """Windows, steps and evaluations of a stage."""
    stage, speech = planned.stage, planned.speech
    total = len(without_replay(speech.windows).windows) if speech else 0
    if stage.stage == "merge":
        return _Work(min(stage.speech or MERGE_WINDOWS, total))
    if stage.stage == "factorize":
        return _Work(min(stage.speech or CALIBRATION_WINDOWS, total))
    training = stage.trained
    assert speech is not None
    steps = training.steps(per_epoch(speech.windows, training.batch_size))
    every = training.evaluate_every
    evaluations = math.ceil(steps / every) if every else 1
    parameters = count_parameters(planned.model.checkpoint)
    trained = sum(
        tensor.numel()
        for name, tensor in planned.model.checkpoint.state.items()
        if not matches(name, training.freeze)
    )
    averaged = parameters if training.ema else 0
    # Two checkpoints of weights, Adam's two moments and the average, and the best weights.
    extra = 2 * (parameters + 2 * trained + averaged) + (parameters if planned.dev else 0)
    return _Work(total, steps, evaluations if planned.dev else 0, _FLOAT32 * extra)


def _costs(planned: PlannedStage, work: _Work, left: float) -> tuple[float, int, int]:
    """Seconds, memory and bytes on disk of a stage of which a share is left."""
    costs = [cost for cost in _measured(planned, work) if cost]
    saving, size = _saving(planned)
    seconds = left * sum(cost.seconds for cost in costs) + saving
    return seconds, max((cost.memory for cost in costs), default=0), size


def _measured(planned: PlannedStage, work: _Work) -> Iterator[timing.Cost]:
    stage, model, speech = planned.stage, planned.model.checkpoint, planned.speech
    if speech is None:
        return
    windows = speech.windows
    if stage.stage == "merge":
        settings = stage.merge or MergeSettings()
        dims = model.dims
        n_layers = dims.n_audio_layer if settings.part == "encoder" else dims.n_text_layer
        plans = len(candidates(settings, n_layers))
        yield timing.time_merge(model, windows, settings.part, work.windows, plans)
    elif stage.stage == "factorize":
        dense = dense_start(planned.model, planned.teacher)
        yield timing.time_factorize(dense, windows, work.windows, HELD_OUT_WINDOWS)
    else:
        objective = _objective(planned, speech.replay)
        yield timing.time_training(model, objective, windows, stage.trained, work.steps)
        if planned.dev and work.evaluations:
            cost = timing.time_evaluation(model, objective, planned.dev.windows)
            yield dataclasses.replace(cost, seconds=cost.seconds * work.evaluations)


def _objective(planned: PlannedStage, replay: ReplayTeacher | None) -> nn.Module:
    objective: nn.Module = Transcription()
    if planned.stage.stage == "distill":
        loss = planned.stage.loss or LossSettings()
        objective = distillation(planned.model, planned.teacher, loss)
    return with_kept(objective, planned.model, replay)


def _saving(planned: PlannedStage) -> tuple[float, int]:
    """Seconds in which the result is saved, and its size."""
    with tempfile.TemporaryDirectory() as folder:
        began = stopwatch()
        made = save_stage(planned.result, Path(folder, "stage"), Manifest(stage="merge", parent=""))
        return stopwatch() - began, sum(file.stat().st_size for file in made.iterdir())


def table(rows: list[Row]) -> str:
    """The rows and their totals as lines of text."""
    header = ("stage", "work", "windows", "steps", "time", "memory", "disk", "status")
    lines = [header]
    for row in rows:
        todo = row.status != DONE
        lines.append((
            str(row.stage), row.work, f"{row.windows}{'+' * row.at_least}", str(row.steps or ""),
            duration(row.seconds) if todo else "", size(row.memory) if row.memory else "",
            size(row.disk) if todo else "", row.status,
        ))  # fmt: skip
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    whole = totals(rows)
    least = "at least " if whole["at_least"] else ""
    text.append(
        f"In all {least}{duration(whole['seconds'])}, {size(whole['disk'])} on disk and at most "
        f"{size(whole['extra_disk'])} more while training, {size(whole['memory'])} of memory"
    )
    if least:
        text.append("+: the beginning of a stream, whose length is not known")
    return "\n".join(line.rstrip() for line in text)


def totals(rows: list[Row]) -> dict[str, Any]:
    """Time and disk of all rows together; the largest memory."""
    return {
        "seconds": sum(row.seconds for row in rows),
        "disk": sum(row.disk for row in rows),
        "extra_disk": max((row.extra_disk for row in rows), default=0),
        "memory": max((row.memory for row in rows), default=0),
        "at_least": any(row.at_least for row in rows),
    }


def report(rows: list[Row]) -> dict[str, Any]:
    """The rows as JSON values; sizes in bytes."""
    return {"rows": [asdict(row) for row in rows], "total": totals(rows)}


def lacking_space(rows: list[Row], folder: Path) -> str:
    """A warning if the disk of a folder has too little space; else empty."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    whole, free = totals(rows), shutil.disk_usage(there).free
    needed = whole["disk"] + whole["extra_disk"]
    if needed <= free:
        return ""
    return f"{folder}: the run needs {size(needed)}, but only {size(free)} are free"


def size(n_bytes: int) -> str:
    """A number of bytes in MB or GB.

    Example:
        >>> size(1_234_000), size(2_500_000_000)
        ('1.2 MB', '2.5 GB')
    """
    if n_bytes >= 1e9:
        return f"{n_bytes / 1e9:.1f} GB"
    return f"{n_bytes / 1e6:.1f} MB"
