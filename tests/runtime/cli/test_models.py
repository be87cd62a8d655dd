"""`baldwhisper models` on a cache in the Hub's layout: blobs, refs, and snapshots of links."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.errors
import pytest
from click.testing import CliRunner, Result

from baldwhisper_mlx.checkpoint import files
from baldwhisper_mlx.checkpoint.files import COMMUNITY_FILES, MODEL_FILES
from baldwhisper_mlx.cli.main import cli
from baldwhisper_mlx.config import PADDING_FILE

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder that the Hub's package is set to."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return folder


def models(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(cli, ["models", *arguments], input=answer)


def listed(*arguments: str) -> list[dict[str, Any]]:
    result = models("list", "--json", *arguments)
    assert result.exit_code == 0, result.output
    rows: list[dict[str, Any]] = json.loads(result.stdout)
    return rows


def add(
    cache: Path,
    repo: str,
    files: dict[str, bytes],
    *,
    commit: str = OLD,
    ref: str | None = "main",
    kind: str = "models",
) -> Path:
    """Adds a revision as huggingface_hub does; returns its snapshot folder."""
    root = cache / f"{kind}--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    for folder in (root / "blobs", root / "refs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        blob = root / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / name).symlink_to(Path("../../blobs") / blob.name)
    if ref is not None:
        (root / "refs" / ref).write_text(commit)
    return snapshot


def exported(model_folder: Path) -> dict[str, bytes]:
    return {name: (model_folder / name).read_bytes() for name in MODEL_FILES}


def community() -> dict[str, bytes]:
    dimensions = {f"n_audio_{part}": 1 for part in ("ctx", "state", "head", "layer")}
    dimensions |= {f"n_text_{part}": 1 for part in ("ctx", "state", "head", "layer")}
    config = dimensions | {"n_mels": 80, "n_vocab": 51865}
    header = b"{}"
    weights = len(header).to_bytes(8, "little") + header
    return {"config.json": json.dumps(config).encode(), "weights.safetensors": weights}


OTHER = {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"weights"}


def test_the_bundled_model_is_listed_before_there_is_a_cache(cache: Path) -> None:
    cache.rmdir()
    (row,) = listed()
    assert (row["id"], row["kind"], row["complete"]) == ("(bundled)", "baldwhisper", True)
    assert row["revision"] is None
    assert 30e6 < row["bytes"] < 45e6


def test_cached_models_are_listed(cache: Path, model_folder: Path) -> None:
    add(cache, "me/exported", exported(model_folder))
    add(cache, "mlx-community/whisper", community())
    add(cache, "them/bert", OTHER)
    add(cache, "me/speech", {"data.txt": b"text"}, kind="datasets")
    rows = listed()[1:]
    assert [(row["id"], row["kind"], row["complete"]) for row in rows] == [
        ("me/exported", "baldwhisper", True),
        ("mlx-community/whisper", "mlx-whisper", True),
    ]
    assert rows[0]["bytes"] == sum(len(content) for content in exported(model_folder).values())
    assert (rows[0]["revision"], rows[0]["refs"]) == (OLD, ["main"])
    assert Path(rows[0]["path"]).is_dir()
    assert len(rows[0]["date"]) == len("2026-01-01")
    ids = [(row["id"], row["kind"]) for row in listed("--all")]
    assert ids[-1] == ("them/bert", "other")
    assert len(ids) == 4


def test_the_table_has_a_line_for_each_revision(cache: Path, model_folder: Path) -> None:
    add(cache, "me/exported", exported(model_folder), ref=None)
    add(cache, "me/exported", exported(model_folder), commit=NEW)
    lines = models("list").stdout.splitlines()
    assert lines[0].split() == ["MODEL", "SIZE", "REVISION", "DATE", "KIND"]
    assert {line.split()[3] for line in lines[2:]} == {OLD[:8], NEW[:8]}
    assert [line for line in lines if "(main)" in line and NEW[:8] in line]


@pytest.mark.parametrize("lost", [*MODEL_FILES[1:], "half of model.safetensors"])
def test_what_is_incomplete_is_listed_as_such(cache: Path, model_folder: Path, lost: str) -> None:
    files = exported(model_folder)
    if lost in files:
        del files[lost]
    else:
        files["model.safetensors"] = files["model.safetensors"][:-100]
    add(cache, "me/exported", files)
    assert not listed()[1]["complete"]
    assert "baldwhisper, incomplete" in models("list").stdout


class Hub:
    """Stands for `snapshot_download`: puts the wanted files of one repository into the cache."""

    def __init__(self, cache: Path, files: dict[str, bytes]) -> None:
        self.cache, self.files = cache, files
        self.fetched: list[str] = []
        self.revisions: list[str | None] = []

    def __call__(
        self, repo: str, *, revision: str | None, allow_patterns: list[str], **options: Any
    ) -> str:
        wanted = {name: text for name, text in self.files.items() if name in allow_patterns}
        snapshot = self.cache / f"models--{repo.replace('/', '--')}" / "snapshots" / OLD
        new = {name: text for name, text in wanted.items() if not (snapshot / name).exists()}
        self.fetched += new
        self.revisions.append(revision)
        return str(add(self.cache, repo, new))


def hub(monkeypatch: pytest.MonkeyPatch, download: Any) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    names = list(download.files) if isinstance(download, Hub) else ["config.json"]
    monkeypatch.setattr(files, "list_files", lambda *_: names)


def test_pull_fetches_what_the_runtime_needs(
    cache: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Hub(cache, exported(model_folder) | {"optimizer.bin": b"large", "README.md": b"#"})
    hub(monkeypatch, remote)
    result = models("pull", "me/exported", "--revision", "v2")
    assert result.exit_code == 0, result.output
    assert sorted(remote.fetched) == sorted(MODEL_FILES)
    assert set(remote.revisions) == {"v2"}
    assert "--model me/exported --revision v2" in result.stdout
    assert [row["id"] for row in listed()] == ["(bundled)", "me/exported"]


def test_pull_fetches_constants_for_padding(
    cache: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if they are all that a complete copy lacks."""
    empty = b"{}"
    constants = {PADDING_FILE: len(empty).to_bytes(8, "little") + empty}
    remote = Hub(cache, exported(model_folder) | constants)
    hub(monkeypatch, remote)
    assert models("pull", "me/exported").exit_code == 0
    assert sorted(remote.fetched) == sorted([*MODEL_FILES, PADDING_FILE])
    shutil.rmtree(cache / "models--me--exported")
    add(cache, "me/exported", exported(model_folder))
    remote.fetched.clear()
    assert models("pull", "me/exported").exit_code == 0
    assert remote.fetched == [PADDING_FILE]
    assert listed()[1]["complete"]


def test_damaged_constants_for_padding_are_reported(
    cache: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub(monkeypatch, Hub(cache, exported(model_folder) | {PADDING_FILE: b"half"}))
    result = models("pull", "me/exported")
    assert result.exit_code == 1
    assert PADDING_FILE in result.stderr
    assert not listed()[1]["complete"]


def test_pull_takes_models_of_mlx_community(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, Hub(cache, community()))
    assert models("pull", "mlx-community/whisper").exit_code == 0
    assert listed()[1]["complete"]


def test_pull_fetches_no_weights_of_other_models(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = Hub(cache, OTHER)
    hub(monkeypatch, remote)
    result = models("pull", "them/bert")
    assert result.exit_code == 1
    assert "baldwhisper-convert export them/bert" in result.stderr
    assert remote.fetched == ["config.json"]


@pytest.mark.parametrize("lost", MODEL_FILES[1:])
def test_pull_says_what_the_hub_lacks(
    cache: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    files = exported(model_folder)
    del files[lost]
    hub(monkeypatch, Hub(cache, files))
    result = models("pull", "me/exported")
    assert result.exit_code == 1
    assert lost in result.stderr


def test_pull_says_that_weights_are_missing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, Hub(cache, {"config.json": community()["config.json"]}))
    result = models("pull", "mlx-community/whisper")
    assert result.exit_code == 1
    assert all(name in result.stderr for name in COMMUNITY_FILES)


def raised(name: str) -> Exception:
    """An error of the Hub's package, without the answer of a server that it holds."""
    error: type[Exception] = getattr(huggingface_hub.errors, name)
    return error.__new__(error, "from the Hub")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (raised("GatedRepoError"), "accept the terms"),
        (raised("RepositoryNotFoundError"), "no such model"),
        (raised("RevisionNotFoundError"), "no revision v9"),
        (raised("LocalEntryNotFoundError"), "no network"),
        (raised("OfflineModeIsEnabled"), "HF_HUB_OFFLINE forbids"),
        (ConnectionError("refused"), "no network"),
        (OSError("No space left on device"), "No space left"),
        (RuntimeError("read timed out\nand more"), "(read timed out)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_pull_explains_errors(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def fail(*arguments: Any, **options: Any) -> str:
        raise error

    hub(monkeypatch, fail)
    result = models("pull", "me/exported", "--revision", "v9")
    assert result.exit_code == 1
    assert words in result.stderr
    assert "me/exported" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_pull_refuses_what_is_no_id(cache: Path) -> None:
    result = models("pull", "no id")
    assert result.exit_code == 1
    assert "owner/model" in result.stderr


def test_rm_deletes_all_revisions_of_one_model(cache: Path, model_folder: Path) -> None:
    add(cache, "me/exported", exported(model_folder))
    add(cache, "me/exported", exported(model_folder), commit=NEW, ref="v2")
    add(cache, "me/kept", exported(model_folder))  # a copy: the same commit
    result = models("rm", "me/exported", "--yes")
    assert result.exit_code == 0, result.output
    assert [row["id"] for row in listed()] == ["(bundled)", "me/kept"]
    assert not (cache / "models--me--exported").exists()


@pytest.mark.parametrize(("answer", "gone"), [("y\n", True), ("n\n", False), ("", False)])
def test_rm_asks_first(cache: Path, model_folder: Path, answer: str, gone: bool) -> None:
    add(cache, "me/exported", exported(model_folder))
    result = models("rm", "me/exported", answer=answer)
    assert "Delete me/exported" in result.stderr
    assert (result.exit_code == 0) == gone
    assert (cache / "models--me--exported").exists() != gone


@pytest.mark.parametrize("model", ["me/absent", "(bundled)", "me/speech", "them/bert"])
def test_rm_deletes_nothing_else(cache: Path, model: str) -> None:
    add(cache, "me/speech", {"data.txt": b"text"}, kind="datasets")
    add(cache, "them/bert", OTHER)
    result = models("rm", model, "--yes")
    assert result.exit_code == 1
    assert model in result.stderr
    assert {path.name for path in cache.iterdir()} == {"datasets--me--speech", "models--them--bert"}


def test_rm_deletes_an_interrupted_download(cache: Path, model_folder: Path) -> None:
    add(cache, "me/exported", {"config.json": exported(model_folder)["config.json"]})
    assert models("rm", "me/exported", "--yes").exit_code == 0
    assert list(cache.glob("models--*")) == []


def test_rm_without_a_cache(cache: Path) -> None:
    shutil.rmtree(cache)
    result = models("rm", "me/exported", "--yes")
    assert result.exit_code == 1
    assert "models list" in result.stderr
