"""Reading an exported model back: the exact inverse of exporting it, and damaged folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.export.mlx import export_mlx, mlx_tensors
from baldwhisper_convert.readers.read import read_checkpoint
from tests.support import tiny

FORMS: dict[str, dict[str, Any] | None] = {
    "dense": None,
    "shared": {},
    "separate": {"separate": True},
    "mean": {"mean": True},
    "rows": {"dense_rows": 7},
    "all": {"separate": True, "mean": True, "dense_rows": 7},
}
DTYPES = ("float16", "bfloat16", "float32")


def tiny_form(form: str, **fields: Any) -> Checkpoint:
    options = FORMS[form]
    dims = tiny.tiny_dims(n_text_layer=2, n_audio_layer=1)
    state = tiny.tiny_state(dims)
    if options is not None:
        state = tiny.factorized_state(dims, 8, **options)
    return tiny.tiny_checkpoint(dims, **({"state": state, "alignment_heads": ((1, 2),)} | fields))


def write_quickly(checkpoint: Checkpoint, folder: Path, dtype: Any) -> Path:
    """What export writes, without the proof that it runs, for hundreds of folders."""
    folder.mkdir()
    config = checkpoint.model_config(dtype=dtype)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    save_file(mlx_tensors(checkpoint.state, dtype, "x"), folder / "model.safetensors")
    (folder / "vocabulary.tiktoken").write_bytes(checkpoint.vocabulary.rank_file())
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_mlx(tiny_form("all"), tmp_path_factory.mktemp("out") / "m", dtype="float32")


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A folder that a test may damage."""
    return write_quickly(tiny_form("all"), tmp_path / "m", "float32")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_reads_back_what_was_written(form: str, dtype: Any, tmp_path: Path) -> None:
    written = tiny_form(form, audio_context="trimmed", audio_context_margin=30)
    read = read_checkpoint(write_quickly(written, tmp_path / "m", dtype))
    assert read.format == "baldwhisper"
    assert read.source == str(tmp_path / "m")
    for field in (
        "dims",
        "vocabulary",
        "alignment_heads",
        "is_multilingual",
        "audio_context",
        "audio_context_margin",
        "embedding",
    ):
        assert getattr(read, field) == getattr(written, field), field
    assert read.state.keys() == written.state.keys()
    for name, tensor in written.state.items():
        target = torch.int64 if name.endswith("dense_ids") else getattr(torch, dtype)
        assert read.state[name].dtype == target
        assert read.state[name].equal(tensor.to(target)), name
        assert read.state[name].is_contiguous()


@given(
    form=st.sampled_from(list(FORMS)),
    layers=st.integers(1, 3),
    heads=st.sampled_from([1, 2, 4]),
    mels=st.sampled_from([80, 128]),
    seed=st.integers(0, 1000),
)
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_random_models_are_read_back(
    form: str,
    layers: int,
    heads: int,
    mels: int,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    dims = tiny.tiny_dims(
        n_text_layer=layers, n_audio_layer=4 - layers, n_text_head=heads, n_mels=mels
    )
    state = tiny.tiny_state(dims, seed)
    options = FORMS[form]
    if options is not None:
        embedding = tiny.factorized_state(dims, 8, **options)
        del state["decoder.token_embedding.weight"]
        state |= {name: t for name, t in embedding.items() if "token_embedding" in name}
    written = tiny.tiny_checkpoint(dims, state=state, alignment_heads=None)
    folder = write_quickly(written, tmp_path_factory.mktemp("any") / "m", "float32")
    read = read_checkpoint(folder)
    assert all(read.state[name].equal(tensor) for name, tensor in state.items())
    # Once more through the file: nothing drifts from stage to stage.
    assert read.model_config() == written.model_config()
    again = mlx_tensors(read.state, "float32", "x")
    first = load_file(folder / "model.safetensors")
    assert again.keys() == first.keys()
    assert all(again[name].equal(tensor) for name, tensor in first.items())


def test_no_two_tensors_share_memory(exported: Path) -> None:
    state = read_checkpoint(exported).state
    starts = {tensor.untyped_storage().data_ptr() for tensor in state.values()}
    assert len(starts) == len(state)


def test_the_licence_is_kept(tmp_path: Path) -> None:
    folder = export_mlx(tiny_form("dense", licence="mit"), tmp_path / "m")
    assert read_checkpoint(folder).licence == "mit"


def test_an_exported_model_can_be_exported(exported: Path, tmp_path: Path) -> None:
    once = read_checkpoint(exported)
    again = read_checkpoint(export_mlx(once, tmp_path / "m", dtype="float32"))
    assert all(again.state[name].equal(tensor) for name, tensor in once.state.items())


def test_the_audio_context_is_kept(tmp_path: Path) -> None:
    first = export_mlx(tiny_form("dense", audio_context="trimmed"), tmp_path / "a")
    assert read_checkpoint(first).audio_context == "trimmed"
    second = export_mlx(read_checkpoint(first), tmp_path / "b")
    assert read_checkpoint(second).audio_context == "trimmed"
    third = export_mlx(read_checkpoint(first), tmp_path / "c", audio_context="full")
    assert read_checkpoint(third).audio_context == "full"


def test_another_tokenizer(exported: Path, tmp_path: Path, hf_folder: Path) -> None:
    read = read_checkpoint(exported, tokenizer=str(hf_folder))
    assert read.vocabulary == read_checkpoint(exported).vocabulary
    with pytest.raises(FileNotFoundError, match="has no tokenizer in a supported format"):
        read_checkpoint(exported, tokenizer=str(tmp_path))


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def fails(folder: Path, match: str, kind: type[Exception] = ValueError) -> None:
    with pytest.raises(kind, match=match):
        read_checkpoint(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.tiktoken"])
def test_a_missing_file(name: str, damaged: Path) -> None:
    (damaged / name).unlink()
    fails(damaged, f"{name}: missing", FileNotFoundError)


def test_a_quantized_model(damaged: Path) -> None:
    edit_config(damaged, quantization={"bits": 8, "group_size": 64})
    fails(damaged, "quantized, which cannot be undone; read the model it was exported from")


@pytest.mark.parametrize("cut", [0, 4, 100, 5000, -1])
def test_truncated_weights(cut: int, damaged: Path) -> None:
    file = damaged / "model.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    fails(damaged, r"model\.safetensors: damaged safetensors file")


def test_a_broken_config(damaged: Path) -> None:
    edit_config(damaged, n_mels="many")
    fails(damaged, r"config\.json: config: bad value for n_mels")


def test_a_broken_vocabulary(damaged: Path) -> None:
    file = damaged / "vocabulary.tiktoken"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-1]))
    fails(damaged, r"vocabulary\.tiktoken: token ids are not 0 to")
    file.write_bytes(b"no rank\n")
    fails(damaged, r"vocabulary\.tiktoken: line 1 is not `base64 rank`")


PREFIX = "decoder.token_embedding"
Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor | None]]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda _: {"encoder.conv1.bias": None}, r"missing encoder\.conv1\.bias"),
        (lambda _: {"encoder.conv3.bias": torch.zeros(1)}, r"unexpected encoder\.conv3\.bias"),
        (
            lambda t: {"encoder.conv1.weight": t["encoder.conv1.weight"].permute(0, 2, 1)},
            r"encoder\.conv1\.weight \(expected \[64, 80, 3\], found \[64, 3, 80\]\)",
        ),
        (
            lambda _: {"decoder.blocks.0.attn.qkv.bias": torch.ones(192)},
            r"decoder\.blocks\.0\.attn\.key\.bias is not zero",
        ),
        (
            lambda _: {"decoder.blocks.0.attn.qkv.bias": torch.ones(191)},
            "expected rows in 3 equal parts",
        ),
        (
            lambda _: {"decoder.ln.bias": torch.zeros(64).half()},
            r"not stored as float32: decoder\.ln\.bias \(torch\.float16\)",
        ),
        (lambda _: {f"{PREFIX}.dense_rows": None}, r"missing decoder\.token_embedding\.dense_rows"),
        (lambda _: {f"{PREFIX}.weight": torch.zeros(2014, 64)}, r"unexpected .*\.weight"),
        (lambda _: {f"{PREFIX}.dense_ids": torch.zeros(7)}, r"dense_ids \(torch\.float32\)"),
        (lambda _: {f"{PREFIX}.dense_ids": torch.zeros(7).int()}, "not distinct token ids"),
        (
            lambda _: {f"{PREFIX}.dense_ids": torch.arange(2008, 2015).int()},
            "not distinct token ids from 0 to 2013",
        ),
        (lambda _: {"decoder.ln.bias": torch.full((64,), torch.nan)}, "contains NaN"),
    ],
)
def test_tensors_that_do_not_fit_the_config(change: Change, match: str, damaged: Path) -> None:
    state = load_file(damaged / "model.safetensors")
    state = {k: v.contiguous() for k, v in (state | change(state)).items() if v is not None}
    save_file(state, damaged / "model.safetensors")
    fails(damaged, match)


def test_ids_are_checked_in_memory_too() -> None:
    written = tiny_form("rows")
    for ids in (torch.zeros(7, dtype=torch.int64), torch.arange(7.0)):
        with pytest.raises(ValueError, match="dense_ids"):
            replace(written, state=written.state | {f"{PREFIX}.dense_ids": ids})
