"""Loads PyTorch's pickled files, which are not trusted: no code runs, nothing is blown up.

`weights_only` refuses everything but tensors and plain containers. What it lets through may still
claim far more than the file holds: compressed archives, and views with a stride of 0.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from baldwhisper_convert.readers.unsupported import refuse_other_format

Tensors = dict[str, torch.Tensor]

MOST_EXPANSION = 50
"""Largest size of an archive's content over that of the file. Weights do not compress well; zip
reaches 1000 on zeros."""

_REFUSED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def load_torch_file(path: Path) -> Any:
    """Unpickles a PyTorch file, tensors and plain containers only.

    Raises:
        ValueError: damaged, another program's, or it holds objects that could run code.
    """
    refuse_other_format(path)
    check_archive(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # All exceptions: torch's unpickler follows the file's instructions and raises what they cause.
    except Exception as error:
        raise ValueError(f"{path}: cannot be read as a PyTorch file ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    """Why a file was refused, in one line and without torch's advice to trust it."""
    text = str(error)
    refused = _REFUSED_GLOBAL.search(text)
    if refused is not None:
        return (
            f"it holds {refused[1]}, not only tensors, and loading that could run code; save the "
            "weights alone, best as safetensors"
        )
    if "weights_only" in text or not text.strip():
        return "damaged, or it holds more than tensors, and loading that could run code"
    return text.strip().split("\n")[0]


def as_tensors(raw: Any, source: str) -> Tensors:
    """Checks that an unpickled object is tensors by name, and that they are really stored.

    Raises:
        ValueError: it is something else, or a tensor has more numbers than its storage.
    """
    if not isinstance(raw, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in raw.items()
    ):
        raise ValueError(f"{source}: expected a dictionary of tensors")
    for name, tensor in raw.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise ValueError(f"{source}: {name} is {tensor.layout}, expected an ordinary tensor")
        stored = tensor.untyped_storage().nbytes()
        if tensor.numel() * tensor.element_size() > stored:
            raise ValueError(
                f"{source}: {name} has the shape {list(tensor.shape)}, but only {stored} bytes are "
                "stored for it; the file is damaged"
            )
    return dict(raw)


def check_archive(path: Path) -> None:
    """Makes sure that an archive, if it is one, does not hold far more than its size.

    Raises:
        ValueError: it does, or its table of contents is damaged.
    """
    try:
        # It raises, too, for an archive that says it is one of several.
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            content = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise ValueError(f"{path}: damaged archive ({error})") from None
    size = path.stat().st_size
    if content > MOST_EXPANSION * size:
        raise ValueError(
            f"{path}: an archive of {size} bytes that would become {content}; weights do not "
            "compress like that, so it is refused"
        )
