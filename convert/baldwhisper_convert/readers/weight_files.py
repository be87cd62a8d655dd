"""Finds the weight files of a folder and loads their tensors, whatever the model.

Files are not trusted: PyTorch files are read with `weights_only`, npz files without pickle, and
shards must be in the folder.
"""

from __future__ import annotations

import pickle
import zipfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baldwhisper_mlx.files import read_json

Tensors = dict[str, torch.Tensor]

# In the order of preference: formats without pickle first, single files before shards.
_KINDS = {
    "model.safetensors": "safetensors",
    "model.safetensors.index.json": "safetensors",
    "weights.safetensors": "safetensors",
    "weights.npz": "npz",
    "pytorch_model.bin": "torch",
    "pytorch_model.bin.index.json": "torch",
    "model.bin": "ctranslate2",
}
_ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class WeightFiles:
    """The weights file of a folder, or the index of its shards, and its format."""

    name: str
    kind: str

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns of the files that contain these weights."""
        if not self.name.endswith(".index.json"):
            return (self.name,)
        stem, suffix = self.name.removesuffix(".index.json").split(".")
        return (self.name, f"{stem}-*-of-*.{suffix}")

    def paths(self, folder: Path) -> list[Path]:
        """The files with tensors: the one file, or the shards that the index lists.

        Raises:
            ValueError: the index is not a list of files in this folder.
        """
        if not self.name.endswith(".index.json"):
            return [folder / self.name]
        index = read_json(folder / self.name)
        shards = index.get("weight_map") if isinstance(index, dict) else None
        names = list(shards.values()) if isinstance(shards, dict) else []
        if not names or any(not isinstance(n, str) or Path(n).name != n for n in names):
            raise ValueError(f"{folder / self.name}: no `weight_map` of files in this folder")
        return [folder / name for name in sorted(set(names))]

    def missing(self, folder: Path) -> list[Path]:
        """Those of `paths` that do not exist."""
        return [path for path in self.paths(folder) if not path.is_file()]


def find_weights(names: Collection[str], source: str) -> WeightFiles:
    """Picks the weights among the file names of a folder or repository.

    Args:
        names: file names, of the top level.
        source: the folder or repository, for the error.

    Raises:
        FileNotFoundError: none is there.
        ValueError: there is only an adapter (LoRA).
    """
    for name, kind in _KINDS.items():
        if name in names:
            return WeightFiles(name, kind)
    if any(name in names for name in _ADAPTERS):
        raise ValueError(
            f"{source}: a LoRA adapter, not a model; merge it into its base model "
            "(peft's merge_and_unload), save that, and export the result"
        )
    raise FileNotFoundError(f"{source}: no weights; expected one of {', '.join(_KINDS)}")


def load_tensors(files: WeightFiles, folder: Path) -> Tensors:
    """Loads all tensors, on the CPU, under the names and in the types they are stored in.

    Raises:
        FileNotFoundError: a shard is missing.
        ValueError: a file is damaged or of another format than its name, or shards overlap.
    """
    missing = files.missing(folder)
    if missing:
        raise FileNotFoundError(f"{missing[0]}: missing, but {files.name} lists it")
    loaders = {"safetensors": _load_safetensors, "npz": _load_npz, "torch": _load_torch}
    tensors: Tensors = {}
    for path in files.paths(folder):
        part = loaders[files.kind](path)
        twice = tensors.keys() & part.keys()
        if twice:
            raise ValueError(f"{path}: {min(twice)} is also in another shard")
        tensors |= part
    return tensors


def load_torch_file(path: Path) -> Any:
    """Unpickles a PyTorch file, tensors and plain containers only.

    Raises:
        ValueError: damaged, or it holds objects that would run code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{path}: cannot be read as a PyTorch file ({reason})") from None


def as_tensors(raw: Any, source: str) -> Tensors:
    """Checks that an unpickled object is tensors by name.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(raw, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in raw.items()
    ):
        raise ValueError(f"{source}: expected a dictionary of tensors")
    return dict(raw)


def _load_safetensors(path: Path) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged safetensors file ({error})") from None


def _load_torch(path: Path) -> Tensors:
    return as_tensors(load_torch_file(path), str(path))


def _load_npz(path: Path) -> Tensors:
    tensors: Tensors = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                tensors[name] = torch.from_numpy(archive[name])
    except (zipfile.BadZipFile, zlib.error, ValueError, TypeError, OSError, EOFError) as error:
        raise ValueError(f"{path}: damaged npz file ({error})") from None
    return tensors
