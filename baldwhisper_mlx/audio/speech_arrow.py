"""Labelled speech in Arrow and parquet files, read by the package `datasets`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from baldwhisper_mlx.audio.speech_lists import Row


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` of a Dataset or DatasetDict made a folder."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def reason(error: BaseException) -> str:
    """The first line of an error, or of the one that it was raised from, as deep as there is one.

    Audio in the files of a Hub repository is encoded by torchcodec even where nothing is decoded.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if "torchcodec" in line:
        line += "; or download the repository, and give its folder"
    return line


def read_arrow(
    source: str, what: Path | tuple[str, str | None], split: str, streaming: bool
) -> Sequence[Row]:
    """Rows of Arrow data. Columns of audio stay encoded.

    Args:
        source: name of the data, for messages.
        what: a local path; or a Hub id, or folder, and a config.
        split: of the data; ignored for a file and for data without splits.
        streaming: read Hub data without downloading it first.

    Raises:
        FileNotFoundError: no such dataset.
        ValueError: data that cannot be read, or has no such split.
        ModuleNotFoundError: the package `datasets` is not installed.
    """
    try:
        from datasets import Audio, DatasetDict, load_dataset, load_from_disk
    except ModuleNotFoundError:
        kind = "data in Arrow or parquet files" if isinstance(what, Path) else (
            "no such folder; a Hub dataset"
        )  # fmt: skip
        raise ModuleNotFoundError(
            f"{source}: {kind} needs the package datasets: pip install datasets"
        ) from None

    data: Any
    try:
        if not isinstance(what, Path):
            data = load_dataset(*what, split=split, streaming=streaming)
        elif what.is_file():
            files = {"data": str(what)}
            data = load_dataset("parquet", data_files=files, split="data", streaming=streaming)
        elif is_saved(what):
            data = load_from_disk(str(what))
            if isinstance(data, DatasetDict):
                if split not in data:
                    raise ValueError(f"no split {split!r}; it has {', '.join(data)}")
                data = data[split]
        else:
            data = load_dataset(str(what), None, split=split, streaming=streaming)
        for name, feature in (getattr(data, "features", None) or {}).items():
            if isinstance(feature, Audio):
                data = data.cast_column(name, Audio(decode=False))
    except FileNotFoundError:
        raise
    except Exception as error:  # of its own kinds, and of those of a dozen other packages
        on_hub = not isinstance(what, Path) and not Path(what[0]).is_dir()
        kind = "no such folder, and cannot be read as a Hub dataset" if on_hub else (
            "cannot be read as a dataset"
        )  # fmt: skip
        raise ValueError(f"{source}: {kind} ({reason(error)})") from error
    return data  # type: ignore[no-any-return]
