"""`[replay]` in a recipe: from three lines to the log and the manifest of every training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from baldwhisper_convert.checkpoint.checkpoint import fingerprint
from baldwhisper_convert.cli.main import main
from baldwhisper_convert.pipeline.manifest import read_manifest
from baldwhisper_convert.pipeline.recipe import read_recipe
from baldwhisper_convert.readers.read import read_checkpoint
from tests.support.tiny import tiny_dims, tiny_hf_folder, tiny_hf_model
from tests.support.tiny_speech import tiny_speech

RECIPE = """
teacher = "{teacher}"

[data.speech]
source = "{speech}"
features = "mel"
windows.single = 1.0

[data.french]
source = "{french}"
features = "mel"
language = "fr"
windows.single = 1.0

[replay]
data = "french"
share = 0.5
teacher = "original"

[[stages]]
stage = "finetune"
data = ["speech"]
training = {{ epochs = 1, batch_size = 4, freeze = [] }}

[[stages]]
stage = "merge"
data = ["speech"]
merge = {{ groups = [1, 2] }}

[[stages]]
stage = "distill"
data = ["speech"]
training = {{ epochs = 1, batch_size = 4 }}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replay")
    teacher = tiny_hf_folder(folder / "teacher", tiny_hf_model(tiny_dims()))
    speech = tiny_speech(folder / "speech", 8)
    french = tiny_speech(folder / "french", 5)
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(teacher=teacher, speech=speech, french=french))
    return path


def run(recipe: Path) -> Result:
    arguments = ["run", str(recipe), "--output", str(recipe.parent / "out")]
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


@pytest.fixture(scope="module")
def output(recipe: Path) -> Path:
    done = run(recipe)
    assert done.exit_code == 0, done.output
    return recipe.parent / "out"


@pytest.mark.parametrize("stage", ["01-finetune", "03-distill"])
def test_trainings_replay_and_say_so(output: Path, recipe: Path, stage: str) -> None:
    lines = (output / stage / "log.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines if "loss" in line]
    assert rows
    assert all(row["replay"] >= 0 for row in rows)
    assert len(rows) == 4  # 8 windows, of which a batch has two
    manifest = read_manifest(output / stage)
    assert manifest is not None
    original = fingerprint(read_checkpoint(recipe.parent / "teacher"))
    assert manifest.data["replay"] == f"0.5 of a batch, weight 1, teacher {original}"
    assert "replay french" in manifest.data


def test_other_stages_do_not_replay(output: Path) -> None:
    manifest = read_manifest(output / "02-merge")
    assert manifest is not None
    assert manifest.data.keys() == {"speech"}


def test_it_is_done_once_and_again_if_the_share_changes(output: Path, recipe: Path) -> None:
    assert run(recipe).output.count("done already") == 3
    text = recipe.read_text()
    recipe.write_text(text.replace("share = 0.5", "share = 0.25"))
    refused = run(recipe)
    recipe.write_text(text)
    assert refused.exit_code == 1
    assert "01-finetune: made with other settings" in refused.output


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('data = "french"', 'data = "german"', r"replay uses the data 'german'; add a section"),
        ("share = 0.5", "share = 1.0", r"replay\.share must be above 0 and below 1"),
        ('teacher = "original"', 'teacher = "me"', r"teacher"),
        ("share = 0.5", "shares = 0.5", r"shares"),
        ("share = 0.5", "weight = 0.0", r"replay\.weight must be above 0"),
    ],
)
def test_mistakes_are_named(
    recipe: Path, tmp_path: Path, before: str, after: str, message: str
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(recipe.read_text().replace(before, after))
    with pytest.raises(ValueError, match=message):
        read_recipe(path)


def test_states_of_an_encoder_cannot_be_replayed(recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    text = recipe.read_text().replace('"mel"\nlanguage', '"states"\nlanguage')
    path.write_text(text)
    refused = CliRunner().invoke(main, ["run", str(path), "--output", str(tmp_path / "out")])
    assert refused.exit_code == 1
    assert "replay needs log-mel" in refused.output
