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

from baldwhisper_convert.checkpoint.checkpoint import fingerprint
from baldwhisper_convert.data.prepared import Prepared
from baldwhisper_convert.data.speech import replay_fingerprints
from baldwhisper_convert.pipeline.manifest import Manifest, read_manifest
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

    These are stage folders that are no stages of the recipe, prepared data of no model or name of
    it, training runs of other settings, models or data, and the weights of runs whose stage is
    written. An interrupted run that would be resumed is none of them.

    Args:
        recipe: the recipe, with its teacher.
        output: the folder; nothing in it is changed.

    Raises:
        FileNotFoundError, ValueError: the teacher or a stage folder cannot be read.
    """
    names = [f"{n:02d}-{stage.stage}" for n, stage in enumerate(recipe.stages, start=1)]
    stages = [output / name for name in names if read_manifest(output / name)]
    teacher = read_checkpoint(recipe.teacher, revision=recipe.revision, tokenizer=recipe.tokenizer)
    models = [fingerprint(teacher), *(fingerprint(read_checkpoint(path)) for path in stages)]
    found = []
    for path in _folders(output):
        numbered = re.fullmatch(r"\d\d-[a-z]+", path.name) and path.name not in names
        if numbered and read_manifest(path):
            found.append((path, "no stage of the recipe"))
    known = {
        name + suffix for name in recipe.data for suffix in ("", *(f"-{m[:8]}" for m in models))
    }
    for path in _folders(output / PREPARED_FOLDER):
        if path.name not in known:
            found.append((path, "prepared for a model or data that the recipe does not have"))
    found += _of_runs(recipe, output, stages, models)
    return [Leftover(path, reason, _size(path)) for path, reason in found]


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
        for manifest in _plans(recipe, stage, output / PREPARED_FOLDER, models)
    }
    for path in _folders(output / RUNS_FOLDER):
        if path.name in written:
            files = [path / name for name in _WEIGHTS if (path / name).exists()]
            yield from ((file, "its stage is written") for file in files)
        elif path.name.startswith(_TRAININGS) and path.name not in resumable:
            yield path, "a training with other settings, models or data"


def _plans(
    recipe: Recipe, stage: StageRecipe, prepared: Path, models: list[str]
) -> Iterator[Manifest]:
    """All manifests that a training may have, from the models and the data that are there."""
    if stage.stage not in _TRAININGS:
        return
    replay = recipe.replayed(stage)
    names = dict.fromkeys([*stage.data_names, *([replay.data] if replay else [])])
    choices = []
    for name in names:
        folders = [prepared / name, *(prepared / f"{name}-{model[:8]}" for model in models)]
        sets = {_fingerprint(folder) for folder in folders if folder.is_dir()}
        choices.append([(name, each) for each in sets if each])
    kept_models = models if replay else [""]
    for chosen in itertools.product(*choices):
        for parent, teacher, kept in itertools.product(models, models, kept_models):
            data = {name: each for name, each in chosen if name in stage.data_names}
            if replay:
                other = {replay.data: dict(chosen)[replay.data]}
                data |= replay_fingerprints(other, replay.share, kept, replay.weight)
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
