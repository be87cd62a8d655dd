"""Resolves the argument of a command, a path or a Hub id, to a local path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from baldwhisper_mlx.checkpoint.hub import fetch_repository, is_hub_id
from baldwhisper_mlx.files import restore_folder


def fetch(
    source: str,
    *,
    patterns: Sequence[str],
    is_complete: Callable[[Path], bool],
    revision: str | None = None,
    more_patterns: Callable[[list[str]], list[str]] | None = None,
) -> Path:
    """The local path of a file, folder or Hub id.

    Args:
        source: an existing file or folder, or a Hub id `owner/name`.
        patterns: see `fetch_repository`, as the other arguments.
        is_complete: whether a cached folder has all files that are needed.
        revision: branch, tag or commit of a Hub id.
        more_patterns: given the names of all files in the repository, returns further patterns.

    Raises:
        FileNotFoundError: no such path, and not a Hub id that can be downloaded either.
        ValueError: `revision` given with a local path.
    """
    path = Path(source).expanduser()
    if not path.exists():
        restore_folder(path.absolute())  # perhaps a killed export was just replacing it
    if path.exists():
        if revision is not None:
            raise ValueError(f"{source}: --revision is for Hub ids, but this is a local path")
        return path
    if not is_hub_id(source):
        raise FileNotFoundError(f"{source}: no such file or folder, and not a Hub id (owner/name)")
    return fetch_repository(
        source,
        patterns=patterns,
        is_complete=is_complete,
        revision=revision,
        more_patterns=more_patterns,
    )
