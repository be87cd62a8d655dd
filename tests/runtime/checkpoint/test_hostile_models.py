"""Hostile model folders are refused at once: by name, in little memory, before MLX sees them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from baldwhisper_mlx.checkpoint.load import load_model
from baldwhisper_mlx.cli.main import cli
from tests.runtime.conftest import tiny_config, write_model
from tests.support.hostile_models import MODELS, languages
from tests.support.little_memory import errors_of

READERS = (
    "baldwhisper_mlx.checkpoint.load:load_model",
    "baldwhisper_mlx.checkpoint.describe:describe_model",
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config(embedding_rank=8, embedding_dense_rows=3)
    return write_model(tmp_path_factory.mktemp("sound") / "model", config)


@pytest.fixture(scope="module")
def errors(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What loading and describing each of them raises, in one process with little memory."""
    root = tmp_path_factory.mktemp("hostile")
    for name, (change, _) in MODELS.items():
        change(Path(shutil.copytree(sound, root / name.replace(": ", "-"))))
    return errors_of(READERS, sound, root)


@pytest.mark.parametrize("name", MODELS)
def test_it_is_refused_by_name(errors: dict[str, str | None], name: str) -> None:
    folder = name.replace(": ", "-")
    error = errors[f"{folder} load_model"]
    assert error is not None
    assert re.search(MODELS[name][1], error), error
    assert folder in error
    assert error.isprintable()
    # What needs no values of tensors and no vocabulary is seen by `baldwhisper info` as well.
    if not name.startswith(("dense_ids", "vocabulary: empty", "vocabulary: negative")):
        assert errors[f"{folder} describe_model"] == error


def test_the_command_prints_no_escape_sequence(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of a model, nor of its path."""
    folder = Path(shutil.copytree(sound, tmp_path / "a\x1b[31mb"))
    for arguments in (["info", str(folder)], ["info", f"{folder}\x1b"]):
        result = CliRunner().invoke(cli, arguments)
        assert r"a\x1b[31mb" in result.output
        assert "\x1b" not in result.output
    languages("<|\x1b[2J|>")(folder)
    result = CliRunner().invoke(cli, ["transcribe", "-m", str(folder), __file__])
    assert result.exit_code == 1
    assert r"\x1b[2J" in result.output
    assert "\x1b" not in result.output


def test_a_folder_of_transformers_is_to_be_converted(tmp_path: Path) -> None:
    raw = {"model_type": "whisper", "d_model": 512, "encoder_layers": 6}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="baldwhisper-convert export") as caught:
        load_model(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_file_instead_of_a_folder(sound: Path) -> None:
    with pytest.raises(ValueError, match=r"a model is a folder, not a file; .* convert it"):
        load_model(sound / "model.safetensors")


@pytest.mark.parametrize("name", ["~nobody-of-that-name/model", "a\0b", "x" * 5000])
def test_names_that_no_folder_can_have(name: str) -> None:
    with pytest.raises((FileNotFoundError, OSError)) as caught:
        load_model(name)
    assert str(caught.value)
