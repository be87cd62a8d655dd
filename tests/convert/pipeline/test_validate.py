"""Recipes are checked before their first stage: all problems at once, and only real ones."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from baldwhisper_convert.cli.main import main
from baldwhisper_convert.pipeline import run as running
from baldwhisper_convert.pipeline.recipe import Recipe, read_recipe
from baldwhisper_convert.pipeline.run import Pipeline
from baldwhisper_convert.pipeline.settings import RecipeError, build
from baldwhisper_convert.readers.read import read_checkpoint
from tests.support.tiny import tiny_dims, tiny_hf_folder, tiny_hf_model
from tests.support.tiny_speech import tiny_speech

ROOT = Path(__file__).resolve().parents[3]

MEL = {"features": "mel", "windows": {"full": 0.0}}
STATES = {"windows": {"full": 0.0, "silence": 0.0}}
BRIEF = {"epochs": 0.01, "batch_size": 2}


def plain(teacher: Path, speech: Path) -> dict[str, Any]:
    """A valid recipe of all kinds of stages, as a table."""
    source = {"source": str(speech)}
    return {
        "teacher": str(teacher),
        "data": {"mel": source | MEL, "states": source | STATES, "dev": source | MEL},
        "texts": {"words": str(speech / "metadata.jsonl")},
        "stages": [
            {"stage": "finetune", "data": ["mel"], "dev": "dev",
             "training": BRIEF | {"freeze": []}},
            {"stage": "merge", "data": ["states"], "merge": {"method": "keep", "keep": [0, 2]},
             "speech": 2},
            {"stage": "factorize", "data": ["states"], "texts": ["words"],
             "factorize": {"rank": 8}, "speech": 2},
            {"stage": "distill", "data": ["states:0.5"], "training": BRIEF},
        ],
    }  # fmt: skip


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hf_folder(tmp_path_factory.mktemp("teacher") / "model", tiny_hf_model(tiny_dims()))


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_speech(tmp_path_factory.mktemp("speech") / "clips", 6)


def changed(table: dict[str, Any], changes: dict[str, Any]) -> Recipe:
    """The recipe with values replaced at dotted places; a None removes one."""
    copy = json.loads(json.dumps(table))
    for place, value in changes.items():
        *path, last = place.split(".")
        parent = copy
        for name in path:
            parent = parent[int(name)] if isinstance(parent, list) else parent.setdefault(name, {})
        parent.pop(last, None) if value is None else parent.update({last: value})
    return build(Recipe, copy, "recipe")


def quiet(_: str) -> None:
    """No progress messages."""


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "rank": ({"stages.2.factorize.rank": 960}, "stage 3 (factorize), factorize: a rank of 960"),
    "dense rows": (
        {"stages.2.factorize.dense_rows": 99_999}, "stage 3 (factorize), factorize: 99999 dense",
    ),
    "language": ({"data.mel.language": "klingon"}, "stage 1 (finetune), data.mel.language:"),
    "misspelt source": ({"data.states.source": "./nowhere"}, "stage 2 (merge), data.states.source"),
    "missing column": (
        {"data.dev.text_column": "sentense"}, "stage 1 (finetune), data.dev.source: ",
    ),
    "noise": (
        {"data.states.augmentation.recordings": "./nowhere"},
        "stage 2 (merge), data.states.augmentation.recordings: ",
    ),
    "layer": ({"stages.1.merge.keep": [0, 7]}, "stage 2 (merge), merge: cannot keep the layers"),
    "groups": (
        {"stages.1.merge": {"groups": [5]}}, "stage 2 (merge), merge: groups of [5] layers",
    ),
    "search without speech": (
        {"stages.1.merge": {"method": "search"}, "stages.1.data": []},
        "stage 2 (merge), merge: method 'search' needs speech",
    ),
    "pattern": (
        {"stages.3.training.freeze": ["encoder.*", "decoder.blok.*"]},
        "stage 4 (distill), training: no parameter is called 'decoder.blok.*'",
    ),
    "late": (
        {"stages.0.training.late": ["nothing"]},
        "stage 1 (finetune), training: no parameter is called 'nothing'",
    ),
    "nothing to train": (
        {"stages.3.training.freeze": ["*"]}, "stage 4 (distill), training: `freeze` names every",
    ),
    "text": ({"texts.words": "./nowhere.txt"}, "stage 3 (factorize), texts.words: "),
    "states for the encoder": (
        {"stages.0.data": ["states"]}, "stage 1 (finetune), training: the prepared data is enc",
    ),
    "states for merging encoders": (
        {"stages.1.merge": {"part": "encoder"}, "stages.3.data": ["mel"]},
        "stage 2 (merge), data: the prepared data is encoder states",
    ),
    "states of another encoder": (
        {"stages.1.merge": {"part": "encoder"}, "stages.1.data": []},
        "stage 4 (distill), data: the prepared data is the teacher's encoder states",
    ),
    "features that differ": (
        {"stages.3.data": ["states", "mel"]}, "stage 4 (distill), data: the folders of prepared",
    ),
    "batch size": (
        {"stages.3.training.accumulate": 3, "stages.3.training.batch_size": 4},
        "stage 4 (distill), training.batch_size: batch_size 4 is not",
    ),
    "too few windows": (
        {"stages.3.training.accumulate": 64, "stages.3.training.batch_size": 64},
        "stage 4 (distill), training.batch_size: ",
    ),
    "SpecAugment of states": (
        {"stages.3.training.spec_augment": {"time_masks": 1}},
        "stage 4 (distill), training: SpecAugment hides parts of log-mel",
    ),
    "patience without evaluations": (
        {"stages.3.training.patience": 2}, "stage 4 (distill), training: patience needs dev",
    ),
    "adapters": (
        {"stages.3.training.lora": {"targets": ["*.nothing"]}},
        "stage 4 (distill), training: lora: no linear layer is called '*.nothing'",
    ),
    "audio context": (
        {"data.states.audio_context": "dynamic"},
        "stage 2 (merge), data.states.audio_context: the teacher was trained",
    ),
    "no text": (
        {"data.mel.labels": "none"}, "stage 1 (finetune), training: the prepared data has no text",
    ),
    "no text to count": (
        {"stages.2.data": ["mute"], "data.mute.labels": "none", "data.mute.source": ""},
        "stage 3 (factorize), data: the stage factorize counts tokens",
    ),
    "factors twice": (
        {"stages.0.stage": "factorize", "stages.0.training": None, "stages.0.dev": None,
         "stages.0.factorize.rank": 4, "stages.2.factorize.rank": 70},
        "stage 3 (factorize), factorize: a rank of 70",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_problem_is_what_the_stage_itself_raises(
    fault: str, teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, expected = FAULTS[fault]
    if "data.mute.source" in changes:
        changes = changes | {"data.mute.source": str(speech)}
    recipe = changed(plain(teacher, speech), changes)
    with pytest.raises(RecipeError) as found:
        Pipeline(recipe, tmp_path / "out", say=quiet).run()
    (problem,) = found.value.problems
    assert problem.startswith(expected)
    assert not list((tmp_path / "out").glob("*"))  # nothing has been prepared
    # Without the check, the same recipe fails with the same message, only later.
    monkeypatch.setattr(running, "validate", lambda *_: [])
    with pytest.raises((ValueError, OSError)) as raised:
        Pipeline(recipe, tmp_path / "out", say=quiet).run()
    said = " ".join(str(raised.value).split())
    assert problem.split(": ", 1)[1] in said


def test_a_valid_recipe_has_no_problems_and_runs(
    teacher: Path, speech: Path, tmp_path: Path
) -> None:
    recipe = changed(plain(teacher, speech), {})
    planned = Pipeline(recipe, tmp_path / "out", say=quiet).plan()
    assert [stage.result.checkpoint.dims.n_text_layer for stage in planned] == [3, 2, 2, 2]
    assert not (tmp_path / "out").exists()
    folder = Pipeline(recipe, tmp_path / "out", say=quiet).run()
    assert folder.name == "04-distill"
    done = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    form = planned[-1].result.checkpoint.embedding
    assert (done["n_text_layer"], done["embedding_rank"]) == (2, form.rank)


def test_planned_windows_are_those_that_are_prepared(
    teacher: Path, speech: Path, tmp_path: Path
) -> None:
    context = {"audio_context": "dynamic", "windows": {"full": 0.0, "silence": 0.0}}
    table = plain(teacher, speech)
    table["data"]["mel"] |= context | {"passes": 2, "augmentation": {"speed": 0.0}}
    table["stages"] = table["stages"][:1]
    recipe = changed(table, {})
    check_planned(recipe, tmp_path / "out")


def check_planned(recipe: Recipe, output: Path) -> list[list[int]]:
    """Runs a recipe of one stage as it was planned; returns the tokens of the windows."""
    pipeline = Pipeline(recipe, output, say=quiet)
    (stage,) = pipeline.plan()
    pipeline.run()
    tokens = []
    for planned, _ in stage.sets:
        name = planned.folder.name
        lines = (output / "prepared" / name / "windows.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert [(w.positions, list(w.tokens), w.text) for w in planned.windows] == [
            (row["positions"], row["tokens"], row["text"]) for row in rows
        ]
        features = output / "prepared" / name / "features.f16"
        assert features.stat().st_size == planned.n_bytes
        tokens += [row["tokens"] for row in rows]
    return tokens


def test_planned_windows_have_a_token_wherever_the_language_changes(
    teacher: Path, speech: Path, tmp_path: Path
) -> None:
    clips = tiny_speech(tmp_path / "clips", 6)
    rows = [json.loads(line) for line in (clips / "metadata.jsonl").read_text().splitlines()]
    for row in rows:
        first, *rest = row["text"].split()
        row["turns"] = [
            {"start": 0.0, "end": 0.2, "language": "en", "text": first},
            {"start": 0.2, "end": 0.4, "language": "fr", "text": " ".join(rest)},
        ]
    (clips / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = plain(teacher, clips)
    table["data"]["mel"]["language_tokens"] = "turns"
    table["stages"] = table["stages"][:1]
    del table["stages"][0]["dev"]
    french = read_checkpoint(teacher).tokenizer().languages["fr"]
    found = check_planned(changed(table, {}), tmp_path / "out")
    assert sum(row.count(french) for row in found) == 6
    recipe = changed(table, {"data.mel.source": str(speech)})
    with pytest.raises(
        RecipeError, match=r"data\.mel\.source: unusable utterances: 6 without turns"
    ):
        Pipeline(recipe, tmp_path / "none", say=quiet).plan()


def test_all_problems_are_listed_at_once(teacher: Path, speech: Path, tmp_path: Path) -> None:
    faults = ("rank", "language", "layer", "pattern", "text")
    changes = {place: v for fault in faults for place, v in FAULTS[fault][0].items()}
    recipe = changed(plain(teacher, speech), changes)
    with pytest.raises(RecipeError) as found:
        Pipeline(recipe, tmp_path / "out", say=quiet).run()
    problems = found.value.problems
    assert len(problems) == len(faults)
    for fault in faults:
        assert any(problem.startswith(FAULTS[fault][1]) for problem in problems)


def test_a_problem_of_the_data_makes_no_others(teacher: Path, speech: Path, tmp_path: Path) -> None:
    """The fine-tuning would have changed the audio context, which its data cannot tell."""
    context = {"audio_context": "dynamic", "windows.full": 0.0}
    changes = {f"data.{name}.{key}": v for name in ("mel", "dev", "states")
               for key, v in context.items()}  # fmt: skip
    recipe = changed(plain(teacher, speech), changes | {"data.mel.source": "./nowhere"})
    with pytest.raises(RecipeError) as found:
        Pipeline(recipe, tmp_path / "out", say=quiet).plan()
    assert [problem.split(": ")[0] for problem in found.value.problems] == [
        "stage 1 (finetune), data.mel.source"
    ]


def test_data_is_checked_again_after_a_training_that_changes_the_audio_context(
    teacher: Path, speech: Path, tmp_path: Path
) -> None:
    tune = {"stage": "finetune", "data": ["states"], "training": BRIEF}
    changes = {"start": str(teacher), "data.mel.audio_context": "dynamic", "stages": [
        tune, tune | {"data": ["mel"], "training": BRIEF | {"freeze": []}}, tune,
    ]}  # fmt: skip
    with pytest.raises(RecipeError) as found:
        Pipeline(changed(plain(teacher, speech), changes), tmp_path / "out", say=quiet).plan()
    assert [problem.split(": ")[0] for problem in found.value.problems] == [
        "stage 3 (finetune), data.states.audio_context"
    ]


def test_without_the_teacher_missing_sources_are_named_too(speech: Path, tmp_path: Path) -> None:
    recipe = changed(plain(Path("./nothing"), speech), {"data.dev.source": "./nowhere"})
    with pytest.raises(RecipeError) as found:
        Pipeline(recipe, tmp_path / "out", say=quiet).run()
    assert [problem.split(":")[0] for problem in found.value.problems] == [
        "teacher", "data.dev.source",
    ]  # fmt: skip


def test_bad_utterances_are_counted(teacher: Path, tmp_path: Path) -> None:
    clips = tiny_speech(tmp_path / "clips", 6)
    for name in ("001.wav", "004.wav"):
        (clips / name).write_bytes(b"no audio")
    recipe = changed(plain(teacher, clips), {})
    with pytest.raises(RecipeError, match=r"2 with unreadable audio .*001.wav.*--skip-bad"):
        Pipeline(recipe, tmp_path / "out", say=quiet).plan()
    said: list[str] = []
    assert Pipeline(recipe, tmp_path / "out", skip_bad=True, say=said.append).plan()
    assert len(said) == len(recipe.data)
    assert said[0].startswith("data.mel: 2 utterances are left out: 2 with unreadable audio (first")


def test_the_command_prints_a_line_for_each_problem(
    teacher: Path, speech: Path, tmp_path: Path
) -> None:
    text = (ROOT / "recipes/mboshi-augmented.toml").read_text(encoding="utf-8")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(text.replace('"ln"', '"zz"'), encoding="utf-8")
    names = dataclasses.asdict(read_recipe(recipe))["data"]
    data = [word for name in names for word in ("--data", f"{name}={speech}")]
    arguments = ["run", str(recipe), "--teacher", str(teacher), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*arguments, *data])
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0].endswith("problems:")
    assert sum("language: " in line for line in lines) == 4
    assert any("stage 2 (merge), merge: cannot keep the layers [0, 3, 5]" in x for x in lines)
    assert any("stage 3 (factorize), factorize: a rank of 80" in line for line in lines)
