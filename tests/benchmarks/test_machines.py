"""How the benchmark scripts name models, and that a result is written whole."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from benchmarks.machines import model_or_bundled, named_model, write_json


def test_models_by_name(tmp_path: Path) -> None:
    assert named_model(f"mine={tmp_path}") == model_or_bundled(f"mine={tmp_path}")
    assert named_model(f"mine={tmp_path}") == ("mine", tmp_path)
    assert model_or_bundled("base-en=") == ("base-en", None)


@pytest.mark.parametrize("item", ["mine", "", "=", "=DIR", "mine=no such folder"])
def test_what_is_no_model(item: str) -> None:
    for read in (named_model, model_or_bundled):
        with pytest.raises(click.UsageError, match="NAME=DIR"):
            read(item)
    with pytest.raises(click.UsageError):
        named_model("base-en=")


def test_results_are_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.json"
    write_json(path, {"word": "naïve"})
    with pytest.raises(TypeError):
        write_json(path, {"no": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"word": "naïve"}
    assert list(path.parent.iterdir()) == [path]
