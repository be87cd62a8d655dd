"""Finds the weight files of a folder and loads their tensors, whatever the model.

Files are not trusted: PyTorch files are read with `weights_only`, npz files without pickle, and
shards must be in the folder.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from baldwhisper_convert.readers.torch_files import (
    Tensors,
    as_tensors,
    check_archive,
    load_torch_file,
)
from baldwhisper_convert.readers.unsupported import refuse_foreign_folder
from baldwhisper_mlx.files import read_json

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
        ValueError: there is only an adapter (LoRA), or weights of another program.
    """
    for name, kind in _KINDS.items():
        if name in names:
            return WeightFiles(name, kind)
    if any(name in names for name in _ADAPTERS):
        raise ValueError(
            f"{source}: a LoRA adapter, not a model; merge it into its base model "
            "(peft's merge_and_unload), save that, and export the result"
        )
    refuse_foreign_folder(names, source)
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


def _load_safetensors(path: Path) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    # Besides the library's own error: a type that this torch lacks, a shape too large for it.
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path}: damaged safetensors file ({error})") from None


def _load_torch(path: Path) -> Tensors:
    return as_tensors(load_torch_file(path), str(path))


def _load_npz(path: Path) -> Tensors:
    tensors: Tensors = {}
    try:
        check_archive(path)
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                tensors[name] = torch.from_numpy(archive[name])
    # All exceptions: numpy parses a header as Python, and asks for as much memory as it names.
    except Exception as error:
        raise ValueError(
            f"{path}: damaged npz file ({str(error) or type(error).__name__})"
        ) from None
    return tensors
