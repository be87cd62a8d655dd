"""One tiny model in every source format, built once per session."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.readers.read import read_checkpoint
from tests.support import tiny, tiny_vocabulary


@pytest.fixture(scope="session")
def hf_model() -> Any:
    return tiny.tiny_hf_model()


@pytest.fixture(scope="session")
def hf_folder(tmp_path_factory: pytest.TempPathFactory, hf_model: Any) -> Path:
    return tiny.tiny_hf_folder(tmp_path_factory.mktemp("hf") / "whisper-tiny-random", hf_model)


@pytest.fixture(scope="session")
def reference(hf_folder: Path) -> Checkpoint:
    """The Hugging Face folder as read; test_formats.py proves it against two other models."""
    return read_checkpoint(hf_folder)


@pytest.fixture(scope="session")
def openai_pt(tmp_path_factory: pytest.TempPathFactory, reference: Checkpoint) -> Path:
    path = tmp_path_factory.mktemp("openai") / "tiny.pt"
    return tiny.tiny_openai_pt(path, reference.dims, reference.state)


@pytest.fixture(scope="session")
def mlx_folder(tmp_path_factory: pytest.TempPathFactory, reference: Checkpoint) -> Path:
    folder = tmp_path_factory.mktemp("mlx") / "tiny-mlx"
    return tiny.tiny_mlx_folder(folder, reference.dims, reference.state)


@pytest.fixture(scope="session")
def ctranslate2_folders(
    tmp_path_factory: pytest.TempPathFactory, hf_folder: Path
) -> dict[str, Path]:
    """CTranslate2's own conversions of the Hugging Face folder, by quantization."""
    from ctranslate2.converters import TransformersConverter

    root = tmp_path_factory.mktemp("ct2")
    folders = {}
    for quantization in ("float32", "float16", "bfloat16", "int8", "int8_float16", "int16"):
        folder = root / quantization
        converter = TransformersConverter(str(hf_folder), copy_files=["tokenizer.json"])
        converter.convert(str(folder), quantization=quantization)
        # transformers 5 hides the heads from the converter, which then writes the default ones.
        heads = [list(pair) for pair in tiny.ALIGNMENT_HEADS]
        tiny.edit_json(folder / "config.json", alignment_heads=heads)
        folders[quantization] = folder
    return folders


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return tiny_vocabulary.tiny_tokenizer_json(tmp_path / "tokenizer.json")


@pytest.fixture
def hf_copy(tmp_path: Path, hf_folder: Path) -> Path:
    """A copy of the Hugging Face folder that a test may damage."""
    return Path(shutil.copytree(hf_folder, tmp_path / "copy"))
