"""The Hub as people meet it: gated, behind a login page, silent, out of reach, interrupted.

A server on this machine speaks the little of its protocol that is needed.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from baldwhisper_mlx.checkpoint import hub
from baldwhisper_mlx.checkpoint.files import MODEL_FILES, find_model
from baldwhisper_mlx.checkpoint.load import load_model

COMMIT = "a" * 40
NAME = "owner/model"


class Server:
    """A Hub with one repository, and what is wrong with it."""

    def __init__(self, repository: Path) -> None:
        self.repository, self.mode = repository, "sound"
        self.requests: list[str] = []
        self.released = threading.Event()

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of the answer to a request."""
        self.requests.append(path)
        if self.mode == "silent":
            self.released.wait(60)
        if self.mode == "gated":
            return 403, b"{}", {"X-Error-Code": "GatedRepo"}
        if self.mode == "private":
            return 401, b"{}", {"X-Error-Code": "RepoNotFound"}
        if self.mode == "broken":
            return 500, b"oops", {}
        if self.mode == "login page":
            return 200, b"<html>Welcome to our hotel</html>", {"Content-Type": "text/html"}
        names = sorted(path.name for path in self.repository.iterdir())
        if "/tree/" in path:
            tree = [
                {"type": "file", "oid": "b" * 40, "size": self.size(n), "path": n} for n in names
            ]
            return 200, json.dumps(tree).encode(), {"Content-Type": "application/json"}
        if path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in names]
            info = {"id": NAME, "modelId": NAME, "sha": COMMIT, "siblings": siblings, "tags": []}
            return 200, json.dumps(info).encode(), {"Content-Type": "application/json"}
        file = self.repository / path.split("?")[0].rsplit("/", 1)[-1]
        if not file.is_file():
            return 404, b"", {"X-Error-Code": "EntryNotFound"}
        body = file.read_bytes()
        etag = hashlib.sha256(body).hexdigest()
        return 200, body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}

    def size(self, name: str) -> int:
        return (self.repository / name).stat().st_size


@pytest.fixture
def server(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server(Path(shutil.copytree(model_folder, tmp_path / "repository")))

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

        def do_GET(self) -> None:
            status, body, headers = server.answer(self.path)
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body))}.items() | headers.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{listening.server_port}"
    for key, value in {
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "ENDPOINT": address,
        "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, key, value)
    api = huggingface_hub.HfApi(endpoint=address)
    monkeypatch.setattr(huggingface_hub.hf_api, "api", api)
    yield server
    server.released.set()
    listening.shutdown()
    listening.server_close()


def snapshot(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "models--owner--model" / "snapshots" / COMMIT


def test_a_model_is_fetched_once(server: Server, tmp_path: Path) -> None:
    (server.repository / "optimizer.bin").write_bytes(b"large")
    assert load_model(NAME).path == snapshot(tmp_path)
    assert {path.name for path in snapshot(tmp_path).iterdir()} == set(MODEL_FILES)
    server.requests.clear()
    assert load_model(NAME).path == snapshot(tmp_path)
    assert server.requests == []


def test_a_copy_without_the_readme_is_used_without_a_network(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newer releases of huggingface_hub call it incomplete."""
    (server.repository / "README.md").write_text("# model")
    find_model(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_model(NAME) == snapshot(tmp_path)


@pytest.mark.parametrize("lost", [*MODEL_FILES, "half of the weights", "dangling", "everything"])
def test_an_interrupted_download_is_resumed(server: Server, tmp_path: Path, lost: str) -> None:
    folder = find_model(NAME)
    weights = folder / "model.safetensors"
    if lost in MODEL_FILES:
        (folder / lost).unlink()
    elif lost == "everything":
        shutil.rmtree(folder)
        folder.mkdir()
    elif lost == "dangling":
        weights.resolve().unlink()
    else:
        blob = weights.resolve()
        blob.write_bytes(blob.read_bytes()[:1000])
    assert load_model(NAME).path == folder
    for name in MODEL_FILES:
        assert (folder / name).read_bytes() == (server.repository / name).read_bytes()


def test_weights_of_transformers_are_not_downloaded(server: Server, tmp_path: Path) -> None:
    raw = {"model_type": "whisper", "d_model": 512, "encoder_layers": 6}
    (server.repository / "config.json").write_text(json.dumps(raw))
    for _ in range(2):
        with pytest.raises(ValueError, match=f"convert it first: .* export {NAME} FOLDER"):
            load_model(NAME)
        assert [path.name for path in snapshot(tmp_path).iterdir()] == ["config.json"]
        server.mode = "broken"  # the second time, the cached config says it


def test_a_repository_without_a_config(server: Server, tmp_path: Path) -> None:
    (server.repository / "config.json").unlink()
    with pytest.raises(ValueError, match=f"{NAME}: not a model that baldwhisper can run"):
        load_model(NAME)
    assert not snapshot(tmp_path).exists()


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("gated", "accept the terms on its page"),
        ("private", "no such model on the Hub; if it is private, log in"),
        ("broken", "the Hub answered with error 500"),
        ("login page", "perhaps a login page of the network"),
        ("silent", "the Hub did not answer within 1 s"),
    ],
)
def test_what_can_be_wrong_with_the_hub(
    server: Server, monkeypatch: pytest.MonkeyPatch, mode: str, words: str
) -> None:
    monkeypatch.setattr(hub, "TIMEOUT", 1)
    server.mode = mode
    with pytest.raises(FileNotFoundError) as caught:
        load_model(NAME)
    assert str(caught.value).startswith(f"{NAME}: ")
    assert words in str(caught.value)


def test_no_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    api = huggingface_hub.HfApi(endpoint="http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    with pytest.raises(FileNotFoundError, match=f"{NAME}: .* there is no network"):
        load_model(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=f"{NAME}: .* HF_HUB_OFFLINE forbids"):
        load_model(NAME)


def test_a_revision_of_a_folder_is_refused(model_folder: Path) -> None:
    with pytest.raises(ValueError, match="--revision is for models on the Hub"):
        load_model(model_folder, revision="v2")
    with pytest.raises(ValueError, match="a revision belongs to a model on the Hub"):
        load_model(revision="v2")


def test_an_unknown_revision(server: Server) -> None:
    answer = server.answer
    server.answer = lambda path: (404, b"{}", {"X-Error-Code": "RevisionNotFound"})  # type: ignore[method-assign]
    with pytest.raises(FileNotFoundError, match=f"{NAME}: has no revision v9"):
        load_model(NAME, revision="v9")
    server.answer = answer  # type: ignore[method-assign]
