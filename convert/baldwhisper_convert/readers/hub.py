"""Paths and hub ids: where a checkpoint is on this machine, fetched if it must be.

The local cache is asked first, so a model that is there needs no network.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(source: str) -> bool:
    """Whether `source` reads as `owner/name` rather than as a path.

    Example:
        >>> is_hub_id("openai/whisper-base"), is_hub_id("./whisper-base")
        (True, False)
    """
    return _HUB_ID.fullmatch(source) is not None


def fetch(
    source: str,
    *,
    allow: Sequence[str],
    revision: str | None = None,
    complete: Callable[[Path], bool] | None = None,
    choose: Callable[[list[str]], list[str]] | None = None,
) -> Path:
    """Resolves a path or hub id to a local path.

    Args:
        source: an existing file or folder, or a hub id `owner/name`.
        allow: file patterns to download.
        revision: branch, tag or commit on the hub.
        complete: whether a cached folder has what is needed; any does if None.
        choose: given the repository's file names, further patterns to download.

    Raises:
        FileNotFoundError: no such path, or the hub does not have it or cannot be reached.
        ValueError: `revision` given with a local path.
    """
    path = Path(source).expanduser()
    if path.exists():
        if revision is not None:
            raise ValueError(f"{source}: --revision is for hub ids, this is a local path")
        return path
    if not is_hub_id(source):
        raise FileNotFoundError(f"{source}: no such file or folder, and not a hub id (owner/name)")
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        cached = Path(
            huggingface_hub.snapshot_download(source, revision=revision, local_files_only=True)
        )
        if complete is None or complete(cached):
            return cached
    except (LocalEntryNotFoundError, HFValidationError):
        pass
    patterns = list(allow)
    if choose is not None:
        patterns += choose(_file_names(source, revision))
    with _hub_errors(source):
        return Path(
            huggingface_hub.snapshot_download(source, revision=revision, allow_patterns=patterns)
        )


def _file_names(source: str, revision: str | None) -> list[str]:
    import huggingface_hub

    with _hub_errors(source):
        info = huggingface_hub.HfApi().model_info(source, revision=revision)
    return [file.rfilename for file in info.siblings or []]


@contextlib.contextmanager
def _hub_errors(source: str) -> Iterator[None]:
    try:
        yield
    # Everything, because the hub's releases use different HTTP libraries, whose errors have
    # nothing in common; to the user they all mean that the model could not be had.
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise FileNotFoundError(
            f"{source}: not in the local cache, and not to be had from the hub ({reason})"
        ) from None
