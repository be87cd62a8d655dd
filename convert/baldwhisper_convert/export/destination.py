"""Checks where an export may be written, and writes its weights file.

Both export formats use it. The folder itself is built with `atomic_folder`, so a failed or
interrupted export leaves nothing behind and an existing model stays until the new one works.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from baldwhisper_mlx.config import CONFIG_FILE, MODEL_TYPE
from baldwhisper_mlx.files import peek_json, restore_folder

EXPORTED_BY = "baldwhisper_mlx_version"
"""Key in the `config.json` of a Hugging Face export that shows what wrote it."""


class ExportWarning(UserWarning):
    """The exported folder is correct, but it lacks a part of its source, or some programs read it
    wrongly or use it differently."""


def check_destination(path: Path, source: str, *, force: bool) -> None:
    """Checks, before any work is done, that an export may write to `path`.

    First brings back what an export that was killed while it replaced `path` left behind.

    Args:
        path: the folder to make.
        source: the checkpoint to export, as the user named it.
        force: whether an existing exported model (or empty folder) may be replaced.

    Raises:
        FileExistsError: it exists and `force` is not set; or it is a file, holds something
            else than an exported model, or contains the source.
    """
    path = path.expanduser().resolve()
    restore_folder(path)
    if not path.exists():
        return
    if not force:
        raise FileExistsError(f"{path}: exists already; --force replaces it")
    # Replacing deletes, so only what an export can have made is replaced.
    if not path.is_dir() or (any(path.iterdir()) and not _is_exported(path)):
        raise FileExistsError(f"{path}: not an exported model, so --force does not replace it")
    origin = Path(source).expanduser()
    if origin.exists() and origin.resolve().is_relative_to(path):
        raise FileExistsError(f"{path}: contains the source {source}, which would be deleted")


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path, kind: str) -> None:
    """Writes a safetensors file with the permissions of other new files.

    Args:
        tensors: contiguous tensors that share no memory.
        path: the file.
        kind: the "format" of its metadata, "mlx" or "pt".

    Raises:
        OSError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # safetensors makes files that only their owner can read, but model folders are shared.
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(dict(tensors), path, metadata={"format": kind})
    except SafetensorError as error:
        raise OSError(f"{path}: cannot be written ({error})") from None
    path.chmod(mode)


def _is_exported(folder: Path) -> bool:
    config = peek_json(folder / CONFIG_FILE)
    return config.get("model_type") == MODEL_TYPE or EXPORTED_BY in config
