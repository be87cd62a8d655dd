"""Folders of trainings: resumed with another checkpoint_minutes, and removed when stale."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from baldwhisper_convert.cli.main import main
from baldwhisper_convert.data.prepare_settings import PrepareSettings
from baldwhisper_convert.data.prepared import SETTINGS_FILE
from baldwhisper_convert.pipeline import stages
from baldwhisper_convert.pipeline.manifest import Manifest
from baldwhisper_convert.pipeline.prepared_data import settings_changed
from baldwhisper_convert.pipeline.recipe import StageRecipe
from baldwhisper_convert.pipeline.run_folders import run_folder
from baldwhisper_convert.training.settings import TrainingSettings
from tests.support.tiny import tiny_dims, tiny_hf_folder, tiny_hf_model
from tests.support.tiny_prepared import tiny_prepared
from tests.support.tiny_speech import tiny_speech

RECIPE = """
teacher = "{teacher}"

[data.train]
source = "{speech}"
features = "{features}"
windows = {{ single = 1.0, silence = 0.0 }}

[[stages]]
stage = "finetune"
data = ["train"]

[stages.training]
epochs = {epochs}
batch_size = 2
checkpoint_minutes = {minutes}
freeze = [{freeze}]
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("inputs")
    width = {"n_audio_state": 16, "n_text_state": 16}
    dims = tiny_dims(**width, n_audio_layer=1, n_text_layer=2)
    return {
        "teacher": tiny_hf_folder(folder / "model", tiny_hf_model(dims)),
        "speech": tiny_speech(folder / "speech", 6, seconds=(0.3, 0.6)),
    }


def run(folder: Path, inputs: dict[str, Any], *more: str, **changes: Any) -> Result:
    values = {"features": "states", "epochs": 1, "minutes": 5.0, "freeze": '"encoder.*"'}
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(**(inputs | values | changes)))
    arguments = ["run", str(recipe), "--output", str(folder / "out"), *more]
    return CliRunner().invoke(main, arguments)


def killed(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Makes trainings end just before their stage is written."""

    def never(*_: Any, **__: Any) -> None:
        raise OSError("killed")

    monkeypatch.setattr(stages, "save_stage", never)
    return monkeypatch


def runs(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "out" / "runs").iterdir())


def test_a_run_resumes_with_another_checkpoint_minutes(
    inputs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        killed(patch)
        assert run(tmp_path, inputs).exit_code == 1
    (name,) = runs(tmp_path)
    before = (tmp_path / "out/runs" / name / "finished.json").read_text()
    result = run(tmp_path, inputs, minutes=0.5)
    assert result.exit_code == 0, result.output
    assert runs(tmp_path) == [name]
    manifest = json.loads((tmp_path / "out/01-finetune/manifest.json").read_text())
    assert manifest["metrics"]["seconds"] == json.loads(before)["seconds"]  # not trained again
    again = run(tmp_path, inputs, minutes=7.0)
    assert "done already" in again.output
    # The weights are in the stage folder now.
    left = {path.name for path in (tmp_path / "out/runs" / name).iterdir()}
    assert "log.jsonl" in left
    assert not left & {"final.safetensors", "finished.json", "best.safetensors", "checkpoint"}


def test_the_folder_of_an_earlier_version_is_found(tmp_path: Path) -> None:
    """It depends on checkpoint_minutes."""

    def folder(minutes: float, recorded: float) -> Path:
        stage = StageRecipe(
            stage="finetune",
            data=("train",),
            training=TrainingSettings(checkpoint_minutes=minutes),
        )
        settings = stage.settings
        assert settings["training"]["checkpoint_minutes"] == 5.0
        settings["training"]["checkpoint_minutes"] = recorded
        return run_folder(
            tmp_path, stage, Manifest(stage="finetune", parent="p", settings=settings)
        )

    earlier = folder(2.0, recorded=2.0)
    assert earlier != folder(2.0, recorded=5.0) == folder(5.0, recorded=5.0)
    earlier.mkdir()
    assert folder(2.0, recorded=5.0) == earlier
    assert folder(3.0, recorded=5.0) != earlier


def test_work_of_an_earlier_version_with_other_checkpoint_minutes_is_the_same() -> None:
    manifests = [
        Manifest(stage="distill", parent="p", settings={"training": {"epochs": 2} | minutes})
        for minutes in ({}, {"checkpoint_minutes": 2.0}, {"checkpoint_minutes": 5.0})
    ]
    for manifest in manifests:
        assert all(manifest.same_work(other) for other in manifests)
    other = Manifest(stage="distill", parent="p", settings={"training": {"epochs": 3}})
    assert not other.same_work(manifests[1])


def test_cleaning(inputs: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists and deletes what is stale, and never a run that would be resumed."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        killed(patch)
        for epochs in (1, 2):
            assert run(tmp_path, inputs, epochs=epochs).exit_code == 1
        mel = {"features": "mel", "freeze": ""}
        assert run(tmp_path, inputs, epochs=1, **mel).exit_code == 1
    assert len(runs(tmp_path)) == 3
    stale = out / "07-merge"
    other = out / "prepared" / "train-00000000"
    for folder in (stale, other):
        folder.mkdir()
    manifest = {"manifest_version": 1} | {
        "stage": "merge", "parent": "p", "teacher": None, "settings": {}, "data": {}, "seed": 0,
        "teacher_layers": None, "teacher_encoder_layers": None, "metrics": {}, "versions": {},
    }  # fmt: skip
    (stale / "manifest.json").write_text(json.dumps(manifest))
    (out / "notes.txt").write_text("mine")
    before = sorted(out.rglob("*"))
    listed = run(tmp_path, inputs, "--clean", "list", epochs=2)
    assert listed.exit_code == 0, listed.output
    assert sorted(out.rglob("*")) == before
    assert "07-merge: no stage of the recipe" in listed.output
    assert "train-00000000: prepared for a model" in listed.output
    assert "train: prepared for a model" in listed.output  # the log-mel
    assert listed.output.count("a training with other settings") == 2
    assert "5 files and folders" in listed.output
    assert "can be deleted with --clean delete" in listed.output
    deleted = run(tmp_path, inputs, "--clean", "delete", epochs=2)
    assert deleted.exit_code == 0, deleted.output
    assert len(runs(tmp_path)) == 1
    assert not stale.exists()
    assert not other.exists()
    assert (out / "notes.txt").exists()
    # The run that was left is resumed.
    seconds = json.loads(next((out / "runs").glob("*/finished.json")).read_text())["seconds"]
    assert run(tmp_path, inputs, epochs=2).exit_code == 0
    stored = json.loads((out / "01-finetune/manifest.json").read_text())
    assert stored["metrics"]["seconds"] == seconds
    nothing = run(tmp_path, inputs, "--clean", "list", epochs=2)
    assert "nothing to delete" in nothing.output


def test_stages_and_data_of_other_settings_are_listed(
    inputs: dict[str, Any], tmp_path: Path
) -> None:
    assert run(tmp_path, inputs).exit_code == 0
    recipe = tmp_path / "recipe.toml"
    changed = recipe.read_text().replace("epochs = 1", "epochs = 2")
    recipe.write_text(changed.replace("single = 1.0", "single = 0.5"))
    arguments = ["run", str(recipe), "--output", str(tmp_path / "out")]
    planned = CliRunner().invoke(main, [*arguments, "--dry-run"])
    refused = CliRunner().invoke(main, arguments)
    listed = CliRunner().invoke(main, [*arguments, "--clean", "list"])
    assert (planned.exit_code, refused.exit_code, listed.exit_code) == (0, 1, 0)
    for output in (planned.output, refused.output, listed.output):
        assert "01-finetune: made with other settings: training.epochs: 1" in output
        assert ": made with other settings: windows.single: 1.0 -> 0.5" in output
    forced = CliRunner().invoke(main, [*arguments, "--force"])
    assert forced.exit_code == 1
    assert "windows.single" in forced.output
    assert "epochs" not in forced.output
    assert CliRunner().invoke(main, [*arguments, "--clean", "delete"]).exit_code == 0
    assert CliRunner().invoke(main, arguments).exit_code == 0


def test_data_of_an_earlier_version_has_the_settings_it_did_not_know(tmp_path: Path) -> None:
    tiny_prepared(tmp_path, 2)
    path = tmp_path / SETTINGS_FILE
    table = json.loads(path.read_text())
    settings = dataclasses.asdict(PrepareSettings(passes=2))
    del settings["language_tokens"], settings["windows"]["margin"]
    table["report"]["settings"] = settings
    path.write_text(json.dumps(table))
    assert settings_changed(tmp_path, PrepareSettings(passes=2)) == []
    assert settings_changed(tmp_path, PrepareSettings()) == ["passes: 2 -> 1"]
