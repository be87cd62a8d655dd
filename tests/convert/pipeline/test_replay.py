"""`[replay]` in a recipe: from three lines to the log and the manifest of every training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from baldwhisper_convert.checkpoint.checkpoint import fingerprint
from baldwhisper_convert.cli.main import main
from baldwhisper_convert.pipeline import stages, timing
from baldwhisper_convert.pipeline.dry_run import DONE, TO_DO
from baldwhisper_convert.pipeline.manifest import read_manifest
from baldwhisper_convert.pipeline.recipe import read_recipe
from baldwhisper_convert.pipeline.run import Pipeline
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


def run(recipe: Path, *more: str, output: Path | None = None) -> Result:
    arguments = ["run", str(recipe), "--output", str(output or recipe.parent / "out"), *more]
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


def test_several_sets_are_replayed(recipe: Path, tmp_path: Path) -> None:
    """The log has the term, a rerun finds all done, and another share of a set is another work."""
    path = tmp_path / "recipe.toml"
    german = f'[data.german]\nsource = "{recipe.parent / "speech"}"\nlanguage = "de"\n'
    german += 'features = "mel"\nwindows.single = 1.0\n\n[replay]'
    text = recipe.read_text().replace("[replay]", german)
    path.write_text(text.replace('data = "french"', 'data = ["french", "german:0.5"]'))
    assert run(path, output=tmp_path / "out").exit_code == 0
    manifest = read_manifest(tmp_path / "out" / "01-finetune")
    assert manifest is not None
    assert manifest.data.keys() == {"speech", "replay", "replay french", "replay german"}
    assert manifest.data["replay"].endswith(", german:0.5")
    assert run(path, output=tmp_path / "out").output.count("done already") == 3
    assert run(path, "--clean", "list", output=tmp_path / "out").output == "nothing to delete\n"
    path.write_text(path.read_text().replace("german:0.5", "german"))
    refused = run(path, output=tmp_path / "out")
    assert "made with other settings" in refused.output


def test_other_stages_do_not_replay(output: Path) -> None:
    manifest = read_manifest(output / "02-merge")
    assert manifest is not None
    assert manifest.data.keys() == {"speech"}


def test_a_student_may_learn_both_languages_from_the_tuned_model(
    recipe: Path, tmp_path: Path
) -> None:
    """Its stage replays nothing, so encoder states will do."""
    path = tmp_path / "recipe.toml"
    finetune, merge, distill = recipe.read_text().split("[[stages]]")[1:]
    head = recipe.read_text().split("[[stages]]")[0]
    states = head[head.index("[data.speech]") : head.index("[replay]")].replace("mel", "states")
    states = states.replace("speech]", "states]").replace("french]", "french_states]")
    names = '["states", "french_states"]'
    both = distill.replace('["speech"]', f"{names}\ndev = {names}")
    parts = [head + 'stages = ["finetune"]\n\n' + states, finetune, merge, both]
    path.write_text("[[stages]]".join(parts))
    output = Pipeline(read_recipe(path), tmp_path / "out", say=lambda _: None).run().parent
    manifests = [read_manifest(output / name) for name in ("01-finetune", "03-distill")]
    assert [set(manifest.data) for manifest in manifests if manifest] == [
        {"speech", "replay", "replay french"},
        {"states", "french_states"},
    ]
    *_, last = (output / "03-distill" / "log.jsonl").read_text().splitlines()
    assert {"wer", "wer_en", "wer_fr"} <= json.loads(last)["dev"].keys()


def test_a_model_that_forgot_a_language_is_tuned_again(
    recipe: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stages begin with it, and replay keeps what the model before it predicts."""
    monkeypatch.setattr(timing, "BUDGET", 0.1)
    tuned, again = output / "01-finetune", tmp_path / "out"
    done = run(recipe, "--start", str(tuned), output=again)
    assert done.exit_code == 0, done.output
    original, start = (
        fingerprint(read_checkpoint(path)) for path in (recipe.parent / "teacher", tuned)
    )
    manifests = [read_manifest(again / name) for name in ("01-finetune", "03-distill")]
    for manifest in manifests:
        assert manifest is not None
        assert manifest.data["replay"].endswith(f"teacher {original}")
    assert manifests[0] is not None
    assert manifests[0].parent == start
    planned = replace(read_recipe(recipe), start=str(tuned))
    rows = Pipeline(planned, again, say=lambda _: None).dry_run()
    assert {row.status for row in rows} == {DONE}


@pytest.mark.parametrize(
    ("start", "message"), [("02-merge", "has other layers"), ("none", "no such")]
)
def test_stages_begin_with_a_model_of_the_teachers_form(
    recipe: Path, output: Path, tmp_path: Path, start: str, message: str
) -> None:
    refused = run(recipe, "--start", str(output / start), output=tmp_path / "out")
    assert refused.exit_code == 1
    assert "start: " in refused.output
    assert message in refused.output.lower()


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
        ('data = "french"', 'data = ["french", "german"]', r"replay uses the data 'german'"),
        ('data = "french"', "data = []", r"replay\.data must name some data"),
        ('data = "french"', 'data = "french:0"', r"french:0: the share must be above 0"),
        ("share = 0.5", "share = 1.0", r"replay\.share must be above 0 and below 1"),
        ('teacher = "original"', 'teacher = "me"', r"teacher"),
        ("share = 0.5", "shares = 0.5", r"shares"),
        ("share = 0.5", "weight = 0.0", r"replay\.weight must be above 0"),
        ("share = 0.5", "stages = []", r"replay\.stages must name finetune, distill or both"),
        ("share = 0.5", 'stages = ["merge"]', r"replay: stages\[0\]: 'merge' is none of"),
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


def test_a_dry_run_measures_what_is_replayed(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "BUDGET", 0.1)
    rows = Pipeline(read_recipe(recipe), tmp_path / "out", say=lambda _: None).dry_run()
    works = ["prepare speech", "prepare french", "finetune", "merge", "distill"]
    assert [row.work for row in rows] == works
    assert {row.status for row in rows} == {TO_DO}
    assert rows[2].steps == 4
    assert all(row.seconds > 0 for row in rows)


def test_a_dry_run_finds_what_is_done(
    recipe: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "BUDGET", 0.1)
    rows = Pipeline(read_recipe(recipe), output, say=lambda _: None).dry_run()
    assert {row.status for row in rows} == {DONE}


def test_cleaning_keeps_a_training_that_would_be_resumed(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise OSError("killed")

    output = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(stages, "save_stage", never)
        with pytest.raises(OSError, match="killed"):
            Pipeline(read_recipe(recipe), output, say=lambda _: None).run()
    arguments = ["run", str(recipe), "--output", str(output), "--clean", "list"]
    listed = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert listed.output == "nothing to delete\n"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("share = 0.5", "share = 0.1", "stage 1 (finetune), replay: replay: a share of 0.1"),
        (
            "freeze = []",
            "accumulate = 4",
            "stage 1 (finetune), training.batch_size: batch_size 4 has",
        ),
        ("french}", "nowhere}", "stage 1 (finetune), data.french.source: "),
    ],
)
def test_mistakes_are_found_before_the_first_stage(
    recipe: Path, tmp_path: Path, before: str, after: str, message: str
) -> None:
    path = tmp_path / "recipe.toml"
    names = {name: recipe.parent / name for name in ("teacher", "speech", "french", "nowhere")}
    path.write_text(RECIPE.replace(before, after).format(**names))
    refused = CliRunner().invoke(main, ["run", str(path), "--output", str(tmp_path / "out")])
    assert refused.exit_code == 1
    assert message in refused.output
    assert not list((tmp_path / "out").glob("*/*"))
