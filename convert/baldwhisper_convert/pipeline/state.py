"""What an output folder has of a run already: finished stages, trainings and data to resume."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.data.pieces import windows_so_far
from baldwhisper_convert.data.prepare_settings import prepared_key
from baldwhisper_convert.data.prepared import Prepared
from baldwhisper_convert.data.speech import Speech, parse_shares, speech_of
from baldwhisper_convert.pipeline.manifest import read_manifest
from baldwhisper_convert.pipeline.model import Model, next_teacher
from baldwhisper_convert.pipeline.planned_data import PlannedData
from baldwhisper_convert.pipeline.planned_stage import PlannedStage
from baldwhisper_convert.pipeline.run_folders import (
    RUNS_FOLDER,
    prepared_by,
    run_folder,
    stage_folders,
)
from baldwhisper_convert.pipeline.sources import Sources
from baldwhisper_convert.pipeline.stages import plan_manifest
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_convert.training.checkpoints import interrupted_at


@dataclass(frozen=True)
class Found:
    """What there is of a stage."""

    done: bool = False
    step: int = 0
    """Step that an interrupted training resumes at."""


class RunState:
    """Compares the stages of a recipe with an output folder, in order.

    Args:
        output: the folder.
        sources: of the recipe.
        teacher, start: the recipe's; the plan must have been made with the same objects.
    """

    def __init__(
        self, output: Path, sources: Sources, teacher: Checkpoint, start: Checkpoint
    ) -> None:
        self.output, self.sources = output, sources
        self._original, self._start = teacher, start
        self._model: Model | None = Model.of(start)
        """The real input of the next stage; None if a stage before it is not done."""
        self._teacher = start
        self._teachers: dict[int, Checkpoint] = {}
        """The real teachers of the stages for which they are known, by number."""

    def prepared_windows(
        self, planned: PlannedStage, data: PlannedData, teacher: Checkpoint
    ) -> int | None:
        """Number of windows that are prepared; None if all are.

        Args:
            planned: the stage.
            data: one of its `sets`.
            teacher: the planned one of that set.
        """
        return self._windows_in(data, self._real(planned, teacher))

    def of_stage(self, planned: PlannedStage) -> Found:
        """What there is of a stage; to be called for each in order."""
        if self._model is None:
            return Found()
        self._teachers[planned.number] = self._teacher
        real, teacher = self._model, self._teacher
        folder = stage_folders(self.sources.recipe, self.output)[planned.number - 1]
        stage = planned.stage
        self._model = None
        speech = dev = None
        try:
            speech = self._speech(planned)
            if stage.dev_names:
                dev = self._opened(planned, stage.dev_names)
        except _NotPreparedError:
            return Found()
        manifest = read_manifest(folder) if folder.is_dir() else None
        plan = plan_manifest(stage, real, teacher, speech, dev)
        if manifest and manifest.same_work(plan):
            self._model = Model.of(read_checkpoint(folder), folder)
            result = self._model.checkpoint
            self._teacher = next_teacher(stage.stage, result, self._teacher, self._original)
            return Found(done=True)
        return Found(step=interrupted_at(run_folder(self.output / RUNS_FOLDER, stage, plan)))

    def _real(self, planned: PlannedStage, teacher: Checkpoint) -> Checkpoint | None:
        """The real one of a planned teacher; None if it is not made yet."""
        if teacher is self._original or teacher is self._start:
            return teacher
        return self._teachers.get(planned.number)

    def _windows_in(self, data: PlannedData, teacher: Checkpoint | None) -> int | None:
        """Windows of a data set that are prepared, None if all are; 0 for an unknown teacher."""
        name = data.folder.name
        settings = self.sources.settings_of(name)
        if teacher is None and settings.by_teacher:
            return 0
        made_by = teacher or self._teacher
        plain = dataclasses.replace(settings, language=data.language)
        return windows_so_far(
            prepared_by(self.output, self.sources.recipe, name, made_by),
            prepared_key(made_by, data.speech.clips.kept, plain),
        )

    def _speech(self, planned: PlannedStage) -> Speech | None:
        """The data of a stage, with what it replays.

        Raises:
            _NotPreparedError: a part of it is not complete.
        """
        stage = planned.stage
        return self.sources.recipe.with_replay(
            stage,
            self._opened(planned, stage.data, stage.texts) if stage.data else None,
            original=self._original,
            teacher=self._teacher,
            read=lambda names, _: self._opened(planned, names, replayed=True),
        )

    def _opened(
        self,
        planned: PlannedStage,
        names: tuple[str, ...],
        texts: tuple[str, ...] = (),
        *,
        replayed: bool = False,
    ) -> Speech:
        opened = list[tuple[str, Prepared, float]]()
        sets = {
            data.folder.name: (data, teacher)
            for data, teacher in (planned.replayed if replayed else planned.own)
        }
        for name, share in parse_shares(names):
            data, teacher = sets[name]
            real = self._real(planned, teacher)
            if real is None or self._windows_in(data, real) is not None:
                raise _NotPreparedError
            folder = prepared_by(self.output, self.sources.recipe, name, real)
            opened.append((name, Prepared(folder), share))
        return speech_of(opened, [(name, self.sources.text_of(name)) for name in texts])


class _NotPreparedError(Exception):
    """Data of a stage is not complete."""
