"""Loading: what is found, from where, and in which dtype; and how little an import costs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

import baldwhisper_mlx
from baldwhisper_mlx.checkpoint import files
from baldwhisper_mlx.checkpoint.files import MODEL_FILES, find_model
from baldwhisper_mlx.checkpoint.load import load_model
from baldwhisper_mlx.config import Dtype
from baldwhisper_mlx.ops import blas, buffers
from tests.runtime.conftest import tiny_config, tone, write_model


def test_dtypes(tmp_path: Path) -> None:
    form = {"embedding_rank": 8, "embedding_dense_rows": 5}
    folder = write_model(tmp_path / "model", tiny_config(**form))
    for dtype in ("float32", "float16", "bfloat16"):
        loaded = load_model(folder, dtype=dtype)  # type: ignore[arg-type]
        for name, value in tree_flatten(loaded.model.parameters()):
            expected = mx.int32 if name.endswith("dense_ids") else getattr(mx, dtype)
            assert value.dtype == expected, name
    default = load_model(folder).model.decoder.positional_embedding.dtype
    on_cpu = mx.default_device().type == mx.DeviceType.cpu
    assert default == (mx.float32 if on_cpu else mx.float16)


def test_freed_buffers_are_given_back_and_no_limit_is_set(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = mx.set_cache_limit(10**9)
    monkeypatch.setattr(buffers, "MOST_KEPT", 2**20)
    try:
        loaded = load_model(model_folder)
        for value in (mx.zeros((n, 2**18)) for n in range(1, 9)):
            mx.eval(value)
        del value
        assert mx.get_cache_memory() > 30 * 2**20
        seen: list[int] = []

        def note(_done: float, _total: float) -> None:
            seen.append(mx.get_cache_memory())

        baldwhisper_mlx.transcribe(tone(61), loaded, temperature=0.0, on_progress=note)
        assert len(seen) > 1
        assert max(seen) < 20 * 2**20  # those of one window
        assert mx.get_cache_memory() <= 2**20
        assert mx.set_cache_limit(10**9) == 10**9
    finally:
        mx.set_cache_limit(before)


@pytest.mark.parametrize("stored", ["float16", "float32"])
def test_loading_takes_memory_for_one_copy(tmp_path: Path, stored: Dtype) -> None:
    config = tiny_config(n_audio_state=64, n_text_state=64, n_audio_layer=8, dtype=stored)
    folder = write_model(tmp_path / "model", config)
    load_model(folder, dtype=stored).model.parameters()
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    loaded = load_model(folder)
    size = mx.get_active_memory() - before
    largest = max(value.nbytes for _, value in tree_flatten(loaded.model.parameters()))
    assert size >= 10 * largest / 2
    assert mx.get_peak_memory() - before <= size + 1.1 * largest
    assert mx.get_cache_memory() < largest
    assert loaded.decoder is not None


def test_nothing_of_a_file_stays_in_memory(model_folder: Path) -> None:
    loaded = load_model(model_folder)
    baldwhisper_mlx.transcribe(tone(1), loaded, temperature=0.0)
    memory = mx.get_active_memory()
    loaded.decoder.encode(mx.zeros((1, 3000, 80)), [3000])
    kept = [layer.cross_attn.state() for layer in loaded.decoder._cache]
    mx.eval(kept)
    # one layer's keys and values alone are more than a hundred thousand bytes
    assert mx.get_active_memory() > memory + 2**16
    del kept
    for _ in range(3):
        baldwhisper_mlx.transcribe(tone(1), loaded, temperature=0.0)
        assert mx.get_active_memory() <= memory + 2**16


class Hub:
    """snapshot_download with a cache and a network that can be counted."""

    def __init__(self, folder: Path, *, cached: bool, online: bool = True) -> None:
        self.folder, self.cached, self.online = folder, cached, online
        self.calls: list[dict[str, Any]] = []

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Puts itself in the place of the Hub's package."""
        monkeypatch.setattr("huggingface_hub.snapshot_download", self)
        monkeypatch.setattr(files, "list_files", lambda *_: ["config.json", "weights.npz"])

    def __call__(self, name: str, **options: Any) -> str:
        from huggingface_hub.errors import LocalEntryNotFoundError

        self.calls.append({"name": name} | options)
        if options.get("local_files_only") and not self.cached:
            raise LocalEntryNotFoundError("not cached")
        if not options.get("local_files_only") and not self.online:
            raise OSError("no route to host")
        return str(self.folder)


@pytest.mark.parametrize("cached", [True, False])
def test_hub_ids_ask_the_cache_first(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    hub = Hub(model_folder, cached=cached)
    hub.install(monkeypatch)
    loaded = load_model("owner/model", revision="abc")
    assert loaded.path == model_folder
    assert [call.get("local_files_only", False) for call in hub.calls] == (
        [True] if cached else [True, False, False]
    )
    assert all(call["revision"] == "abc" for call in hub.calls)


@pytest.mark.parametrize("missing", MODEL_FILES)
def test_incomplete_copies_in_the_cache_are_completed(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str
) -> None:
    part = shutil.copytree(model_folder, tmp_path / "part")
    (part / missing).unlink()

    def download(name: str, **options: Any) -> str:
        return str(part if options.get("local_files_only") else model_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr(files, "list_files", lambda *_: list(MODEL_FILES))
    assert load_model("owner/model").path == model_folder


def test_mlx_whisper_copies_in_the_cache_are_complete(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dimensions = {name: 1 for name in tiny_config().to_dict() if name.startswith("n_")}
    (tmp_path / "config.json").write_text(json.dumps(dimensions))
    hub = Hub(tmp_path, cached=True)
    hub.install(monkeypatch)
    find_model("owner/model")  # the config is asked for first, then the rest
    np.savez(tmp_path / "weights.npz", a=np.zeros(3))
    find_model("owner/model")
    calls = [call.get("local_files_only", False) for call in hub.calls]
    assert calls == [True, False, False, True]


def test_no_hub_and_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(tmp_path, cached=False, online=False).install(monkeypatch)
    with pytest.raises(FileNotFoundError, match=r"owner/model.*no route to host"):
        load_model("owner/model")
    for name in ("nowhere", "./owner/model", str(tmp_path / "no" / "such")):
        with pytest.raises(FileNotFoundError, match="no such folder"):
            load_model(name)


def test_a_model_named_twice_is_loaded_once(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from baldwhisper_mlx.transcription import inputs

    loads = []
    monkeypatch.setattr(inputs, "load_model", lambda name: loads.append(name) or load_model(name))
    inputs._cached_model.cache_clear()
    for _ in range(2):
        baldwhisper_mlx.transcribe(tone(0.2), str(model_folder), temperature=0.0)
    assert loads == [str(model_folder)]
    inputs._cached_model.cache_clear()


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_is_lazy() -> None:
    loaded = run(
        "import sys, baldwhisper_mlx; "
        "print([m for m in ('mlx', 'numpy', 'tiktoken', 'soundfile') if m in sys.modules])"
    )
    assert loaded == "[]"


def test_the_function_survives_its_module() -> None:
    code = (
        "import baldwhisper_mlx.transcription.transcribe, baldwhisper_mlx; "
        "print(baldwhisper_mlx.transcribe)"
    )
    assert run(code).startswith("<function transcribe")
    with pytest.raises(AttributeError, match="no attribute 'beam_search'"):
        baldwhisper_mlx.beam_search  # noqa: B018


def test_a_blas_is_loaded_before_mlx_or_hinted_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "_loaded", None)
    monkeypatch.setattr(sys, "platform", "linux")
    assert "pip install" in (blas.hint() or "")
    assert blas.preload() is None  # MLX is there already
    monkeypatch.delitem(sys.modules, "mlx.core")
    monkeypatch.setattr(blas, "_mkl_candidates", list)
    monkeypatch.setattr(blas, "_load", lambda path: path == "libopenblas.so.0")
    monkeypatch.setenv(blas.CHOICE, "none")
    assert blas.preload() is None
    assert blas.hint() is None  # who refuses it knows
    monkeypatch.delenv(blas.CHOICE)
    assert blas.preload() == "openblas"
    assert blas.hint() is None
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(blas, "_loaded", None)
    assert blas.hint() is None


@pytest.mark.parametrize("before", [None, "0"])
def test_what_is_set_for_mkl_is_not_left_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.delenv("KMP_BLOCKTIME", raising=False)
    if before is not None:
        monkeypatch.setenv("KMP_BLOCKTIME", before)
    seen: list[str | None] = []

    class Library:
        """Reads the environment when it is started, as Intel's OpenMP does."""

        def __init__(self, path: str, mode: int) -> None:
            pass

        def MKL_Get_Max_Threads(self) -> None:
            seen.append(os.environ.get("KMP_BLOCKTIME"))

    monkeypatch.setattr(blas.ctypes, "CDLL", Library)
    assert blas._load("libmkl_rt.so")
    assert seen == [before or "10"]
    assert os.environ.get("KMP_BLOCKTIME") == before
