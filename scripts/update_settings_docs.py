"""Writes docs/settings.md: every setting of recipes and of `--set`, with type, default and effect.

    .venv/bin/python scripts/update_settings_docs.py

The table comes from the settings' dataclasses and the docstrings of their fields.
tests/convert/pipeline/test_settings_docs.py compares the file with what this script would write.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "docs/settings.md"

HEADER = """# Settings

Every setting of a recipe, by its section. The same names serve `--set` of the commands, such as
`--set training.learning_rate=1e-4`. [training.md](training.md) explains how they are used.

Written by `scripts/update_settings_docs.py` from the settings' own classes; do not edit.
"""
_TEXT_NAMES = {"str": "text", "float": "number", "int": "whole number", "bool": "true or false"}


def sections() -> list[tuple[str, str, type]]:
    """Heading, introduction and dataclass of every section."""
    from baldwhisper_convert.compression.factorize import FactorizeSettings
    from baldwhisper_convert.compression.merge import MergeSettings
    from baldwhisper_convert.data.augment import Augmentation
    from baldwhisper_convert.data.batches import Mix
    from baldwhisper_convert.data.prepare_settings import PrepareSettings
    from baldwhisper_convert.data.spec_augment import SpecAugment
    from baldwhisper_convert.data.windows import WindowSettings
    from baldwhisper_convert.pipeline.recipe import DataRecipe, Recipe, ReplayRecipe, StageRecipe
    from baldwhisper_convert.pipeline.search import SearchSettings
    from baldwhisper_convert.training.objectives import LossSettings
    from baldwhisper_convert.training.settings import LoraSettings, TrainingSettings

    return [
        ("Recipe", "The top of a recipe.", Recipe),
        ("`[data.NAME]`", "What `prepare` reads, and the settings below.", DataRecipe),
        ("`[data.NAME]`, `prepare --set`", "How the data is prepared.", PrepareSettings),
        ("`[data.NAME.windows]`, `prepare --set windows.*`", "", WindowSettings),
        ("`[data.NAME.augmentation]`, `prepare --set augmentation.*`", "", Augmentation),
        ("`[replay]`", "Speech of another language in the trainings.", ReplayRecipe),
        ("`[[stages]]`", "Each stage; `--set` of a stage's command takes them too.", StageRecipe),
        ("`training`", "Of `finetune` and `distill`. Defaults of `finetune` are others: {changed}.",
         TrainingSettings),
        ("`training.mix`", "", Mix),
        ("`training.spec_augment`", "", SpecAugment),
        ("`training.lora`", "", LoraSettings),
        ("`loss`", "Of `distill`.", LossSettings),
        ("`merge`", "", MergeSettings),
        ("`factorize`", "", FactorizeSettings),
        ("`search --set`", "Of the command `search`.", SearchSettings),
    ]  # fmt: skip


def effects(kind: type) -> dict[str, str]:
    """The docstring of every field that a class itself has, in one line each."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for line, following in zip(tree.body, [*tree.body[1:], ast.Pass()], strict=True):
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name):
            continue
        text = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            text = " ".join(inspect.cleandoc(str(following.value.value)).split())
        found[line.target.id] = text
    return found


def type_text(hint: Any) -> str:
    """A type in words, as TOML has it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_text(part) for part in arguments if part is not type(None))
    if origin in (tuple, list):
        inner = next(part for part in arguments if part is not ...)
        return f"list of {type_text(inner)}"
    if origin is dict:
        return f"table of {type_text(arguments[1])}"
    if dataclasses.is_dataclass(hint):
        return "section"
    return _TEXT_NAMES.get(getattr(hint, "__name__", ""), str(hint))


def default_text(item: dataclasses.Field[Any]) -> str:
    """A default as TOML has it; empty for a section, and for what has to be given."""
    value = item.default
    if item.default_factory is not dataclasses.MISSING:
        value = item.default_factory()
    if value is dataclasses.MISSING:
        return "(required)"
    if value is None or dataclasses.is_dataclass(value):
        return ""
    return f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {_toml(one)}' for key, one in value.items())}}}"
    return f'"{value}"' if isinstance(value, str) else f"{value}"


def finetuning_defaults() -> str:
    """The defaults of `finetune` that are not those of the class."""
    from baldwhisper_convert.pipeline.recipe import finetuning

    settings = finetuning()
    return ", ".join(
        f"`{item.name} = {_toml(getattr(settings, item.name))}`"
        for item in dataclasses.fields(settings)
        if item.default is not dataclasses.MISSING and getattr(settings, item.name) != item.default
    )


def rows(kind: type) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default and effect of every setting that a class itself has."""
    own = effects(kind)
    hints = typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        if item.name in own:
            yield item.name, type_text(hints[item.name]), default_text(item), own[item.name]


def render() -> str:
    """The whole of docs/settings.md."""
    parts = [HEADER]
    for heading, introduction, kind in sections():
        lines = [f"## {heading}", ""]
        if introduction:
            lines += [introduction.format(changed=finetuning_defaults()), ""]
        lines += ["| setting | type | default | effect |", "|---|---|---|---|"]
        for row in rows(kind):
            cells = (cell.replace("|", "\\|") for cell in row)
            lines.append(f"| `{next(cells)}` | {' | '.join(cells)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "convert")]
    OUTPUT.write_text(render(), encoding="utf-8")
