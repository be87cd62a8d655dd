"""Uploads to the Hub: what is uploaded, what the runtime reads of it, and what is refused when.

`FakeHub` takes the place of huggingface_hub's `HfApi`; what is uploaded to it lands in the local
cache of the Hub, where the runtime finds it as if it had downloaded it.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from click.testing import CliRunner, Result
from huggingface_hub import ModelCard, constants
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from baldwhisper_convert.cli.main import main
from baldwhisper_convert.export import mlx
from baldwhisper_convert.export.model_card import CardFacts
from baldwhisper_convert.pipeline.manifest import Manifest, write_manifest
from baldwhisper_mlx.checkpoint.load import load_model

COMMIT = "c" * 40
NAME = "me/model"


class FakeHub:
    """The four methods of `HfApi` that an upload needs."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.user: dict[str, Any] = {"name": "me", "orgs": [{"name": "team"}]}
        self.repositories: dict[str, bool] = {}  # and whether they are private
        self.fails: dict[str, Exception] = {}
        self.calls: list[str] = []

    def __call__(self) -> FakeHub:
        return self

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.fails:
            raise self.fails[name]

    def whoami(self) -> dict[str, Any]:
        self._called("whoami")
        return self.user

    def repo_exists(self, repo_id: str) -> bool:
        return repo_id in self.repositories

    def model_info(self, repo_id: str) -> Any:
        private = self.repositories[repo_id]
        return type("Info", (), {"private": private})()

    def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> str:
        self._called("create_repo")
        assert exist_ok or repo_id not in self.repositories
        self.repositories.setdefault(repo_id, bool(private))
        return f"https://the-hub/{repo_id}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, **options: Any) -> None:
        self._called("upload_folder")
        assert options["delete_patterns"] == ["*.safetensors"]
        repository = self.cache / f"models--{repo_id.replace('/', '--')}"
        shutil.copytree(folder_path, repository / "snapshots" / COMMIT, dirs_exist_ok=True)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs/main").write_text(COMMIT)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    hub = FakeHub(tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub.cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return hub


def answer(status: int) -> HfHubHTTPError:
    error = HfHubHTTPError.__new__(HfHubHTTPError)
    Exception.__init__(error, f"{status} is the answer")
    error.response = type("Response", (), {"status_code": status})()  # type: ignore[assignment]
    return error


def export(source: Path, folder: Path, *options: str) -> Result:
    arguments = ["export", str(source), str(folder), "--no-padding", *options]
    return CliRunner().invoke(main, arguments)


@pytest.mark.parametrize("private", [True, False])
def test_the_runtime_reads_what_was_uploaded(
    hub: FakeHub, hf_folder: Path, tmp_path: Path, private: bool
) -> None:
    options = ["--push-to-hub", NAME, *(["--private"] if private else [])]
    result = export(hf_folder, tmp_path / "m", *options)
    assert result.exit_code == 0, result.output
    assert result.output.endswith("https://the-hub/me/model\n")
    assert hub.calls == ["whoami", "create_repo", "upload_folder"]
    assert hub.repositories == {NAME: private}
    loaded = load_model(NAME)
    assert loaded.path == hub.cache / "models--me--model" / "snapshots" / COMMIT
    card = ModelCard.load(loaded.path / "README.md")
    assert f'load_model("{NAME}")' in card.text
    assert "PATH_TO_THIS_FOLDER" not in card.text
    assert "# model\n" in card.text


def test_the_metadata_of_the_card(hub: FakeHub, mlx_stage: Path, tmp_path: Path) -> None:
    options = ["--dataset", "owner/speech", "--dataset", "other/speech", "--language", "Lingala"]
    result = export(mlx_stage, tmp_path / "m", *options, "--push-to-hub", "team/model")
    assert result.exit_code == 0, result.output
    card = ModelCard.load(tmp_path / "m/README.md")
    data = card.data.to_dict()
    assert data["library_name"] == "mlx"
    assert data["language"] == ["ln"]
    assert data["datasets"] == ["owner/speech", "other/speech"]
    assert data["pipeline_tag"] == "automatic-speech-recognition"
    (evaluated,) = card.data.eval_results or []
    assert (evaluated.metric_type, evaluated.metric_value) == ("wer", 12.35)
    assert card.data.model_name == "model"
    assert "| WER on its development data | 12.35 % |" in card.text
    assert "| trained on | owner/speech, other/speech |" in card.text


@pytest.fixture
def mlx_stage(hf_folder: Path, tmp_path: Path) -> Path:
    """A stage folder of a training whose best WER was 12.345 %."""
    folder = tmp_path / "stage"
    assert export(hf_folder, folder, "--dtype", "float32").exit_code == 0
    manifest = Manifest(stage="finetune", parent="0", metrics={"wer": 0.123456})
    write_manifest(folder, manifest)
    return folder


def test_without_what_is_not_known(hf_folder: Path, tmp_path: Path) -> None:
    result = export(hf_folder, tmp_path / "m")
    assert result.exit_code == 0, result.output
    data = ModelCard.load(tmp_path / "m/README.md").data
    assert not {"datasets", "metrics", "model-index", "language"} & data.to_dict().keys()


@pytest.mark.parametrize(
    ("hub_id", "error", "message"),
    [
        ("me", None, "not a Hub id; give owner/name"),
        ("stranger/model", None, "logged in as me, who cannot upload for stranger"),
        (NAME, LocalTokenNotFoundError("no token"), "not logged in to the Hub; log in with"),
        (NAME, answer(401), "the Hub does not accept your token"),
        (NAME, ConnectionError("no route"), r"the Hub cannot be reached \(no route\)"),
        ("me/taken", None, "exists on the Hub already; --force uploads a new version"),
    ],
)
def test_refused_before_the_export(
    hub: FakeHub,
    hf_folder: Path,
    tmp_path: Path,
    hub_id: str,
    error: Exception | None,
    message: str,
) -> None:
    hub.repositories["me/taken"] = False
    if error:
        hub.fails["whoami"] = error
    result = export(hf_folder, tmp_path / "m", "--push-to-hub", hub_id)
    assert result.exit_code == 1
    assert re.search(message, result.output)
    assert result.output.startswith("Error: ")
    assert not (tmp_path / "m").exists()
    assert not {"create_repo", "upload_folder"} & set(hub.calls)


def test_a_token_that_only_reads(hub: FakeHub, hf_folder: Path, tmp_path: Path) -> None:
    hub.user["auth"] = {"accessToken": {"role": "read"}}
    result = export(hf_folder, tmp_path / "m", "--push-to-hub", NAME)
    assert result.exit_code == 1
    assert "your Hub token may only read" in result.output
    assert not (tmp_path / "m").exists()


def test_an_existing_model_gets_a_new_version(
    hub: FakeHub, hf_folder: Path, tmp_path: Path
) -> None:
    hub.repositories[NAME] = True
    result = export(hf_folder, tmp_path / "m", "--push-to-hub", NAME, "--force", "--private")
    assert result.exit_code == 0, result.output
    assert hub.calls[-1] == "upload_folder"


def test_nothing_private_becomes_public(hub: FakeHub, hf_folder: Path, tmp_path: Path) -> None:
    hub.repositories[NAME] = False
    result = export(hf_folder, tmp_path / "m", "--push-to-hub", NAME, "--force", "--private")
    assert result.exit_code == 1
    assert "is public on the Hub, but --private is given" in result.output
    assert hub.calls == ["whoami"]


def test_a_failed_export_uploads_nothing(
    hub: FakeHub, hf_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: Path) -> None:
        raise ValueError("does not run")

    monkeypatch.setattr(mlx, "_verify_export", broken)
    result = export(hf_folder, tmp_path / "m", "--push-to-hub", NAME)
    assert result.exit_code == 1
    assert hub.calls == ["whoami"]
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("call", "status", "message"),
    [
        ("create_repo", 403, "you have no right to write there"),
        ("create_repo", 409, "exists on the Hub already"),
        ("upload_folder", 500, r"the Hub refused the upload \(500 is the answer\)"),
    ],
)
def test_a_failed_upload_leaves_the_export(
    hub: FakeHub, hf_folder: Path, tmp_path: Path, call: str, status: int, message: str
) -> None:
    hub.fails[call] = answer(status)
    result = export(hf_folder, tmp_path / "m", "--push-to-hub", NAME)
    assert result.exit_code == 1
    assert re.search(message, result.output)
    assert f"the export itself is complete in {tmp_path / 'm'}" in result.output
    assert load_model(tmp_path / "m")


def test_options_that_need_it(hf_folder: Path, tmp_path: Path) -> None:
    assert export(hf_folder, tmp_path / "m", "--private").exit_code == 2


def test_a_dataset_has_a_hub_id(hf_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Repo id must"):
        CardFacts(datasets=("a/b/c",))
    result = export(hf_folder, tmp_path / "m", "--dataset", "a/b/c")
    assert result.exit_code == 1
    assert not (tmp_path / "m").exists()
