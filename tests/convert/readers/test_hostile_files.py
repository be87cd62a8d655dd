"""Weights files that claim more than they hold, or are another program's, end in one error."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baldwhisper_convert.readers.formats import read_weights
from baldwhisper_convert.readers.sidecars import stated_in_card
from baldwhisper_convert.readers.tokenizer import find_vocabulary
from baldwhisper_convert.readers.torch_files import as_tensors, load_torch_file
from baldwhisper_convert.readers.weight_files import find_weights
from tests.support import tiny


def refused(path: Path, match: str) -> None:
    with pytest.raises(ValueError, match=match) as error:
        load_torch_file(path)
    assert str(path) in str(error.value)
    assert "weights_only" not in str(error.value)  # torch's advice to load it nevertheless


@pytest.mark.parametrize("start", [b"lmgg", b"GGUF", b"\x1c\0\0\0TFL3"])
def test_files_of_other_programs(start: bytes, tmp_path: Path) -> None:
    path = tmp_path / "ggml-base.bin"
    path.write_bytes(start + bytes(200))
    refused(path, "file, which cannot be converted; give the original checkpoint")


@pytest.mark.parametrize("name", ["ggml-base.bin", "whisper-q4.gguf"])
def test_a_folder_of_whisper_cpp(name: str) -> None:
    with pytest.raises(ValueError, match=r"a/b: has the weights of whisper\.cpp"):
        find_weights([name, "README.md"], "a/b")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("archive", [True, False])
def test_code_in_a_pickle(protocol: int, archive: bool, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "owned"),)

    path = tmp_path / "model.bin"
    if archive:
        torch.save(Payload(), path, pickle_protocol=protocol)
    else:
        path.write_bytes(pickle.dumps(Payload(), protocol=protocol))
    refused(path, "could run code")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"\x80\x02b.", b"\x80\x02\x8a\x00.", b"\x80\x02}q\x00(u."])
def test_damaged_pickles(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.bin: (cannot be read|expected a dictionary)"):
        as_tensors(load_torch_file(path), str(path))


def test_views_of_one_number(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    torch.save({"a": torch.zeros(1).expand(10**6, 10**6)}, path)
    assert path.stat().st_size < 10_000
    with pytest.raises(ValueError, match=r"a has the shape .*only 4 bytes are stored"):
        as_tensors(load_torch_file(path), "x")


def test_tied_tensors_are_views_too(tmp_path: Path) -> None:
    matrix = torch.zeros(4, 3)
    assert as_tensors({"a": matrix, "b": matrix.T, "c": matrix[1:]}, "x").keys() == set("abc")


@pytest.mark.parametrize(
    "tensor", [torch.zeros(2, 2).to_sparse(), torch.zeros(2, device="meta")], ids=["sparse", "meta"]
)
def test_tensors_without_storage(tensor: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected an ordinary tensor"):
        as_tensors({"a": tensor}, "x")


def test_a_compressed_archive(tmp_path: Path) -> None:
    plain, path = io.BytesIO(), tmp_path / "model.bin"
    torch.save({"a": torch.zeros(10**6)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for entry in source.infolist():
            out.writestr(entry.filename, source.read(entry))
    refused(path, r"an archive of \d+ bytes that would become")


def mlx_folder(folder: Path) -> Path:
    folder.mkdir()
    config = vars(tiny.tiny_dims()) | {"model_type": "whisper"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    "shape", ["(10**15,)", "(1000000000000000,)", "(-1,)", "('a',)", "(", "(1e99,)"]
)
def test_headers_of_npz_files(shape: str, tmp_path: Path) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    entry = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(16)
    folder = mlx_folder(tmp_path / "m")
    with zipfile.ZipFile(folder / "weights.npz", "w") as archive:
        archive.writestr("a.npy", entry)
    with pytest.raises(ValueError, match=r"weights\.npz: damaged npz file"):
        read_weights(folder)


def test_a_compressed_npz(tmp_path: Path) -> None:
    folder = mlx_folder(tmp_path / "m")
    np.savez_compressed(folder / "weights.npz", a=np.zeros(10**6, np.float32))
    with pytest.raises(ValueError, match=r"weights\.npz: .*that would become"):
        read_weights(folder)


def test_positions_are_not_computed_for_another_width(tmp_path: Path) -> None:
    """The config may claim 6000 positions of width 5120 for weights of a few bytes."""
    folder = mlx_folder(tmp_path / "m")
    np.savez(folder / "weights.npz", **{"encoder.blocks.0.mlp1.bias": np.zeros(4, np.float32)})
    assert "encoder.positional_embedding" not in read_weights(folder).state


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "vocabulary.txt", "a.tiktoken"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "sparse"])
def test_tokenizers_that_are_no_ordinary_files(name: str, kind: str, tmp_path: Path) -> None:
    """They are neither waited for nor passed over for another vocabulary."""
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        with path.open("wb") as file:
            file.truncate(10**11)
    (tmp_path / "merges.txt").touch()
    with pytest.raises(ValueError, match=rf"{name}: "):
        find_vocabulary(tmp_path, 2014)


def test_a_huge_model_card_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "README.md").open("wb") as file:
        file.write(b"---\nlicense: mit\n---\n")
        assert stated_in_card(tmp_path, "license") is None  # nothing is flushed yet
        file.flush()
        assert stated_in_card(tmp_path, "license") == "mit"
        file.truncate(10**11)
    assert stated_in_card(tmp_path, "license") is None


@pytest.mark.parametrize("n_vocab", [50364, 51904])
def test_sizes_that_no_vocabulary_of_openais_has(n_vocab: int) -> None:
    with pytest.raises(ValueError, match=r"has no tokenizer.*; name its own with --tokenizer"):
        find_vocabulary(None, n_vocab)
