"""Recipes: what is read, what is refused, and where the error says it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baldwhisper_convert.compression.factorize import FactorizeSettings
from baldwhisper_convert.data.speech import parse_shares
from baldwhisper_convert.pipeline.recipe import StageRecipe, read_recipe
from baldwhisper_convert.pipeline.settings import build, override
from baldwhisper_convert.training.objectives import LossSettings
from baldwhisper_convert.training.settings import TrainingSettings

ROOT = Path(__file__).resolve().parents[3]

WHOLE = """
teacher = "openai/whisper-base"
[data.train]
source = "somewhere"
[[stages]]
stage = "distill"
data = ["train:0.5"]
[stages.loss]
kl = 2
[stages.training]
epochs = 1
freeze = ["encoder.*"]
mix = { timestamps = 0 }
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_a_recipe(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, WHOLE))
    (stage,) = recipe.stages
    assert stage.loss == LossSettings(kl=2.0)
    assert stage.training is not None
    assert stage.training.freeze == ("encoder.*",)
    assert stage.training.mix.timestamps == 0.0
    assert recipe.data["train"].settings.labels == "text"


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda p: p.name)
def test_recipes_of_the_repository_are_valid(path: Path) -> None:
    assert read_recipe(path).stages


def test_repository_has_recipes() -> None:
    assert list((ROOT / "recipes").glob("*.toml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kl = 2", "kll = 2", r"stages\[0\]: loss: unknown kll"),
        ("kl = 2", 'kl = "2"', r"loss: kl: expected float"),
        ("kl = 2", "kl = -1", r"loss: loss weights must not be negative"),
        ("kl = 2", "kl = true", r"loss: kl: expected float"),
        ("epochs = 1", "epochs = 0", r"training: epochs must be above 0"),
        ('stage = "distill"', 'stage = "shear"', r"'shear' is none of finetune"),
        ('data = ["train:0.5"]', 'data = ["other"]', r"uses the data 'other'"),
        ('data = ["train:0.5"]', "data = []", r"distill needs data"),
        ('data = ["train:0.5"]', 'data = "train"', r"data: expected a list"),
        ('data = ["train:0.5"]', 'data = ["train:0"]', r"share must be above 0"),
        ("[stages.loss]", "[stages.merge]", r"merge: unknown kl"),
        ('teacher = "openai/whisper-base"', "", r"missing teacher"),
        ("kl = 2", "kl = = 2", r"not valid TOML"),
    ],
)
def test_refuses(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in WHOLE
    with pytest.raises(ValueError, match=message):
        read_recipe(write(tmp_path, WHOLE.replace(old, new)))


def test_a_stage_refuses_sections_of_others() -> None:
    with pytest.raises(ValueError, match="does not use the section loss"):
        StageRecipe(stage="merge", loss=LossSettings())


def test_texts_belong_to_factorize_and_to_the_recipe(tmp_path: Path) -> None:
    stage = '[[stages]]\nstage = "factorize"\ndata = ["train"]\ntexts = ["books"]\n'
    text = WHOLE + stage
    with pytest.raises(ValueError, match="uses the text 'books'"):
        read_recipe(write(tmp_path, text))
    named = text.replace("[data.train]", '[texts]\nbooks = "books.txt"\n[data.train]')
    assert read_recipe(write(tmp_path, named)).stages[1].texts == ("books",)
    with pytest.raises(ValueError, match="does not use texts"):
        StageRecipe(stage="merge", texts=("books",))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_recipe(tmp_path / "none.toml")


def test_override_reaches_nested_settings() -> None:
    stage = StageRecipe(
        stage="distill", training=TrainingSettings(), loss=LossSettings(), data=("d",)
    )
    changed = override(
        stage,
        ["training.learning_rate=1e-4", "training.mix.prompts=0", "loss.kl=3", "training.late=[]",
         "training.schedule=linear"],
    )  # fmt: skip
    assert changed.training is not None
    assert changed.loss is not None
    assert changed.training.learning_rate == 1e-4
    assert changed.training.mix.prompts == 0.0
    assert changed.training.schedule == "linear"
    assert changed.loss.kl == 3.0
    assert changed.training.batch_size == TrainingSettings().batch_size


def test_override_sets_what_has_no_value_yet() -> None:
    changed = override(FactorizeSettings(), ["projections=shared", "mean=false"])
    assert (changed.projections, changed.mean) == ("shared", False)
    assert override(changed, ["rank=4"]) == FactorizeSettings(
        rank=4, projections="shared", mean=False
    )


@pytest.mark.parametrize("change", ["training.nothing=1", "nothing=1", "loss.kl", "loss.kl=x"])
def test_override_refuses(change: str) -> None:
    stage = StageRecipe(stage="distill", loss=LossSettings(), data=("d",))
    with pytest.raises(ValueError, match=r"setting|key=value|expected float"):
        override(stage, [change])


@given(st.floats(0.01, 10), st.floats(0.01, 10))
def test_override_with_its_own_values_changes_nothing(ce: float, kl: float) -> None:
    settings = LossSettings(ce=ce, kl=kl)
    assert override(settings, [f"ce={ce!r}", f"kl={kl!r}"]) == settings


def test_parts() -> None:
    assert parse_shares(["a", "b:0.5", "c:d"]) == [("a", 1.0), ("b", 0.5), ("c:d", 1.0)]


def test_build_refuses_what_is_no_table() -> None:
    with pytest.raises(ValueError, match="expected a table"):
        build(LossSettings, [1], "loss")


def test_dev_is_a_name_or_several() -> None:
    for dev, names in (("a", ("a",)), (["a", "b"], ("a", "b")), ("", ())):
        stage = build(StageRecipe, {"stage": "merge", "dev": dev}, "stage")
        assert stage.dev_names == names
    with pytest.raises(ValueError, match="stage: dev: expected a list, found 3"):
        build(StageRecipe, {"stage": "merge", "dev": 3}, "stage")


def test_stage_settings_hold_defaults() -> None:
    settings = StageRecipe(stage="merge").settings
    assert settings["merge"]["alpha"] == 0.1
    assert "training" not in settings
