"""Fetches repositories of the Hugging Face Hub, from the local cache if it has what is needed.

The runtime and the converter both use it, so it loads neither MLX nor torch, and
huggingface_hub only when a Hub id is given.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from baldwhisper_mlx.terminal import printable

TIMEOUT = 10
"""Seconds to wait for an answer of the Hub, the default of its own package."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


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
    cached = cached_copy(hub_id, revision)
    if cached is not None and is_complete(cached):
        return cached
    names = list_files(hub_id, revision)
    more = [] if more_patterns is None else more_patterns(names)
    return download(hub_id, [*patterns, *more], revision)


def cached_copy(hub_id: str, revision: str | None = None) -> Path | None:
    """The folder that the local cache has of a repository, complete or not; without the network."""
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = huggingface_hub.snapshot_download(hub_id, revision=revision, local_files_only=True)
    except LocalEntryNotFoundError as error:
        # Of newer releases, if any file of the repository is not there, such as its README.md.
        partial = getattr(error, "snapshot_path", None)
        return None if partial is None else Path(partial)
    except HFValidationError:
        return None
    return Path(folder)


def list_files(hub_id: str, revision: str | None = None) -> list[str]:
    """Names of all files of a repository on the Hub.

    To be called before `download`: it does not wait for ever if the Hub does not answer.

    Raises:
        FileNotFoundError: no such repository, or the Hub cannot be reached; the message says why
            and what to do.
    """
    import huggingface_hub

    with download_errors(hub_id, revision):
        info = huggingface_hub.HfApi().model_info(hub_id, revision=revision, timeout=TIMEOUT)
    return [file.rfilename for file in info.siblings or []]


def download(
    hub_id: str, patterns: Sequence[str], revision: str | None = None, *, force: bool = False
) -> Path:
    """Downloads the files of a repository that the local cache lacks.

    Args:
        hub_id: `owner/name`.
        patterns: of the files.
        revision: branch, tag or commit; by default the main branch.
        force: download what the cache has, too, because it is damaged.

    Returns:
        The folder in the cache.

    Raises:
        FileNotFoundError: the download failed; the message says why and what to do.
    """
    import huggingface_hub

    with download_errors(hub_id, revision):
        folder = huggingface_hub.snapshot_download(
            hub_id,
            revision=revision,
            allow_patterns=list(patterns),
            force_download=force,
            etag_timeout=TIMEOUT,
        )
    return Path(folder)


@contextlib.contextmanager
def download_errors(hub_id: str, revision: str | None = None) -> Iterator[None]:
    """Turns what can go wrong on the way to the Hub into one sentence.

    Raises:
        FileNotFoundError: any error in the block; the message names the repository, and says why
            and what to do.
    """
    try:
        yield
    # All exceptions, because releases of huggingface_hub use different HTTP libraries whose
    # errors have no common class.
    except Exception as error:
        raise FileNotFoundError(f"{hub_id}: {_reason(error, revision)}") from error


def _reason(error: Exception, revision: str | None) -> str:
    from huggingface_hub import errors

    chain = _causes(error)
    names = {type(each).__name__ for each in chain}
    if isinstance(error, errors.HFValidationError):
        return "not a Hub id; give owner/model"
    if isinstance(error, errors.GatedRepoError):
        return (
            "access is restricted; accept the terms on its page on the Hub, then log in with "
            "`hf auth login`"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such model on the Hub; if it is private, log in with `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no revision {revision or 'main'} on the Hub"
    if "OfflineModeIsEnabled" in names:
        return (
            "the local cache has no complete copy, and HF_HUB_OFFLINE forbids a download; "
            "unset it, or fetch the model where there is a network"
        )
    if any("Timeout" in name for name in names):
        return (
            f"the local cache has no complete copy, and the Hub did not answer within {TIMEOUT} s; "
            "check the connection and try again"
        )
    answers = [getattr(getattr(each, "response", None), "status_code", None) for each in chain]
    status = next((code for code in answers if code is not None and code >= 400), None)
    if status is not None:
        return f"the local cache has no complete copy, and the Hub answered with error {status}"
    if "JSONDecodeError" in names or "FileMetadataError" in names:
        return (
            "the local cache has no complete copy, and what answered is not the Hub: perhaps a "
            "login page of the network; open a web page in a browser and log in"
        )
    if "LocalEntryNotFoundError" in names or any(isinstance(e, ConnectionError) for e in chain):
        return (
            "the local cache has no complete copy, and there is no network: the Hub cannot be "
            "reached; check the connection and HF_HUB_OFFLINE"
        )
    first = printable(str(error).strip().split("\n")[0]) or type(error).__name__
    return (
        "the local cache has no complete copy, and the download from the Hugging Face Hub failed "
        f"({first})"
    )


def _causes(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from, the last one first."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    return chain
