"""padding.safetensors in a model folder: fetched, described and checked where it is there."""

from __future__ import annotations

import fnmatch
import os
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from click.testing import CliRunner

from baldwhisper_mlx.checkpoint import files
from baldwhisper_mlx.checkpoint.calibrate import write_padding
from baldwhisper_mlx.checkpoint.describe import describe_model, stored_facts
from baldwhisper_mlx.checkpoint.files import (
    MODEL_FILES,
    check_files,
    find_model,
)
from baldwhisper_mlx.checkpoint.load import load_model
from baldwhisper_mlx.checkpoint.tensor_header import read_tensor_header, read_tensor_metadata
from baldwhisper_mlx.cli.main import cli
from baldwhisper_mlx.config import PADDING_FILE
from baldwhisper_mlx.evaluation.hypotheses import fingerprint
from tests.runtime.conftest import tiny_config, tone, write_model


@pytest.fixture(scope="module")
def padded_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_model(tmp_path_factory.mktemp("padded") / "tiny", tiny_config())
    write_padding(folder, [tone(2.5), tone(0.3)], stride=16, tail=30)
    return folder


@pytest.fixture
def folder(padded_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(padded_folder, tmp_path / "copy"))


def test_the_file_is_described_by_its_metadata(folder: Path) -> None:
    path = folder / PADDING_FILE
    assert describe_model(folder)["context"] == "padded (constants of 2 clips, stride 16, tail 30)"
    assert stored_facts(folder)["context"] == describe_model(folder)["context"]
    tensors, metadata = mx.load(str(path), return_metadata=True)
    mx.save_safetensors(str(path), tensors, metadata | {"clips": "5", "tail": "7"})
    result = CliRunner().invoke(cli, ["info", str(folder)])
    assert "padded (constants of 5 clips, stride 16, tail 7)" in result.stdout
    path.unlink()
    assert describe_model(folder)["context"] == "full (always 30 s)"


@pytest.mark.parametrize("metadata", [{}, {"clips": "2", "stride": "x", "tail": "1"}])
def test_bad_metadata_is_an_error(folder: Path, metadata: dict[str, str]) -> None:
    mx.save_safetensors(str(folder / PADDING_FILE), {"keys": mx.zeros(1)}, metadata)
    result = CliRunner().invoke(cli, ["info", str(folder)])
    assert result.exit_code == 1
    assert f"{PADDING_FILE}: bad metadata" in result.stderr


def test_metadata_of_any_file(folder: Path) -> None:
    path = folder / "x.safetensors"
    mx.save_safetensors(str(path), {"a": mx.zeros(3)}, {"b": "c"})
    assert read_tensor_metadata(path) == {"b": "c"}
    assert list(read_tensor_header(path)) == ["a"]
    for header, expected in (
        (b"{}", {}),
        (b'{"__metadata__": null}', {}),
        (b'{"__metadata__": {"b": "c"}}', {"b": "c"}),
    ):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        assert read_tensor_metadata(path) == expected
    header = b'{"__metadata__": 5}'
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match=r"x\.safetensors: damaged safetensors header"):
        read_tensor_metadata(path)


def test_it_is_no_second_weights_file(folder: Path) -> None:
    check_files(folder)
    shutil.copy(folder / PADDING_FILE, folder / "other.safetensors")
    with pytest.raises(ValueError, match=r"weights besides model\.safetensors: other"):
        check_files(folder)


def test_other_constants_are_another_model_to_an_evaluation(folder: Path) -> None:
    """Hypotheses of the model without them, or with others, are not used again."""
    prints = {fingerprint(folder)}
    write_padding(folder, [tone(2.5)], stride=8)
    prints.add(fingerprint(folder))
    (folder / PADDING_FILE).unlink()
    prints.add(fingerprint(folder))
    assert len(prints) == 3


class Hub:
    """`snapshot_download`: copies the wanted files of a repository into a cached folder."""

    def __init__(self, repository: Path, cache: Path) -> None:
        self.repository, self.cache = repository, cache
        self.downloads = 0

    def __call__(self, name: str, **options: Any) -> str:
        if not options.get("local_files_only"):
            self.downloads += 1
            for path in self.repository.iterdir():
                if any(fnmatch.fnmatch(path.name, p) for p in options["allow_patterns"]):
                    shutil.copy(path, self.cache)
        return str(self.cache)


@pytest.fixture
def hub(padded_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    repository = Path(shutil.copytree(padded_folder, tmp_path / "repository"))
    (repository / "README.md").write_text("# model")
    (repository / "optimizer.safetensors").write_bytes(b"large")
    (tmp_path / "cache").mkdir()
    hub = Hub(repository, tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    monkeypatch.setattr(files, "list_files", lambda *_: os.listdir(repository))
    return hub


def test_it_is_downloaded_with_the_model(hub: Hub) -> None:
    loaded = load_model("owner/model")
    assert {path.name for path in hub.cache.iterdir()} == {*MODEL_FILES, PADDING_FILE}
    assert loaded.model.padding is not None
    find_model("owner/model")
    assert hub.downloads == 2  # the config, then the rest


def test_a_model_without_it_is_complete(hub: Hub) -> None:
    (hub.repository / PADDING_FILE).unlink()
    assert load_model("owner/model").model.padding is None
    find_model("owner/model")
    assert hub.downloads == 2  # the config, then the rest
