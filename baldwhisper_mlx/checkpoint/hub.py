"""Fetches repositories of the Hugging Face Hub, from the local cache if it has what is needed.

The runtime and the converter both use it, so it loads neither MLX nor torch, and
huggingface_hub only when a Hub id is given.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(source: str) -> bool:
    """Whether `source` has the form `owner/name` and not that of a path.

    Example:
        >>> is_hub_id("openai/whisper-base"), is_hub_id("./whisper-base")
        (True, False)
    """
    return _HUB_ID.fullmatch(source) is not None


def fetch_repository(
    hub_id: str,
    *,
    patterns: Sequence[str],
    is_complete: Callable[[Path], bool],
    revision: str | None = None,
    more_patterns: Callable[[list[str]], list[str]] | None = None,
) -> Path:
    """The local folder of a Hub repository; downloads it unless the cache has a complete copy.

    Earlier downloads may have fetched other files of the same repository, so the presence of
    a cached folder is not enough.

    Args:
        hub_id: `owner/name`.
        patterns: file patterns to download.
        is_complete: whether a cached folder has all files that are needed.
        revision: branch, tag or commit; by default the main branch.
        more_patterns: given the names of all files in the repository, returns further patterns
            to download.

    Raises:
        FileNotFoundError: the cache has no complete copy and the download failed.
    """
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    with contextlib.suppress(LocalEntryNotFoundError, HFValidationError):
        cached = huggingface_hub.snapshot_download(hub_id, revision=revision, local_files_only=True)
        if is_complete(Path(cached)):
            return Path(cached)
    wanted = list(patterns)
    if more_patterns is not None:
        with _download_errors(hub_id):
            info = huggingface_hub.HfApi().model_info(hub_id, revision=revision)
        wanted += more_patterns([file.rfilename for file in info.siblings or []])
    with _download_errors(hub_id):
        folder = huggingface_hub.snapshot_download(hub_id, revision=revision, allow_patterns=wanted)
    return Path(folder)


@contextlib.contextmanager
def _download_errors(hub_id: str) -> Iterator[None]:
    try:
        yield
    # All exceptions, because releases of huggingface_hub use different HTTP libraries whose
    # errors have no common class.
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise FileNotFoundError(
            f"{hub_id}: the local cache has no complete copy, and the download from the "
            f"Hugging Face Hub failed ({reason})"
        ) from error
