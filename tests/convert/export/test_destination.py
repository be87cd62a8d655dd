"""Destinations of exports: what is replaced, and what remains after a failure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.export import mlx as export_module
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_mlx import files, load_model
from baldwhisper_mlx.config import ModelConfig

FILES = ["README.md", "config.json", "model.safetensors", "vocabulary.tiktoken"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_parents_are_made(tmp_path: Path, reference: Checkpoint) -> None:
    assert names(export_mlx(reference, tmp_path / "a" / "b c" / "ü.model")) == FILES


def test_an_existing_model_is_refused(tmp_path: Path, reference: Checkpoint) -> None:
    folder = export_mlx(reference, tmp_path / "m")
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(FileExistsError, match="--force replaces it"):
        export_mlx(reference, folder)
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_force_replaces_a_model_completely(tmp_path: Path, reference: Checkpoint) -> None:
    folder = export_mlx(reference, tmp_path / "m")
    (folder / "extra").touch()
    export_mlx(reference, folder, dtype="float32", force=True)
    assert names(folder) == FILES
    assert ModelConfig.from_file(folder / "config.json").dtype == "float32"
    assert names(tmp_path) == ["m"]


def test_force_takes_an_empty_folder(tmp_path: Path, reference: Checkpoint) -> None:
    (tmp_path / "m").mkdir()
    assert names(export_mlx(reference, tmp_path / "m", force=True)) == FILES


def test_force_follows_a_link(tmp_path: Path, reference: Checkpoint) -> None:
    folder = export_mlx(reference, tmp_path / "m")
    (tmp_path / "link").symlink_to(folder)
    assert export_mlx(reference, tmp_path / "link", force=True) == folder
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("kind", ["file", "folder", "other config"])
def test_force_deletes_nothing_but_models(kind: str, tmp_path: Path, reference: Checkpoint) -> None:
    path = tmp_path / "precious"
    if kind == "file":
        path.write_text("text")
    else:
        path.mkdir()
        (path / ("config.json" if kind == "other config" else "thesis.tex")).write_text("{}")
    with pytest.raises(FileExistsError, match="not an exported model, so --force"):
        export_mlx(reference, path, force=True)
    assert path.exists()
    assert names(tmp_path) == ["precious"]


def test_force_does_not_delete_its_own_source(tmp_path: Path, reference: Checkpoint) -> None:
    folder = export_mlx(reference, tmp_path / "m")
    inside = replace(reference, source=str(folder / "config.json"))
    with pytest.raises(FileExistsError, match="contains the source"):
        export_mlx(inside, folder, force=True)


@pytest.mark.parametrize("stage", ["_write", "_verify_export"])
@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [True, False])
def test_a_failure_changes_nothing(
    stage: str,
    error: BaseException,
    existing: bool,
    tmp_path: Path,
    reference: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if existing:
        export_mlx(reference, tmp_path / "m", dtype="bfloat16")
    real = getattr(export_module, stage)

    def failing(*args: Any) -> None:
        real(*args)
        raise error

    monkeypatch.setattr(export_module, stage, failing)
    with pytest.raises(type(error)):
        export_mlx(reference, tmp_path / "m", force=True)
    assert names(tmp_path) == (["m"] if existing else [])
    if existing:
        assert ModelConfig.from_file(tmp_path / "m" / "config.json").dtype == "bfloat16"
        assert names(tmp_path / "m") == FILES


def test_a_failing_rename_restores_the_old_model(
    tmp_path: Path, reference: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export_mlx(reference, tmp_path / "m", dtype="bfloat16")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp"):
            raise OSError("rename failed")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="rename failed"):
        export_mlx(reference, folder, force=True)
    assert names(tmp_path) == ["m"]
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    load_model(folder)


def test_a_full_disk_is_an_oserror(
    tmp_path: Path, reference: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors
    import safetensors.torch

    def full(*_: Any, **__: Any) -> None:
        raise safetensors.SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match=r"model\.safetensors: cannot be written .*No space"):
        export_mlx(reference, tmp_path / "m")
    assert names(tmp_path) == []


def test_an_export_that_was_killed_between_its_renames_is_undone(
    tmp_path: Path, reference: Checkpoint
) -> None:
    """Whether the next command would write to the same folder or reads from it."""
    folder = export_mlx(reference, tmp_path / "m", dtype="bfloat16")

    def kill() -> None:
        (files._beside(folder, "tmp")).mkdir()
        folder.rename(files._beside(folder, "old"))
        assert len(names(tmp_path)) == 2

    kill()
    with pytest.raises(FileExistsError, match="--force replaces it"):
        export_mlx(reference, folder)
    assert names(tmp_path) == ["m"]
    assert ModelConfig.from_file(folder / "config.json").dtype == "bfloat16"
    kill()
    assert read_checkpoint(folder).dims == reference.dims
    assert names(tmp_path) == ["m"]
    kill()
    assert names(export_mlx(reference, folder, force=True)) == FILES
    assert names(tmp_path) == ["m"]
