"""docs/settings.md shows every setting as the code has it, and every setting says what it does."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import get_args, get_type_hints

import pytest

from baldwhisper_convert.pipeline.recipe import Recipe

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "scripts/update_settings_docs.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("update_settings_docs", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_is_current(script: ModuleType) -> None:
    advice = "run: python scripts/update_settings_docs.py"
    assert script.OUTPUT.read_text(encoding="utf-8") == script.render(), advice


def test_every_setting_has_an_effect(script: ModuleType) -> None:
    for heading, _, kind in script.sections():
        for name, _, _, effect in script.rows(kind):
            assert effect, f"{heading} {kind.__name__}.{name} needs a docstring"


def test_no_section_is_missing(script: ModuleType) -> None:
    """Every dataclass that a recipe can hold, however deep, has its table."""
    shown = {kind for _, _, kind in script.sections()}
    pending: list[type] = [Recipe]
    while pending:
        kind = pending.pop()
        assert kind in shown, f"{kind.__name__} is not in {SCRIPT.name}"
        hints = list(get_type_hints(kind).values())
        while hints:
            hint = hints.pop()
            hints += get_args(hint)
            if isinstance(hint, type) and dataclasses.is_dataclass(hint):
                pending.append(hint)
