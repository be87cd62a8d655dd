"""Paths and Hub ids, with a Hub cache on disk and a simulated network."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.readers import hub
from baldwhisper_convert.readers.read import read_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Network:
    """A simulated Hub: its repositories are folders, and every request is recorded."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.repository: Path | None = None
        self.patterns: list[str] = []

    def model_info(self, _: Any, source: str, revision: str | None = None, **__: Any) -> Any:
        self.requests.append(f"info {source} {revision}")
        if self.repository is None:
            raise ConnectionError("no network")
        names = [path.name for path in self.repository.iterdir()]
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "cache"
    path.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(path))
    return path


@pytest.fixture
def network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Network:
    network, local = Network(), huggingface_hub.snapshot_download

    def download(source: str, **options: Any) -> str:
        if options.get("local_files_only"):
            return str(local(source, **options))
        network.requests.append(f"download {source} {options.get('revision')}")
        if network.repository is None:
            raise ConnectionError("no network")
        network.patterns = options["allow_patterns"]
        snapshot = cached(cache, source)
        for pattern in network.patterns:
            for file in network.repository.glob(pattern):
                shutil.copy(file, snapshot)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(
        huggingface_hub.HfApi, "model_info", lambda api, *a, **k: network.model_info(api, *a, **k)
    )
    return network


def cached(cache: Path, source: str) -> Path:
    """The folder of a repository's `main` in the cache, in the hub's own layout."""
    root = cache / f"models--{source.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / "main").write_text(COMMIT)
    snapshot = root / "snapshots" / COMMIT
    snapshot.mkdir(parents=True, exist_ok=True)
    return snapshot


def test_a_cached_model_needs_no_network(
    cache: Path, network: Network, hf_folder: Path, reference: Checkpoint
) -> None:
    shutil.copytree(hf_folder, cached(cache, "some/model"), dirs_exist_ok=True)
    checkpoint = read_checkpoint("some/model")
    assert network.requests == []
    assert checkpoint.source == f"some/model@{COMMIT}"
    assert checkpoint.dims == reference.dims


def test_only_one_kind_of_weights_is_fetched(network: Network, hf_copy: Path) -> None:
    for name in ("pytorch_model.bin", "tf_model.h5", "model.fp32-00001-of-00002.safetensors"):
        (hf_copy / name).touch()
    network.repository = hf_copy
    read_checkpoint("some/model", revision="v1")
    assert network.requests == ["info some/model v1", "download some/model v1"]
    assert "model.safetensors" in network.patterns
    assert not any("fp32" in name or "pytorch" in name for name in network.patterns)


def test_a_cache_with_the_config_only_is_completed(
    cache: Path, network: Network, hf_folder: Path
) -> None:
    shutil.copy(hf_folder / "config.json", cached(cache, "some/model"))
    network.repository = hf_folder
    read_checkpoint("some/model")
    assert len(network.requests) == 2


def test_a_cache_without_the_tokenizer_is_completed(
    cache: Path, network: Network, hf_folder: Path, openai_pt: Path
) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(hf_folder / name, cached(cache, "some/tokenizer"))
    network.repository = hf_folder
    read_checkpoint(openai_pt, tokenizer="some/tokenizer")
    assert network.requests == ["info some/tokenizer None", "download some/tokenizer None"]


def test_no_network_and_no_cache_is_one_clear_error(network: Network) -> None:
    with pytest.raises(
        FileNotFoundError, match="the local cache has no complete copy, and there is no network"
    ):
        read_checkpoint("some/model")


def test_no_network_for_a_tokenizer(network: Network, openai_pt: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match="the local cache has no complete copy, and there is no network"
    ):
        read_checkpoint(openai_pt, tokenizer="some/tokenizer")


def test_an_adapter_on_the_hub(network: Network, tmp_path: Path) -> None:
    network.repository = tmp_path / "adapter"
    network.repository.mkdir()
    (network.repository / "adapter_config.json").touch()
    with pytest.raises(ValueError, match="some/model: a LoRA adapter"):
        read_checkpoint("some/model")


@pytest.mark.parametrize("source", ["nothing", "./a/b", "/a/b", "a/b/c", "a\\b", "../b", "", "a/"])
def test_what_is_neither_path_nor_id(source: str, network: Network, tmp_path: Path) -> None:
    if source == "":
        source = str(tmp_path / "none" / "there")
    with pytest.raises(FileNotFoundError, match="no such file or folder, and not a Hub id"):
        read_checkpoint(source)
    assert network.requests == []


def test_a_revision_of_a_local_path_is_an_error(hf_folder: Path) -> None:
    with pytest.raises(ValueError, match="--revision is for Hub ids"):
        read_checkpoint(hf_folder, revision="main")


def test_a_folder_takes_precedence_over_a_hub_id(
    tmp_path: Path, hf_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(hf_folder, tmp_path / "openai" / "whisper-base")
    monkeypatch.chdir(tmp_path)
    path = hub.fetch("openai/whisper-base", patterns=(), is_complete=lambda _: False)
    assert path == Path("openai/whisper-base")
