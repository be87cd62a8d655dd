"""`recipe new` writes recipes that pass validation and `run --dry-run`, whatever the teacher."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from baldwhisper_convert.cli.main import main
from baldwhisper_convert.pipeline import timing
from baldwhisper_convert.pipeline.new_recipe import new_recipe
from baldwhisper_convert.pipeline.recipe import Recipe, read_recipe
from baldwhisper_convert.pipeline.run import Pipeline
from tests.support.tiny import tiny_checkpoint, tiny_dims, tiny_hf_folder, tiny_hf_model
from tests.support.tiny_speech import tiny_speech

SHAPES = {
    "one layer": (64, 1),
    "three layers": (64, 3),
    "as base": (128, 6),
    "odd and wide": (192, 5),
}


def written(folder: Path, text: str) -> Recipe:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return read_recipe(path)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("hours", "seconds"), [(0.3, 4.0), (4.0, 3.0), (60.0, 20.0)])
def test_a_written_recipe_is_valid(
    shape: str, hours: float, seconds: float, tmp_path: Path
) -> None:
    width, layers = SHAPES[shape]
    dims = tiny_dims(n_audio_state=width, n_text_state=width, n_audio_layer=1, n_text_layer=layers)
    teacher = tiny_hf_folder(tmp_path / "teacher", tiny_hf_model(dims))
    clips = tiny_speech(tmp_path / "clips", 20)
    checkpoint = tiny_checkpoint(dims, alignment_heads=None)
    text = new_recipe(
        checkpoint, str(teacher), "lingala", hours,
        clip_seconds=seconds, train=str(clips), dev=str(clips),
    )  # fmt: skip
    recipe = written(tmp_path, text)
    planned = Pipeline(recipe, tmp_path / "out", say=lambda _: None).plan()
    student = planned[-1].result.checkpoint
    assert student.embedding.rank == {64: 8, 128: 16, 192: 32}[width]
    assert student.dims.n_text_layer == {1: 1, 3: 2, 5: 3, 6: 3}[layers]
    assert student.audio_context == ("dynamic" if seconds < 15 else "full")
    assert {data.language for data in recipe.data.values()} == {"ln"}


@pytest.mark.parametrize("seconds", [3.0, 20.0])
def test_a_written_recipe_keeps_another_language(seconds: float, tmp_path: Path) -> None:
    teacher = tiny_hf_folder(tmp_path / "teacher", tiny_hf_model(tiny_dims()))
    clips, french = tiny_speech(tmp_path / "clips", 20), tiny_speech(tmp_path / "fr", 20)
    recipe = tmp_path / "recipe.toml"
    new = ["recipe", "new", "--teacher", str(teacher), "--language", "ln", "--hours", "0.1",
           "--train", str(clips), "--dev", str(clips), "--clip-seconds", str(seconds),
           "-o", str(recipe)]  # fmt: skip
    for wrong, message in (("fr", "LANGUAGE=SOURCE"), ("Lingala=x", "keep another one")):
        refused = CliRunner().invoke(main, [*new, "--keep", wrong])
        assert refused.exit_code > 0
        assert message in refused.output
    result = CliRunner().invoke(main, [*new, "--keep", f"French={french}"])
    assert result.exit_code == 0, result.output
    planned = Pipeline(read_recipe(recipe), tmp_path / "out", say=lambda _: None).plan()
    names = [[data.folder.name for data, _ in stage.sets] for stage in planned]
    assert names[0] == ["train", "dev", "fr"]
    assert names[-1] == ["states", "fr_states", "dev_states"]


def test_it_is_the_recipe_that_was_best_for_four_hours(tmp_path: Path) -> None:
    path = Path(__file__).resolve().parents[3] / "recipes/mboshi-augmented.toml"
    best = read_recipe(path)
    dims = tiny_dims(n_text_state=512, n_audio_state=512, n_text_layer=6, n_audio_layer=1)
    made = written(tmp_path, new_recipe(tiny_checkpoint(dims), "base", "ln", 4, clip_seconds=3))
    for ours, theirs in zip(made.stages, best.stages, strict=True):
        assert (ours.stage, ours.data, ours.dev) == (theirs.stage, theirs.data, theirs.dev)
        assert (ours.merge, ours.factorize, ours.loss) == (
            theirs.merge, theirs.factorize, theirs.loss,
        )  # fmt: skip
        if ours.training is not None:
            names = ("epochs", "batch_size", "learning_rate", "warmup", "freeze", "spec_augment",
                     "schedule", "patience")  # fmt: skip
            for name in names:
                mine, other = (getattr(stage.trained, name) for stage in (ours, theirs))
                assert mine == other, name
    assert list(made.data) == list(best.data)
    for name, data in made.data.items():
        theirs_data = best.data[name]
        assert data.passes == theirs_data.passes
        noise = replace(theirs_data.settings.augmentation, recordings="")
        assert data.settings == replace(theirs_data.settings, augmentation=noise)


def test_more_speech_is_passed_over_less_often(tmp_path: Path) -> None:
    teacher = tiny_checkpoint()
    passes = []
    for hours in (0.2, 1, 4, 20, 200):
        recipe = written(tmp_path, new_recipe(teacher, "m", "ln", hours))
        copies = recipe.data["states"].passes
        epochs = [s.trained.epochs for s in recipe.stages if s.stage in ("finetune", "distill")]
        passes.append((epochs[0], copies * epochs[1]))
    assert passes == sorted(passes, reverse=True)
    assert passes[0] > passes[-1]


def test_the_commands_work_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "BUDGET", 0.1)
    teacher = tiny_hf_folder(tmp_path / "teacher", tiny_hf_model(tiny_dims()))
    clips = tiny_speech(tmp_path / "clips", 20)
    recipe = tmp_path / "recipe.toml"
    new = ["recipe", "new", "--teacher", str(teacher), "--language", "ln", "--hours", "0.1",
           "--train", str(clips), "--dev", str(clips), "-o", str(recipe)]  # fmt: skip
    assert CliRunner().invoke(main, new).exit_code == 0
    again = CliRunner().invoke(main, new)
    assert again.exit_code == 1
    assert "--force" in again.output
    arguments = ["run", str(recipe), "--output", str(tmp_path / "out"), "--dry-run", "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["rows"]
    works = [row["work"] for row in rows if not row["work"].startswith("prepare")]
    assert works == ["finetune", "merge", "factorize", "distill"]
    assert all(row["seconds"] > 0 and row["disk"] > 0 for row in rows)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("language", "hours"), [("klingon", 4.0), ("ln", 0.0)])
def test_what_no_recipe_fits_is_refused(language: str, hours: float) -> None:
    with pytest.raises(ValueError, match=r"klingon|hours above 0"):
        new_recipe(tiny_checkpoint(), "m", language, hours)
