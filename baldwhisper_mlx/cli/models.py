"""The command `baldwhisper models`: which models are on this machine; fetching and deleting them.

Models from the Hugging Face Hub lie in the Hub's own cache, which other programs share. Only models
that this runtime can read are listed by default, and nothing else is ever deleted. Only click is
imported at the top; the rest loads when a command runs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from baldwhisper_mlx.terminal import message_of, printable

if TYPE_CHECKING:
    from huggingface_hub import CachedRepoInfo, HFCacheInfo

BUNDLED_ID = "(bundled)"


@dataclass(frozen=True)
class LocalModel:
    """One revision of a model on this machine.

    `kind` is what `kind_of` says. `bytes` is the size on disk; `date` the day on which its
    files last changed, ISO 8601 in UTC. The bundled model has neither revision nor date.
    """

    id: str
    kind: str
    complete: bool
    bytes: int
    revision: str | None
    refs: tuple[str, ...]
    date: str | None
    path: str


@click.group()
def models() -> None:
    """List, fetch and delete models from the Hugging Face Hub."""


@models.command("list")
@click.option("--all", "everything", is_flag=True, help="Also models that baldwhisper cannot run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def list_models(everything: bool, as_json: bool) -> None:
    """List the models on this machine: the bundled one and those in the Hub's cache."""
    from baldwhisper_mlx.checkpoint.kind import KINDS

    rows = [bundled_model(), *cached_models()]
    rows = [row for row in rows if everything or row.kind in KINDS]
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    table = [("MODEL", "SIZE", "REVISION", "DATE", "KIND")]
    for row in rows:
        names = ", ".join(row.refs)
        commit = row.revision[:8] if row.revision else "-"
        table.append(
            (
                row.id,
                _megabytes(row.bytes),
                f"{commit} ({names})" if names else commit,
                row.date or "-",
                row.kind if row.complete else f"{row.kind}, incomplete",
            )
        )
    widths = [max(len(printable(cell)) for cell in column) for column in zip(*table, strict=True)]
    for line in table:
        cells = (f"{printable(cell):<{width}}" for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@models.command()
@click.argument("model_id", metavar="ID")
@click.option("--revision", help="Branch, tag or commit; by default the main branch.")
def pull(model_id: str, revision: str | None) -> None:
    """Fetch the model ID, such as owner/model, from the Hugging Face Hub into its cache.

    Only the files that baldwhisper needs are fetched. Files that are there already are kept.
    """
    from baldwhisper_mlx.checkpoint.files import fetch_model

    try:
        folder = fetch_model(model_id, revision)
    except (OSError, ValueError) as error:
        raise click.ClickException(message_of(error)) from None
    problem = incomplete(folder)
    if problem is not None:
        raise click.ClickException(f"{model_id}: {problem}")
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    named = f"--model {model_id}" + (f" --revision {revision}" if revision else "")
    click.echo(f"{model_id}: complete, {_megabytes(size)} in {folder}")
    click.echo(f"Use it: baldwhisper transcribe talk.mp3 {named}")


@models.command()
@click.argument("model_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask before deleting.")
def rm(model_id: str, yes: bool) -> None:
    """Delete the model ID, all its revisions, from the Hub's cache."""
    from baldwhisper_mlx.checkpoint.kind import KINDS, kind_of

    cache = _scan()
    repos = [] if cache is None else _model_repos(cache)
    repo = next((repo for repo in repos if repo.repo_id == model_id), None)
    if cache is None or repo is None:
        raise click.ClickException(
            f"{model_id}: not in the Hub's cache; `baldwhisper models list` shows what is"
        )
    if all(kind_of(Path(revision.snapshot_path)) not in KINDS for revision in repo.revisions):
        raise click.ClickException(
            f"{model_id}: not a model of baldwhisper's, so it is not deleted here; "
            f"use `hf cache rm model/{model_id}`"
        )
    # Of this repository alone: copies of a repository have the same commits, and the Hub's package
    # deletes the first revision that it meets with a given hash.
    alone = replace(cache, repos=frozenset({repo}))
    strategy = alone.delete_revisions(*(revision.commit_hash for revision in repo.revisions))
    size = _megabytes(strategy.expected_freed_size)
    if not yes:
        click.confirm(f"Delete {model_id} ({size}) from {repo.repo_path}?", abort=True, err=True)
    strategy.execute()
    if Path(repo.repo_path).exists():
        raise click.ClickException(f"{repo.repo_path}: could not be deleted; check its permissions")
    click.echo(f"{model_id}: deleted, {size} freed")


def bundled_model() -> LocalModel:
    """The model that comes with the package."""
    from baldwhisper_mlx.checkpoint.files import BUNDLED
    from baldwhisper_mlx.checkpoint.kind import kind_of

    size = sum(path.stat().st_size for path in BUNDLED.iterdir())
    whole = incomplete(BUNDLED) is None
    return LocalModel(BUNDLED_ID, kind_of(BUNDLED), whole, size, None, (), None, str(BUNDLED))


def cached_models() -> list[LocalModel]:
    """Every revision of every model in the Hub's cache, by id, the newest first."""
    from baldwhisper_mlx.checkpoint.kind import kind_of

    cache = _scan()
    rows = []
    for repo in [] if cache is None else _model_repos(cache):
        for revision in sorted(repo.revisions, key=lambda r: r.last_modified, reverse=True):
            folder = Path(revision.snapshot_path)
            changed = datetime.fromtimestamp(revision.last_modified, timezone.utc)
            rows.append(
                LocalModel(
                    id=repo.repo_id,
                    kind=kind_of(folder),
                    complete=incomplete(folder) is None,
                    bytes=revision.size_on_disk,
                    revision=revision.commit_hash,
                    refs=tuple(sorted(revision.refs)),
                    date=changed.date().isoformat(),
                    path=str(folder),
                )
            )
    return rows


def incomplete(folder: Path) -> str | None:
    """What is missing or damaged in a model folder; None if nothing is."""
    from baldwhisper_mlx.checkpoint.files import unusable_files

    return next(iter(unusable_files(folder).values()), None)


def _scan() -> HFCacheInfo | None:
    """The Hub's cache, or None before anything was put there."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import CacheNotFound

    try:
        return scan_cache_dir(HF_HUB_CACHE)
    except CacheNotFound:
        return None
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{HF_HUB_CACHE}: cannot be read ({error})") from None


def _model_repos(cache: HFCacheInfo) -> list[CachedRepoInfo]:
    repos = [repo for repo in cache.repos if repo.repo_type == "model"]
    return sorted(repos, key=lambda repo: repo.repo_id)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
