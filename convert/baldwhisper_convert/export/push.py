"""Uploads an exported model to the Hugging Face Hub.

What can be refused is found out before the export, which takes longer: the login, the right to
write for the owner, and a repository that exists already. The token is the one of
huggingface_hub: `HF_TOKEN`, or that of `hf auth login`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from baldwhisper_mlx._version import __version__
from baldwhisper_mlx.checkpoint.hub import is_hub_id
from baldwhisper_mlx.terminal import printable

_LOGIN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"


def check_push(hub_id: str, *, private: bool, force: bool) -> None:
    """Checks that a model may be uploaded; changes nothing on the Hub.

    Args:
        hub_id: `owner/name`.
        private: whether the repository has to be private.
        force: whether an existing repository may get a new version.

    Raises:
        ValueError: not a Hub id, or private is asked for and the repository is public.
        PermissionError: not logged in, or no right to write there.
        FileExistsError: the repository exists and `force` is not set.
        OSError: the Hub cannot be reached.
    """
    if not is_hub_id(hub_id):
        raise ValueError(f"{hub_id}: not a Hub id; give owner/name")
    from huggingface_hub import HfApi

    api, owner = HfApi(), hub_id.split("/")[0]
    with _push_errors(hub_id):
        user = api.whoami()
    _check_rights(user, owner, hub_id)
    with _push_errors(hub_id):
        if not api.repo_exists(hub_id):
            return
        public = not api.model_info(hub_id).private
    if not force:
        raise FileExistsError(f"{hub_id}: exists on the Hub already; --force uploads a new version")
    if private and public:
        raise ValueError(
            f"{hub_id}: is public on the Hub, but --private is given; make it private in its "
            "settings there, or choose another name"
        )


def push(folder: Path, hub_id: str, *, private: bool, force: bool) -> str:
    """Uploads the files of an exported model as one commit.

    Args:
        folder: from `export_mlx` or `export_hf`.
        hub_id: `owner/name`; made if it does not exist.
        private: whether a new repository is private.
        force: whether it may exist; weights of its earlier version that the new one lacks are
            deleted, all other files stay.

    Returns:
        The address of the model's page.

    Raises:
        PermissionError: no right to write there.
        FileExistsError: the repository exists and `force` is not set.
        OSError: the Hub cannot be reached or refused the files; `folder` is complete, and the
            message says so.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with _push_errors(hub_id, f"; the export itself is complete in {folder}"):
        # None leaves the choice to the Hub, where an organization may make all of its own private.
        url = api.create_repo(hub_id, private=private or None, exist_ok=force)
        api.upload_folder(
            repo_id=hub_id,
            folder_path=folder,
            commit_message=f"Export by baldwhisper-mlx {__version__}",
            delete_patterns=["*.safetensors"],
        )
    return str(url)


def _check_rights(user: dict[str, Any], owner: str, hub_id: str) -> None:
    """Makes sure that the token may write, and for this owner."""
    names = [user["name"], *(group["name"] for group in user.get("orgs", []))]
    if owner not in names:
        raise PermissionError(
            f"{hub_id}: you are logged in as {printable(user['name'])}, who cannot upload for "
            f"{owner}; give one of {', '.join(f'{printable(name)}/NAME' for name in names)}, or "
            "log in with another account"
        )
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise PermissionError(f"{hub_id}: your Hub token may only read; {_LOGIN}")


@contextlib.contextmanager
def _push_errors(hub_id: str, state: str = "") -> Iterator[None]:
    """Turns errors of the Hub into one sentence; `state` is what is left, for its end."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
    )

    try:
        yield
    except HFValidationError as error:
        raise ValueError(f"{hub_id}: {_first_line(error)}{state}") from None
    except LocalTokenNotFoundError:
        raise PermissionError(f"{hub_id}: you are not logged in to the Hub; {_LOGIN}") from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status == 401:
            text = f"the Hub does not accept your token; {_LOGIN}"
            raise PermissionError(f"{hub_id}: {text}{state}") from None
        if status == 403:
            text = f"you have no right to write there; {_LOGIN}"
            raise PermissionError(f"{hub_id}: {text}{state}") from None
        if status == 409:
            text = "exists on the Hub already; --force uploads a new version"
            raise FileExistsError(f"{hub_id}: {text}{state}") from None
        raise OSError(
            f"{hub_id}: the Hub refused the upload ({_first_line(error)}){state}"
        ) from None
    # All exceptions, because releases of huggingface_hub use different HTTP libraries whose
    # errors have no common class.
    except Exception as error:
        raise OSError(
            f"{hub_id}: the Hub cannot be reached ({_first_line(error)}); check the connection and "
            f"HF_HUB_OFFLINE{state}"
        ) from error


def _first_line(error: BaseException) -> str:
    return printable(str(error).strip().split("\n")[0]) or type(error).__name__
