"""Small sources that claim to be huge are refused at once and in little memory."""

from __future__ import annotations

import io
import json
import re
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from tests.support import tiny
from tests.support.little_memory import errors_of


def layers(folder: Path) -> None:
    tiny.edit_json(folder / "config.json", encoder_layers=1_048_575, decoder_layers=1_048_575)


def billions(folder: Path) -> None:
    """Each dimension by itself may be that large."""
    tiny.edit_json(
        folder / "config.json", d_model=5120, encoder_layers=128, decoder_layers=128,
        encoder_attention_heads=80, decoder_attention_heads=80,
    )  # fmt: skip


def strides(folder: Path) -> None:
    """37 kB of views whose stride is 0, with the shapes that the config asks for."""
    tiny.edit_json(folder / "config.json", d_model=4096)
    state = load_file(folder / "model.safetensors")
    sizes = {64: 4096, 256: 4 * 4096}
    views = {
        name: torch.zeros(1, dtype=torch.float16).expand([sizes.get(n, n) for n in tensor.shape])
        for name, tensor in state.items()
    }
    (folder / "model.safetensors").unlink()
    torch.save(views, folder / "pytorch_model.bin")


def compressed(folder: Path) -> None:
    """A gigabyte of zeros in an archive of a megabyte."""
    plain = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, plain)
    (folder / "model.safetensors").unlink()
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for entry in source.infolist():
            archive.writestr(entry.filename, source.read(entry))
        with archive.open("archive/data/1", "w", force_zip64=True) as more:
            for _ in range(1024):
                more.write(bytes(2**20))


def mlx(folder: Path, **changes: int) -> None:
    (folder / "model.safetensors").unlink()
    config = vars(tiny.tiny_dims()) | {"model_type": "whisper"} | changes
    (folder / "config.json").write_text(json.dumps(config))


def header(folder: Path) -> None:
    mlx(folder)
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }".ljust(117)
    entry = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text.encode() + b"\n" + bytes(16)
    with zipfile.ZipFile(folder / "weights.npz", "w") as archive:
        archive.writestr("decoder.blocks.0.mlp1.bias.npy", entry)


def positions(folder: Path) -> None:
    """The table of positions is not stored but computed."""
    mlx(folder, n_audio_ctx=200_000, n_audio_state=10_000)
    np.savez(folder / "weights.npz", **{"decoder.blocks.0.mlp1.bias": np.zeros(4, np.float32)})


def notimestamps(folder: Path) -> None:
    raw = json.loads((folder / "tokenizer.json").read_text())
    stamp = re.compile(r"<\|\d+\.\d\d\|>")
    tokens = [token for token in raw["added_tokens"] if not stamp.fullmatch(token["content"])]
    for token in tokens:
        if token["content"] == "<|notimestamps|>":
            token["id"] = 10**10
    (folder / "tokenizer.json").write_text(json.dumps(raw | {"added_tokens": tokens}))


SOURCES: dict[str, tuple[Callable[[Path], None], str]] = {
    "layers": (layers, r"config\.json: bad value for encoder_layers: 1048575"),
    "billions": (billions, r"billion parameters|bad value"),
    "strides": (strides, r"pytorch_model\.bin: .* bytes are stored for it"),
    "compressed": (compressed, r"pytorch_model\.bin: an archive of \d+ bytes that would become"),
    "header": (header, r"weights\.npz: damaged npz file"),
    "positions": (positions, r"config\.json: bad value for n_audio_ctx: 200000"),
    "notimestamps": (notimestamps, r"tokenizer\.json: token .*notimestamps.* has the id 10000"),
}


@pytest.fixture(scope="module")
def errors(
    hf_folder: Path, reference: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str | None]:
    """What reading each of them raises, in one process with little memory."""
    root = tmp_path_factory.mktemp("hostile")
    for name, (change, _) in SOURCES.items():
        change(Path(shutil.copytree(hf_folder, root / name)))
    for path in root.rglob("*"):
        assert not path.is_file() or path.stat().st_size < 3 * 2**20
    return errors_of(["baldwhisper_convert.readers.read:read_checkpoint"], hf_folder, root)


@pytest.mark.parametrize("name", SOURCES)
def test_it_is_refused_by_name(errors: dict[str, str | None], name: str) -> None:
    error = errors[f"{name} read_checkpoint"]
    assert error is not None
    assert re.search(SOURCES[name][1], error), error
    assert f"/{name}/" in error
