"""Finds a model folder, checks its files and reads the header of its weights.

Works without MLX, so that a model can be found, checked and described in milliseconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from baldwhisper_mlx.checkpoint.hub import fetch_repository, is_hub_id
from baldwhisper_mlx.config import CONFIG_FILE, PADDING_FILE, VOCABULARY_FILE, WEIGHTS_FILE

MODEL_FILES = (CONFIG_FILE, WEIGHTS_FILE, VOCABULARY_FILE)
"""Files that every model folder must have."""

OPTIONAL_FILES = (PADDING_FILE,)
"""Files of a model folder that are used where they are there; a model is complete without them."""
PADDING_FORMAT = "baldwhisper-padding-1"
"""`format` in the metadata of `padding.safetensors`; see `padding_file.py`."""

COMMUNITY_FILES = ("weights.safetensors", "weights.npz")
"""Weights of a model in mlx-whisper's format; see `mlx_whisper.py`."""

HUB_FILES = (*MODEL_FILES, *OPTIONAL_FILES, *COMMUNITY_FILES)
"""Files that are fetched from a repository of the Hub, as far as it has them."""

BUNDLED = Path(__file__).parent.parent / "assets" / "base-en"
"""The model that comes with the package: English, made from OpenAI's whisper-base."""

_WEIGHTS_SUFFIXES = (".safetensors", ".npz", ".bin", ".pt", ".pth")
_MAX_HEADER = 100 * 2**20


def find_model(path_or_hub_id: str | Path | None = None, revision: str | None = None) -> Path:
    """The folder of a model; a Hub id is downloaded unless the local cache has all its files.

    Args:
        path_or_hub_id: a folder, or a Hugging Face Hub id such as "owner/model". For an id the
            local cache is tried first, without any network call. None for the bundled model.
        revision: branch, tag or commit of a Hub id.

    Raises:
        ValueError: a file where a folder is needed, or a revision of the bundled model.
        FileNotFoundError: no such folder, and not a Hub id that can be downloaded either.
    """
    if path_or_hub_id is None:
        if revision is not None:
            raise ValueError("a revision belongs to a model on the Hub; none is named")
        return BUNDLED
    path = Path(path_or_hub_id).expanduser()
    if path.is_dir():
        return path
    name = str(path_or_hub_id)
    if path.exists():
        raise ValueError(f"{path}: a model is a folder, not a file")
    if isinstance(path_or_hub_id, Path) or not is_hub_id(name):
        raise FileNotFoundError(f"{name}: no such folder, and not a Hub id (owner/name)")
    return fetch_repository(name, patterns=HUB_FILES, is_complete=_is_complete, revision=revision)


def _is_complete(folder: Path) -> bool:
    """Whether a folder has all files of an exported model, or of one in mlx-whisper's format."""
    present = {path.name for path in folder.iterdir() if path.is_file()}
    return present.issuperset(MODEL_FILES) or (
        CONFIG_FILE in present and not present.isdisjoint(COMMUNITY_FILES)
    )


def check_files(folder: Path) -> None:
    """Makes sure that a folder holds one complete model, and no second weights file.

    Raises:
        ValueError: a file is missing, or there is a second weights file; the message names it.
    """
    for name in MODEL_FILES:
        if not (folder / name).is_file():
            raise ValueError(f"{folder}: {name} is missing; `baldwhisper-convert export` makes it")
    extra = [
        path.name
        for path in sorted(folder.iterdir())
        if path.suffix in _WEIGHTS_SUFFIXES and path.name not in (WEIGHTS_FILE, *OPTIONAL_FILES)
    ]
    if extra:  # shards, or another model, which must not be ignored silently
        raise ValueError(
            f"{folder}: weights besides {WEIGHTS_FILE}: {', '.join(extra)}; move them elsewhere"
        )


def read_tensor_header(path: Path) -> dict[str, dict[str, Any]]:
    """Reads dtype, shape and data_offsets of every tensor in a safetensors file.

    The format: https://github.com/huggingface/safetensors#format.

    Raises:
        ValueError: damaged, or of another length than the header says; the message names the
            file.
        FileNotFoundError: there is no such file.
    """
    return _read_header(path)[0]


def read_tensor_metadata(path: Path) -> dict[str, str]:
    """Reads what a safetensors file says about itself: its metadata, empty if it has none.

    Raises:
        ValueError, FileNotFoundError: as for `read_tensor_header`.
    """
    return _read_header(path)[1]


def _read_header(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The entries of the tensors, and the metadata."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _MAX_HEADER):
            raise ValueError(f"{path}: not a safetensors file, or truncated in its header")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            metadata = dict(header.pop("__metadata__", None) or {})
            end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        except (
            ValueError,
            TypeError,
            KeyError,
            IndexError,
            AttributeError,
            RecursionError,
        ) as error:
            raise ValueError(f"{path}: damaged safetensors header ({error!r})") from None
    if size != 8 + length + end:
        raise ValueError(
            f"{path}: truncated or damaged, {size} bytes instead of {8 + length + end}"
        )
    return header, metadata


def check_tensors(
    source: str, expected: dict[str, tuple[int, ...]], shapes: dict[str, tuple[int, ...]]
) -> None:
    """Compares the shapes of all tensors with the expected ones.

    Args:
        source: file or folder they come from, for errors.
        expected: name to shape.
        shapes: those that are there.

    Raises:
        ValueError: tensors are missing, unexpected or of another shape; it names the first five of
            each.
    """
    problems = {
        "missing": sorted(expected.keys() - shapes.keys()),
        "unexpected": sorted(shapes.keys() - expected.keys()),
        "of another shape": [
            f"{name} {list(shapes[name])} instead of {list(expected[name])}"
            for name in sorted(expected.keys() & shapes.keys())
            if shapes[name] != expected[name]
        ],
    }
    parts = [
        f"{what}: {', '.join(names[:5])}" + (f" and {len(names) - 5} more" if names[5:] else "")
        for what, names in problems.items()
        if names
    ]
    if parts:
        raise ValueError(f"{source}: tensors {'; '.join(parts)}")
