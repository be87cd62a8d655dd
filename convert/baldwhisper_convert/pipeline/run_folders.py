"""The folders of training runs, and what may be deleted in the output folder of a recipe."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint, fingerprint
from baldwhisper_convert.data.prepared import Prepared
from baldwhisper_convert.data.speech import replay_fingerprints
from baldwhisper_convert.pipeline.manifest import OTHER_SETTINGS, Manifest, read_manifest
from baldwhisper_convert.pipeline.prepared_data import settings_changed
from baldwhisper_convert.pipeline.recipe import Recipe, StageRecipe, Training
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_convert.training.checkpoints import BEST_FILE, FINAL_FILE, FINISHED_FILE

RUNS_FOLDER, PREPARED_FOLDER = "runs", "prepared"
_TRAININGS = get_args(Training)
_WEIGHTS = (FINISHED_FILE, FINAL_FILE, BEST_FILE, "checkpoint", "checkpoint.partial",
            "checkpoint.old")  # fmt: skip


@dataclass(frozen=True)
class Leftover:
    """A file or folder that no run of the recipe will read."""

    path: Path
    reason: str
    size: int
    """Bytes."""

    def delete(self) -> None:
        """Deletes it."""
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.unlink()


def run_folder(runs: Path, stage: StageRecipe, manifest: Manifest) -> Path:
    """The folder of a stage's training run; that of an earlier version, if it is there.

    Args:
        runs: the folder of all runs.
        stage: the stage.
        manifest: of the stage, without its results.
    """
    folder = runs / f"{stage.stage}-{_short_hash(manifest)}"
    if stage.training is None or folder.exists():
        return folder
    # Earlier versions had another folder for every value of this setting.
    training = manifest.settings["training"] | {
        "checkpoint_minutes": stage.training.checkpoint_minutes
    }
    before = dataclasses.replace(manifest, settings=manifest.settings | {"training": training})
    old = runs / f"{stage.stage}-{_short_hash(before)}"
    return old if old.exists() else folder


def leftovers(recipe: Recipe, output: Path) -> list[Leftover]:
    """What a recipe's output folder holds that no run of the recipe reads.

    These are stage folders that are no stages of the recipe or have other settings, prepared data
    of no model or name of it or of other settings, training runs of other settings, models or data,
    and the weights of runs whose stage is written. An interrupted run that would be resumed is none
    of them.

    Args:
        recipe: the recipe, with its teacher.
        output: the folder; nothing in it is changed.

    Raises:
        FileNotFoundError, ValueError: the teacher or a stage folder cannot be read.
    """
    names = stage_folders(recipe, output)
    changed = dict(stages_changed(recipe, output))
    stages = [path for path in names if path not in changed and read_manifest(path)]
    found = []
    for path in _folders(output):
        numbered = re.fullmatch(r"\d\d-[a-z]+", path.name) and path not in names
        if numbered and read_manifest(path):
            found.append((path, "no stage of the recipe"))
    found += [(path, f"{OTHER_SETTINGS}: {'; '.join(why)}") for path, why in changed.items()]
    models = _models(recipe, stages)
    known = {
        prepared_folder(output, recipe, name, model): name
        for name in recipe.data
        for model in models
    }
    for path in _folders(output / PREPARED_FOLDER):
        if path not in known:
            found.append((path, "prepared for a model or data that the recipe does not have"))
        elif why := settings_changed(path, recipe.data[known[path]].settings):
            found.append((path, f"{OTHER_SETTINGS}: {'; '.join(why)}"))
    found += _of_runs(recipe, output, stages, models)
    return [Leftover(path, reason, _size(path)) for path, reason in found]


def stage_folders(recipe: Recipe, output: Path) -> list[Path]:
    """The folders of the stages, in order."""
    return [output / f"{n:02d}-{stage.stage}" for n, stage in enumerate(recipe.stages, start=1)]


def stages_changed(recipe: Recipe, output: Path) -> Iterator[tuple[Path, list[str]]]:
    """Stage folders that were made with other settings than the recipe's, and what differs.

    Raises:
        ValueError: a manifest is damaged.
    """
    for path, stage in zip(stage_folders(recipe, output), recipe.stages, strict=True):
        if manifest := read_manifest(path):
            wanted = dataclasses.replace(manifest, stage=stage.stage, settings=stage.settings)
            if different := manifest.differences(wanted):
                yield path, different


def data_changed(
    recipe: Recipe, output: Path, model: Checkpoint
) -> Iterator[tuple[Path, list[str]]]:
    """Data that was prepared first and with other settings than the recipe's, and what differs.

    Args:
        recipe, output: as for `leftovers`.
        model: that the stages begin with.

    Raises:
        ValueError: a set is damaged.
    """
    for _, name in recipe.prepared_first:
        path = prepared_by(output, recipe, name, model)
        if different := settings_changed(path, recipe.data[name].settings):
            yield path, different


def _models(recipe: Recipe, stages: list[Path]) -> list[str]:
    """Fingerprints of all models that prepare data or are trained: the recipe's, and stages."""
    given = [(recipe.teacher, recipe.revision), *([(recipe.start, None)] if recipe.start else [])]
    read = [
        read_checkpoint(name, revision=revision, tokenizer=recipe.tokenizer)
        for name, revision in given
    ]
    return [fingerprint(model) for model in [*read, *(read_checkpoint(path) for path in stages)]]


def prepared_folder(output: Path, recipe: Recipe, name: str, model: str) -> Path:
    """Folder of a data set, which depends on the model if the model makes it.

    Args:
        output: folder of the run.
        recipe: has the data.
        name: of the data.
        model: fingerprint of the model.
    """
    suffix = f"-{model[:8]}" if recipe.data[name].by_teacher else ""
    return output / PREPARED_FOLDER / f"{name}{suffix}"


def prepared_by(output: Path, recipe: Recipe, name: str, teacher: Checkpoint) -> Path:
    """`prepared_folder` for a model, which is hashed only if the data depends on it."""
    model = fingerprint(teacher) if recipe.data[name].by_teacher else ""
    return prepared_folder(output, recipe, name, model)


def _of_runs(
    recipe: Recipe, output: Path, stages: list[Path], models: list[str]
) -> Iterator[tuple[Path, str]]:
    """Leftovers in the folder of the training runs."""
    written = set()
    for path in stages:
        manifest = read_manifest(path)
        assert manifest is not None
        plan = dataclasses.replace(
            manifest, metrics={}, versions={}, teacher_layers=None, teacher_encoder_layers=None
        )
        written.add(f"{manifest.stage}-{_short_hash(plan)}")
    resumable = {
        run_folder(output / RUNS_FOLDER, stage, manifest).name
        for stage in recipe.stages
        for manifest in _plans(recipe, stage, output, models)
    }
    for path in _folders(output / RUNS_FOLDER):
        if path.name in written:
            files = [path / name for name in _WEIGHTS if (path / name).exists()]
            yield from ((file, "its stage is written") for file in files)
        elif path.name.startswith(_TRAININGS) and path.name not in resumable:
            yield path, "a training with other settings, models or data"


def _plans(
    recipe: Recipe, stage: StageRecipe, output: Path, models: list[str]
) -> Iterator[Manifest]:
    """All manifests that a training may have, from the models and the data that are there."""
    if stage.stage not in _TRAININGS:
        return
    replay = recipe.replayed(stage)
    choices = []
    for name in dict.fromkeys(recipe.read_by(stage)):
        folders = {prepared_folder(output, recipe, name, model) for model in models}
        sets = {_fingerprint(folder) for folder in folders if folder.is_dir()}
        choices.append([(name, each) for each in sets if each])
    kept_models = models if replay else [""]
    for chosen in itertools.product(*choices):
        for parent, teacher, kept in itertools.product(models, models, kept_models):
            data = {name: each for name, each in chosen if name in stage.data_names}
            if replay:
                other = {name: each for name, each in chosen if name in replay.data_names}
                data |= replay_fingerprints(other, replay.share, kept, replay.weight, replay.sets)
            yield Manifest(
                stage=stage.stage,
                parent=parent,
                teacher=teacher if stage.stage == "distill" else None,
                settings=stage.settings,
                data=data,
                seed=stage.training.seed if stage.training else 0,
            )


def _fingerprint(folder: Path) -> str:
    """Of prepared data; empty if it is unfinished, so that no training can have used it."""
    try:
        return Prepared(folder).fingerprint
    except (ValueError, FileNotFoundError):
        return ""


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _short_hash(manifest: Manifest) -> str:
    """8 hexadecimal digits that identify the work of a stage."""
    plain = dataclasses.asdict(manifest)
    del plain["teacher_encoder_layers"]  # a result, as the metrics; earlier versions had none
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]
