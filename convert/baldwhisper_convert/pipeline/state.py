"""What an output folder has of a run already: finished stages, trainings and data to resume."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint, fingerprint
from baldwhisper_convert.data.prepare_settings import PrepareSettings, prepared_key
from baldwhisper_convert.data.prepared import (
    SETTINGS_FILE,
    Choice,
    Prepared,
    read_settings,
    read_windows,
)
from baldwhisper_convert.data.speech import Speech, parse_shares
from baldwhisper_convert.data.texts import text_fingerprint
from baldwhisper_convert.pipeline.manifest import read_manifest
from baldwhisper_convert.pipeline.model import Model
from baldwhisper_convert.pipeline.planned_data import PlannedData
from baldwhisper_convert.pipeline.recipe import Recipe, StageRecipe
from baldwhisper_convert.pipeline.sources import Sources
from baldwhisper_convert.pipeline.stages import plan_manifest
from baldwhisper_convert.pipeline.validate import PlannedStage
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_convert.training.checkpoints import interrupted_at


@dataclass(frozen=True)
class Found:
    """What there is of a stage."""

    done: bool = False
    step: int = 0
    """Step that an interrupted training resumes at."""


def prepared_folder(output: Path, recipe: Recipe, name: str, teacher: Checkpoint) -> Path:
    """Folder of a data set, which depends on the teacher if the teacher makes it."""
    data = recipe.data[name]
    by_teacher = data.features == "states" or data.labels == "teacher"
    suffix = f"-{fingerprint(teacher)[:8]}" if by_teacher else ""
    return output / "prepared" / f"{name}{suffix}"


class RunState:
    """Compares the stages of a recipe with an output folder, in order.

    Args:
        output: the folder.
        sources: of the recipe.
        teacher: the recipe's.
    """

    def __init__(self, output: Path, sources: Sources, teacher: Checkpoint) -> None:
        self.output, self.sources = output, sources
        self._dims = teacher.dims
        self._model: Model | None = Model.of(teacher)
        """The real input of the next stage; None if a stage before it is not done."""
        self._teacher = teacher
        self._teachers: dict[int, Checkpoint] = {}
        """The real teachers of the stages for which they are known, by number."""

    def settings_of(self, name: str) -> PrepareSettings:
        """How a data set is prepared, with the folder of noise of this run."""
        return self.sources.settings_of(name)

    def prepared_windows(self, planned: PlannedStage, data: PlannedData) -> int | None:
        """Number of windows that are prepared; None if all are."""
        return self._windows_in(data, self._teachers.get(planned.number))

    def of_stage(self, planned: PlannedStage) -> Found:
        """What there is of a stage; to be called for each in order."""
        if self._model is None:
            return Found()
        self._teachers[planned.number] = self._teacher
        real, teacher = self._model, self._teacher
        folder = self.output / f"{planned.number:02d}-{planned.stage.stage}"
        stage = planned.stage
        opened = {data.folder.name: self._open(data, teacher) for data in planned.data}
        self._model = None
        if any(data is None for data in opened.values()):
            return Found()
        ready = {name: data for name, data in opened.items() if data is not None}
        speech = self._speech(stage, stage.data, ready)
        dev = self._speech(stage, (stage.dev,), ready) if stage.dev else None
        manifest = read_manifest(folder) if folder.is_dir() else None
        plan = plan_manifest(stage, real, teacher, speech, dev)
        if manifest and manifest.same_work(plan):
            self._model = Model.of(read_checkpoint(folder), folder)
            if stage.stage == "finetune" and self._model.checkpoint.dims == self._dims:
                self._teacher = self._model.checkpoint
            return Found(done=True)
        return Found(step=interrupted_at(self.output / "runs" / plan.work_name))

    def _windows_in(self, data: PlannedData, teacher: Checkpoint | None) -> int | None:
        """Windows of a data set that are prepared, None if all are; 0 for an unknown teacher."""
        name = data.folder.name
        settings = self.settings_of(name)
        by_teacher = settings.features == "states" or settings.labels == "teacher"
        if by_teacher and teacher is None:
            return 0
        made_by = teacher or self._teacher
        folder = prepared_folder(self.output, self.sources.recipe, name, made_by)
        if not (folder / SETTINGS_FILE).is_file():
            return 0
        stored = read_settings(folder)
        plain = dataclasses.replace(settings, language=data.language)
        if stored["key"] != prepared_key(made_by, data.speech.utterances, plain):
            return 0
        return None if stored["complete"] else sum(1 for _ in read_windows(folder))

    def _open(self, data: PlannedData, teacher: Checkpoint) -> Prepared | None:
        """A data set, if it is complete."""
        if self._windows_in(data, teacher) is not None:
            return None
        name = data.folder.name
        return Prepared(prepared_folder(self.output, self.sources.recipe, name, teacher))

    def _speech(
        self, stage: StageRecipe, names: tuple[str, ...], opened: dict[str, Prepared]
    ) -> Speech | None:
        if not names:
            return None
        shares = parse_shares(names)
        prints = {name: opened[name].fingerprint for name, _ in shares}
        if names == stage.data:
            prints |= {n: text_fingerprint(self.sources.text_of(n)) for n in stage.texts}
        windows = Choice([(opened[name], share) for name, share in shares])
        return Speech(windows=windows, fingerprints=prints)
