"""The JSON schema of recipes: current, complete, and of one mind with the parser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from baldwhisper_convert.cli.main import main
from baldwhisper_convert.pipeline.recipe import Recipe
from baldwhisper_convert.pipeline.schema import SCHEMA_FILE, recipe_schema
from baldwhisper_convert.pipeline.settings import RecipeError, build, did_you_mean, read_toml

RECIPES = Path(__file__).resolve().parents[3] / "recipes"


def test_the_committed_schema_is_current() -> None:
    done = CliRunner().invoke(main, ["recipe", "schema"])
    assert done.exit_code == 0
    committed = (RECIPES / SCHEMA_FILE).read_text(encoding="utf-8")
    assert done.output == committed, (
        "run: baldwhisper-convert recipe schema -o recipes/" + SCHEMA_FILE
    )


def complaints(value: Any, schema: dict[str, Any], where: str = "") -> list[str]:
    """What of the schema's keywords a value breaks; only those that `recipe_schema` writes."""
    kinds = {
        "string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list,
        "object": dict,
    }  # fmt: skip
    if "enum" in schema:
        return [] if value in schema["enum"] else [where]
    if "anyOf" in schema:
        return min((complaints(value, one, where) for one in schema["anyOf"]), key=len)
    if not isinstance(value, kinds[schema["type"]]):
        return [where]
    found = []
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 99):
            found.append(where)
        for item in value:
            found += complaints(item, schema["items"], where)
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        found += [f"{where}.{key}" for key in schema.get("required", []) if key not in value]
        for key, item in value.items():
            inner = properties.get(key, schema["additionalProperties"])
            place = f"{where}.{key}"
            found += [place] if inner is False else complaints(item, inner, place)
    return found


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.name)
def test_recipes_name_the_schema_and_fit_it(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert (path.parent / first.removeprefix("#:schema ")).is_file()
    assert complaints(read_toml(path), recipe_schema()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"teacher": 3},
        {"nothing": 3},
        {"stages": [{"stage": "shear"}]},
        {"stages": [{"stage": "merge", "merge": {"weights": [[1.0]]}}]},
        {"stages": [{"stage": "merge", "merge": {"alpha": "1"}}]},
        {"data": {"train": {}}},
        {"stages": [{"stage": "merge", "dev": 3}]},
        {"stages": [{"stage": "merge", "dev": ["a", 3]}]},
    ],
)
def test_parser_and_schema_refuse_the_same(change: dict[str, Any]) -> None:
    good: dict[str, Any] = {"teacher": "a", "stages": [{"stage": "merge"}]}
    assert complaints(good, recipe_schema()) == []
    build(Recipe, good, "recipe")
    assert complaints(good | change, recipe_schema()) != []
    with pytest.raises(RecipeError):
        build(Recipe, good | change, "recipe")


def test_every_setting_has_a_description_or_a_plain_name() -> None:
    stage = recipe_schema()["properties"]["stages"]["items"]["properties"]
    for section in ("training", "loss", "factorize"):
        for name, schema in stage[section]["properties"].items():
            plain = {"accumulate", "learning_rate", "schedule", "seed", "mix", "mixed_precision",
                     "checkpoint_minutes", "rank"}  # fmt: skip
            assert schema.get("description") or name in plain, name


def test_all_mistakes_are_listed_with_suggestions() -> None:
    table = {
        "teacher": "a",
        "data": {"train": {"source": "b", "feature": "mel"}},
        "stages": [
            {"stage": "distil", "data": ["train"]},
            {"stage": "distill", "data": ["train"],
             "training": {"learning_rat": 1e-4, "schedule": "cosin", "epochs": "3"}},
        ],
    }  # fmt: skip
    with pytest.raises(RecipeError) as raised:
        build(Recipe, table, "recipe.toml")
    found = raised.value.problems
    assert len(found) == 5
    for wanted in (
        r"data.train: unknown feature \(did you mean features\?\)",
        r"stages\[0\]: stage: 'distil' is none of .* \(did you mean distill\?\)",
        r"training: unknown learning_rat \(did you mean learning_rate\?\)",
        r"schedule: 'cosin' is none of .* \(did you mean cosine\?\)",
        r"epochs: expected float",
    ):
        assert sum(bool(re.search(wanted, problem)) for problem in found) == 1, wanted


def test_a_misspelt_name_of_data_gets_a_suggestion() -> None:
    table = {
        "teacher": "a",
        "data": {"train": {"source": "b"}},
        "stages": [{"stage": "finetune", "data": ["trian"], "dev": "tain"}],
    }
    with pytest.raises(RecipeError) as raised:
        build(Recipe, table, "recipe.toml")
    assert len(raised.value.problems) == 2
    assert all("did you mean train?" in problem for problem in raised.value.problems)


def test_no_suggestion_for_what_is_not_alike() -> None:
    assert did_you_mean("zzz", ["alpha", "beta"]) == ""
