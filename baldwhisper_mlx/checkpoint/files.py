"""Finds a model folder and checks that its files are there.

Works without MLX, so that a model can be found, checked and described in milliseconds.
"""

from __future__ import annotations

import os
from pathlib import Path

from baldwhisper_mlx.bounds import (
    MOST_CONFIG_BYTES,
    MOST_VOCABULARY_BYTES,
    MOST_WEIGHT_BYTES,
    check_file,
)
from baldwhisper_mlx.checkpoint.hub import cached_copy, download, is_hub_id, list_files
from baldwhisper_mlx.checkpoint.kind import KINDS, kind_of, why_not
from baldwhisper_mlx.checkpoint.tensor_header import read_npz_header, read_tensor_header
from baldwhisper_mlx.config import CONFIG_FILE, PADDING_FILE, VOCABULARY_FILE, WEIGHTS_FILE

MODEL_FILES = (CONFIG_FILE, WEIGHTS_FILE, VOCABULARY_FILE)
"""Files that every model folder must have."""

OPTIONAL_FILES = (PADDING_FILE,)
"""Files of a model folder that are used where they are there; a model is complete without them."""
PADDING_FORMAT = "baldwhisper-padding-1"
"""`format` in the metadata of `padding.safetensors`; see `padding_file.py`."""

COMMUNITY_FILES = (WEIGHTS_FILE, "weights.safetensors", "weights.npz")
"""Weights of a model in mlx-whisper's format, newest name first; see `mlx_whisper.py`."""

HUB_FILES = (*MODEL_FILES, *OPTIONAL_FILES, *COMMUNITY_FILES[1:])
"""Files that are fetched from a repository of the Hub, as far as it has them."""

BUNDLED = Path(__file__).parent.parent / "assets" / "tiny-en"
"""The model that comes with the package: English, made from OpenAI's whisper-tiny.en."""

_WEIGHTS_SUFFIXES = (".safetensors", ".npz", ".bin", ".pt", ".pth")
_BYTES = {
    CONFIG_FILE: MOST_CONFIG_BYTES,
    WEIGHTS_FILE: MOST_WEIGHT_BYTES,
    VOCABULARY_FILE: MOST_VOCABULARY_BYTES,
}


def find_model(path_or_hub_id: str | Path | None = None, revision: str | None = None) -> Path:
    """The folder of a model; a Hub id is downloaded unless the local cache has all its files.

    Args:
        path_or_hub_id: a folder, or a Hugging Face Hub id such as "owner/model". For an id the
            local cache is tried first, without any network call. None for the bundled model.
        revision: branch, tag or commit of a Hub id.

    Raises:
        ValueError: a file where a folder is needed, a revision of a folder or of the bundled
            model, or a repository of another kind of model, whose weights are not downloaded.
        FileNotFoundError: no such folder, and not a Hub id that can be downloaded either.
    """
    if path_or_hub_id is None:
        if revision is not None:
            raise ValueError("a revision belongs to a model on the Hub; none is named")
        return BUNDLED
    name = str(path_or_hub_id)
    try:
        path = Path(path_or_hub_id).expanduser()
        is_there = path.exists()
    except (RuntimeError, ValueError):  # ~ of an unknown user; a null character
        raise FileNotFoundError(f"{name}: no such folder") from None
    if is_there and revision is not None:
        raise ValueError(f"{path}: --revision is for models on the Hub, but this is a local folder")
    if path.is_dir():
        return path
    if is_there:
        raise ValueError(
            f"{path}: a model is a folder, not a file; if it is a Whisper checkpoint, convert it: "
            f"baldwhisper-convert export {path} FOLDER"
        )
    if isinstance(path_or_hub_id, Path) or not is_hub_id(name):
        raise FileNotFoundError(f"{name}: no such folder, and not a Hub id (owner/name)")
    cached = cached_copy(name, revision)
    if cached is not None:
        kind = kind_of(cached)
        if kind == "transformers":  # without asking the Hub, which may be out of reach
            raise ValueError(why_not(name, kind))
        if kind in KINDS and not unusable_files(cached):
            return cached
    return fetch_model(name, revision)


def fetch_model(hub_id: str, revision: str | None = None) -> Path:
    """Downloads what the cache lacks of a model, its config first.

    The config says whether the rest, which is large, is of any use. Files that an interrupted
    download left incomplete are downloaded again.

    Args:
        hub_id: `owner/name`.
        revision: branch, tag or commit.

    Raises:
        ValueError: not a model that the runtime reads; only the config was downloaded.
        FileNotFoundError: the download failed, or the repository lacks files.
    """
    names = list_files(hub_id, revision)
    if CONFIG_FILE not in names:
        raise ValueError(why_not(hub_id, "other"))
    folder = download(hub_id, [CONFIG_FILE], revision)
    kind = kind_of(folder)
    if kind not in KINDS:
        raise ValueError(why_not(hub_id, kind))
    wanted = [name for name in HUB_FILES if name in names]
    if kind == "mlx-whisper":  # only one of the weights files that a repository may have
        weights = [name for name in COMMUNITY_FILES if name in names]
        wanted = [name for name in wanted if name not in weights[1:]]
    folder = download(hub_id, wanted, revision)
    damaged = [name for name in unusable_files(folder) if os.path.lexists(folder / name)]
    if damaged:
        folder = download(hub_id, damaged, revision, force=True)
    return folder


def unusable_files(folder: Path) -> dict[str, str]:
    """Files of a model that are missing, cut off or damaged; empty if it is complete.

    Args:
        folder: of one of `KINDS`.

    Returns:
        Name of the file to what is wrong with it.
    """
    needed = [CONFIG_FILE]
    if kind_of(folder) == "mlx-whisper":
        weights = next((n for n in COMMUNITY_FILES if os.path.lexists(folder / n)), None)
        if weights is None:
            names = ", ".join(COMMUNITY_FILES)
            return {COMMUNITY_FILES[0]: f"{folder}: has none of {names}"}
        needed.append(weights)
    else:
        needed += [WEIGHTS_FILE, VOCABULARY_FILE]
    needed += [name for name in OPTIONAL_FILES if os.path.lexists(folder / name)]
    problems = {name: _problem(folder / name) for name in needed}
    return {name: problem for name, problem in problems.items() if problem is not None}


def _problem(path: Path) -> str | None:
    try:
        check_file(path, _BYTES.get(path.name, MOST_WEIGHT_BYTES))
        if path.suffix == ".safetensors":
            read_tensor_header(path)
        elif path.suffix == ".npz":
            read_npz_header(path)
    except (OSError, ValueError) as error:
        return str(error)
    return None


def check_files(folder: Path) -> None:
    """Makes sure that a folder holds one complete model, and no second weights file.

    Raises:
        ValueError: a file is missing, too large or no regular file, there is a second weights
            file, or the folder holds another kind of model; the message names it.
    """
    kind = kind_of(folder)
    if kind == "transformers":
        raise ValueError(why_not(str(folder), kind))
    for name in MODEL_FILES:
        try:
            check_file(folder / name, _BYTES[name])
        except FileNotFoundError:
            raise ValueError(
                f"{folder}: {name} is missing; `baldwhisper-convert export` makes it"
            ) from None
    extra = [
        path.name
        for path in sorted(folder.iterdir())
        if path.suffix in _WEIGHTS_SUFFIXES and path.name not in (WEIGHTS_FILE, *OPTIONAL_FILES)
    ]
    if extra:  # shards, or another model, which must not be ignored silently
        raise ValueError(
            f"{folder}: weights besides {WEIGHTS_FILE}: {', '.join(extra)}; move them elsewhere"
        )
