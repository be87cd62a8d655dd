"""`run`: performs the stages of a recipe in order and skips those that are done.

A stage is done if the manifest of its folder has the same stage, settings, parent, teacher, data
and seed. Data is prepared before the first stage, so that damaged recordings are found before hours
of training; what a fine-tuned model makes is prepared when a stage first needs it. Interrupted runs
resume when you rerun the command.

In several processes, all of them prepare and train; the main one decides what is done already, and
performs the stages that work in one process while the others wait.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.data.prepared import Prepared
from baldwhisper_convert.data.speech import Speech, parse_shares, speech_of
from baldwhisper_convert.data.utterances import BadRows
from baldwhisper_convert.locks import check_single_process, lock_folder
from baldwhisper_convert.pipeline.dry_run import Row, dry_run
from baldwhisper_convert.pipeline.effort import Efforts
from baldwhisper_convert.pipeline.manifest import OTHER_SETTINGS, other_work, read_manifest
from baldwhisper_convert.pipeline.model import Model, next_teacher
from baldwhisper_convert.pipeline.planned_stage import PlannedStage
from baldwhisper_convert.pipeline.prepared_data import prepare_data
from baldwhisper_convert.pipeline.recipe import Recipe
from baldwhisper_convert.pipeline.run_folders import (
    RUNS_FOLDER,
    data_changed,
    prepared_by,
    stage_folders,
    stages_changed,
)
from baldwhisper_convert.pipeline.sources import Sources, read_models
from baldwhisper_convert.pipeline.stages import describe, perform, plan_manifest
from baldwhisper_convert.pipeline.state import RunState
from baldwhisper_convert.pipeline.validate import validate
from baldwhisper_convert.processes import Processes
from baldwhisper_convert.progress import working_on
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_mlx.files import restore_folder

Say = Callable[[str], None]


class Pipeline:
    """Runs one recipe in one output folder.

    Args:
        recipe: the stages and their settings.
        output: folder for prepared data, training runs and stage folders.
        sources: replace the sources of the recipe's data, by name.
        texts: replace the files of the recipe's texts, by name.
        noise: replaces the folder of `augmentation.recordings` wherever the recipe has one.
        skip_bad: skip utterances that cannot be used.
        force: replace stage folders made with other settings.
        say: receives progress messages.

    Raises:
        ValueError: a name in `sources` or `texts` that the recipe does not have, or `noise`
            although it mixes none.
    """

    def __init__(
        self,
        recipe: Recipe,
        output: Path,
        *,
        sources: Mapping[str, str] | None = None,
        texts: Mapping[str, str] | None = None,
        noise: str | None = None,
        skip_bad: bool = False,
        force: bool = False,
        say: Say = print,
    ) -> None:
        self.recipe, self.output = recipe, output
        self.sources = _check_names(sources, recipe.data, "data")
        self.texts = _check_names(texts, recipe.texts, "text")
        if noise and not any(data.augmentation.recordings for data in recipe.data.values()):
            raise ValueError(f"the recipe has no augmentation.recordings to replace by {noise}")
        self.noise = noise
        self.skip_bad = skip_bad
        self.efforts = Efforts([])
        self._opened: dict[Path, Prepared] = {}
        self.force = force
        self._say = say

    def run(self) -> Path:
        """Runs all stages; returns the folder of the last one.

        Raises:
            FileExistsError: data has other settings; or a stage folder has other settings, data or
                models, and `force` is not set.
            BlockingIOError: another process runs a recipe in the output folder.
            RecipeError: lists what is wrong with the recipe; nothing has been done then.
            ValueError: bad data or settings.
        """
        if self.output.exists() and not self.output.is_dir():
            raise FileExistsError(f"{self.output}: is a file; --output must name a folder")
        lock = lock_folder(self.output, "runs a recipe")
        with lock if self.processes.main else contextlib.nullcontext():
            self.processes.wait()
            return self._run()

    @cached_property
    def processes(self) -> Processes:
        """The processes that run the recipe together."""
        return Processes.start()

    def say(self, text: str) -> None:
        """Prints a message, in the main process only."""
        if self.processes.main:
            self._say(text)

    def plan(self) -> list[PlannedStage]:
        """Checks the recipe and plans its stages; prepares and trains nothing.

        Raises:
            RecipeError: lists what is wrong with it.
        """
        stages = validate(*self._models, self._where())
        sets = {data.folder.name: data.speech.bad for stage in stages for data, _ in stage.sets}
        for name, bad in sets.items():
            if bad.rows:
                self.say(f"data.{name}: {len(bad.rows)} utterances are left out: {bad}")
        return stages

    def dry_run(self) -> list[Row]:
        """Checks the recipe and measures what a run would cost; writes nothing to the output.

        Raises:
            RecipeError: lists what is wrong with the recipe.
            ValueError: several processes were started for it.
        """
        check_single_process("run --dry-run")
        stages = self.plan()
        for problem in self._changed():
            self.say(f"`run` will refuse to start: {problem}")
        return dry_run(stages, RunState(self.output, self._where(), *self._models), self.say)

    @cached_property
    def _models(self) -> tuple[Checkpoint, Checkpoint]:
        """The recipe's teacher, and the model that the stages begin with."""
        return read_models(self._where())

    def _where(self) -> Sources:
        return Sources(
            self.recipe,
            source_of=lambda name: self.sources.get(name, self.recipe.data[name].source),
            text_of=lambda name: Path(self.texts.get(name, self.recipe.texts[name])),
            noise=self.noise,
            skip_bad=self.skip_bad,
        )

    def _changed(self) -> list[str]:
        """What the output folder has of other settings, so that a run of the recipe would end."""
        changed = [] if self.force else stages_changed(self.recipe, self.output)
        return [other_work(path, why) for path, why in changed] + [
            f"{path}: {OTHER_SETTINGS}: {'; '.join(why)}. Delete it, or give another --output"
            for path, why in data_changed(self.recipe, self.output, self._models[1])
        ]

    def _run(self) -> Path:
        """`run`, in a folder that is locked."""
        recipe = self.recipe
        original, start = self._models
        if self.processes.main:
            self.efforts = Efforts(self.plan(), recipe.prepared_first)
            if changed := self._changed():
                raise FileExistsError("; ".join(changed))
        self.processes.wait()
        for number, name in recipe.prepared_first:
            self._prepared(number, name, start)
        model, teacher = Model.of(start), start
        folders = stage_folders(recipe, self.output)
        for number, (stage, folder) in enumerate(zip(recipe.stages, folders, strict=True), start=1):
            model = self._stage(number, folder, model, teacher)
            teacher = next_teacher(stage.stage, model.checkpoint, teacher, original)
        return folders[-1]

    def _place(self, number: int, name: str = "") -> str:
        """What the bars call a stage, or the data that it prepares."""
        stages = self.recipe.stages
        stage = stages[number - 1]
        names = name or ", ".join(stage.data)
        data = f", data {names}" if names else ""
        return f"stage {number} of {len(stages)}: {stage.stage}{data}"

    def _stage(self, number: int, folder: Path, model: Model, teacher: Checkpoint) -> Model:
        """Performs a stage, or reads its folder if it is done already."""
        main = self.processes.main
        stage = self.recipe.stages[number - 1]
        if main:
            restore_folder(folder.resolve())  # of a run that was killed while it replaced it
        speech = self._speech(number, stage.data, teacher, stage.texts)
        speech = self.recipe.with_replay(
            stage, speech, original=self._models[0], teacher=teacher,
            read=lambda names, kept: self._speech(number, names, kept),
        )  # fmt: skip
        dev = self._speech(number, stage.dev_names, teacher) if stage.dev_names else None
        manifest = read_manifest(folder) if main and folder.is_dir() else None
        plan = plan_manifest(stage, model, teacher, speech, dev)
        if self.processes.agree(manifest is not None and manifest.same_work(plan)):
            self.say(f"{folder}: done already")
            try:
                checkpoint = read_checkpoint(folder)
            except (ValueError, FileNotFoundError) as error:
                raise ValueError(f"{error}; delete {folder} to make the stage again") from None
            return Model.of(checkpoint, folder)
        if manifest and not self.force:
            raise FileExistsError(other_work(folder, manifest.differences(plan)))
        runs = self.output / RUNS_FOLDER
        with working_on(self._place(number), self.efforts.after(number)):
            result, metrics = perform(
                stage, model, folder, runs,
                teacher=teacher, speech=speech, dev=dev, say=self.say,
            )  # fmt: skip
        self.say(f"{folder}: {describe(metrics)}")
        return result

    def _speech(
        self,
        number: int,
        names: tuple[str, ...],
        teacher: Checkpoint,
        texts: tuple[str, ...] = (),
    ) -> Speech | None:
        """Opens the data of a stage, preparing it if needed; None if the stage names none."""
        if not names:
            return None
        data = [
            (name, self._prepared(number, name, teacher), share)
            for name, share in parse_shares(names)
        ]
        text_of = self._where().text_of
        return speech_of(data, [(name, text_of(name)) for name in texts])

    def _prepared(self, number: int, name: str, teacher: Checkpoint) -> Prepared:
        """One set of data, which is prepared unless its folder is complete, once a run."""
        folder = prepared_by(self.output, self.recipe, name, teacher)
        if folder not in self._opened:
            where, bad = self._where(), BadRows(allowed=self.skip_bad, say=self.say)
            with working_on(self._place(number, name), self.efforts.after(number, name)):
                self._opened[folder] = prepare_data(
                    teacher, where.reading(name, bad, self.say), where.settings_of(name), folder,
                    bad=bad, device="auto", say=self.say,
                )  # fmt: skip
        return self._opened[folder]


def _check_names(
    given: Mapping[str, str] | None, known: Mapping[str, Any], kind: str
) -> dict[str, str]:
    """Checks that the recipe has all the names for which something is given."""
    unknown = sorted((given or {}).keys() - known.keys())
    if unknown:
        raise ValueError(
            f"the recipe has no {kind} called {', '.join(unknown)}; "
            f"it has {', '.join(known) or 'none'}"
        )
    return dict(given or {})
