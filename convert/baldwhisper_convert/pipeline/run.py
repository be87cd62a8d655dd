"""`run`: performs the stages of a recipe in order and skips those that are done.

A stage is done if the manifest of its folder has the same stage, settings, parent, teacher, data
and seed. Data is prepared when a stage first needs it, with the teacher of that stage, because the
states of a fine-tuned encoder differ. Interrupted runs resume when you rerun the command.

In several processes, all of them prepare and train; the main one decides what is done already, and
performs the stages that work in one process while the others wait.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint, fingerprint
from baldwhisper_convert.data.clips import Reading
from baldwhisper_convert.data.prepare import prepare
from baldwhisper_convert.data.prepared import Choice, Prepared
from baldwhisper_convert.data.speech import Speech, parse_shares, with_replay
from baldwhisper_convert.data.texts import text_fingerprint
from baldwhisper_convert.data.utterances import BadRows, read_utterances
from baldwhisper_convert.locks import lock_folder
from baldwhisper_convert.pipeline.manifest import read_manifest
from baldwhisper_convert.pipeline.model import Model
from baldwhisper_convert.pipeline.recipe import Recipe, StageRecipe
from baldwhisper_convert.pipeline.stages import describe, perform, plan_manifest
from baldwhisper_convert.processes import Processes
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
        self.force = force
        self._say = say

    def run(self) -> Path:
        """Runs all stages; returns the folder of the last one.

        Raises:
            FileExistsError: a stage folder has other settings and `force` is not set.
            BlockingIOError: another process runs a recipe in the output folder.
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

    def _run(self) -> Path:
        """`run`, in a folder that is locked."""
        recipe = self.recipe
        source = read_checkpoint(
            recipe.teacher, revision=recipe.revision, tokenizer=recipe.tokenizer
        )
        model, self._original = Model.of(source), source
        teacher, folder = source, self.output
        for number, stage in enumerate(recipe.stages, start=1):
            folder = self.output / f"{number:02d}-{stage.stage}"
            model = self._stage(stage, folder, model, teacher)
            if stage.stage == "finetune" and model.checkpoint.dims == source.dims:
                teacher = model.checkpoint
        return folder

    def _stage(self, stage: StageRecipe, folder: Path, model: Model, teacher: Checkpoint) -> Model:
        """Performs a stage, or reads its folder if it is done already."""
        main = self.processes.main
        if main:
            restore_folder(folder.resolve())  # of a run that was killed while it replaced it
        speech = self._replayed(stage, self._speech(stage.data, teacher, stage.texts), teacher)
        dev = self._speech((stage.dev,), teacher) if stage.dev else None
        manifest = read_manifest(folder) if main and folder.is_dir() else None
        planned = plan_manifest(stage, model, teacher, speech, dev)
        if self.processes.agree(manifest is not None and manifest.same_work(planned)):
            self.say(f"{folder}: done already")
            try:
                checkpoint = read_checkpoint(folder)
            except (ValueError, FileNotFoundError) as error:
                raise ValueError(f"{error}; delete {folder} to make the stage again") from None
            return Model.of(checkpoint, folder)
        if manifest and not self.force:
            raise FileExistsError(
                f"{folder}: made with other settings or from another model; --force replaces it"
            )
        runs = self.output / "runs"
        result, metrics = perform(
            stage, model, folder, runs, teacher=teacher, speech=speech, dev=dev
        )
        self.say(f"{folder}: {describe(metrics)}")
        return result

    def _speech(
        self, names: tuple[str, ...], teacher: Checkpoint, texts: tuple[str, ...] = ()
    ) -> Speech | None:
        """Opens the data of a stage, preparing it if needed; None if the stage names none."""
        if not names:
            return None
        prepared = [(self._prepared(name, teacher), share) for name, share in parse_shares(names)]
        fingerprints = {
            name: data.fingerprint
            for (name, _), (data, _) in zip(parse_shares(names), prepared, strict=True)
        }
        files = {name: Path(self.texts.get(name, self.recipe.texts[name])) for name in texts}
        fingerprints |= {name: text_fingerprint(path) for name, path in files.items()}
        return Speech(
            windows=Choice(prepared), fingerprints=fingerprints, texts=tuple(files.values())
        )

    def _replayed(
        self, stage: StageRecipe, speech: Speech | None, teacher: Checkpoint
    ) -> Speech | None:
        """The speech of a training, with that of another language if the recipe replays some."""
        replay = self.recipe.replay
        if replay is None or speech is None or stage.stage not in ("finetune", "distill"):
            return speech
        kept = self._original if replay.teacher == "original" else teacher
        other = self._speech((replay.data,), kept)
        assert other is not None
        return with_replay(speech, other, replay.share, kept, replay.weight)

    def _prepared(self, name: str, teacher: Checkpoint) -> Prepared:
        """Prepares one set of data, unless its folder is complete."""
        data = self.recipe.data[name]
        bad = BadRows(allowed=self.skip_bad, say=self.say)
        read = partial(
            read_utterances,
            self.sources.get(name, data.source),
            split=data.split,
            text_column=data.settings.text_from(data.text_column),
            audio_column=data.audio_column,
            streaming=data.streaming,
        )
        utterances = Reading(read, bad, self.say)
        by_teacher = data.features == "states" or data.labels == "teacher"
        suffix = f"-{fingerprint(teacher)[:8]}" if by_teacher else ""
        folder = self.output / "prepared" / f"{name}{suffix}"
        settings = data.settings
        if self.noise and settings.augmentation.recordings:
            noisy = dataclasses.replace(settings.augmentation, recordings=self.noise)
            settings = dataclasses.replace(settings, augmentation=noisy)
        return prepare(teacher, utterances, settings, folder, bad=bad, device="auto")


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
