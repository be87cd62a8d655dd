"""The CTranslate2 reader on damaged and malicious files; valid ones are in test_formats.py."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baldwhisper_convert.readers.ctranslate2 import read_ctranslate2, read_variables
from tests.support import tiny

FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
HEADER = struct.pack("<IH", 6, 12) + b"WhisperSpec\0" + struct.pack("<I", 3)


@pytest.fixture(scope="module")
def arrays(ctranslate2_folders: dict[str, Path]) -> dict[str, np.ndarray[Any, Any]]:
    variables, _ = read_variables(ctranslate2_folders["float32"] / "model.bin")
    return {name: tensor.numpy() for name, tensor in variables.items()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A sound file of a few arrays, aliased and quantized, but not of a whole model."""
    path = tmp_path_factory.mktemp("small") / "model.bin"
    weight = np.arange(6, dtype=np.int8).reshape(2, 3)
    scale = np.array([2, 4], np.float32)
    variables = {"a/weight": weight, "a/weight_scale": scale, "n": np.array(7, np.int16)}
    return tiny.write_ctranslate2(path, variables, {"b/weight": "a/weight"}).read_bytes()


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    return path


def test_every_stored_type_is_read_as_it_is(tmp_path: Path) -> None:
    kinds = (np.float32, np.int8, np.int16, np.int32, np.float16)
    variables = {np.dtype(kind).name: np.array([[1, -2], [3, 4]], kind) for kind in kinds}
    path = tiny.write_ctranslate2(tmp_path / "model.bin", variables, {"x": "int8"})
    found, aliases = read_variables(path)
    assert aliases == {"x": "int8"}
    for name, array in variables.items():
        assert found[name].dtype == getattr(torch, name)
        assert found[name].equal(torch.from_numpy(array))


def test_the_hand_written_file_is_what_ctranslate2_reads(
    tmp_path: Path, arrays: dict[str, np.ndarray[Any, Any]], ctranslate2_folders: dict[str, Path]
) -> None:
    aliases = {"decoder/projection/weight": "decoder/embeddings/weight"}
    path = tiny.write_ctranslate2(tmp_path / "model.bin", arrays, aliases)
    original = ctranslate2_folders["float32"] / "model.bin"
    assert path.read_bytes() == original.read_bytes()


@given(cut=st.integers(0, 10**6))
@FUZZ
def test_a_file_cut_anywhere_is_an_error(cut: int, small: bytes, tmp_path: Path) -> None:
    path = write(tmp_path, small[: cut % len(small)])
    with pytest.raises(ValueError, match=r"model\.bin: "):
        read_variables(path)


def test_a_real_model_cut_short(tmp_path: Path, ctranslate2_folders: dict[str, Path]) -> None:
    content = (ctranslate2_folders["int8"] / "model.bin").read_bytes()
    path = write(tmp_path, content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"model\.bin: truncated or not .* needs \d+ bytes, \d+"):
        read_ctranslate2(path)


@given(data=st.data())
@FUZZ
def test_changed_bytes_are_an_error_or_harmless(
    data: st.DataObject, small: bytes, tmp_path: Path
) -> None:
    content = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = write(tmp_path, bytes(content))
    error = tiny.error_of(read_variables, path)
    assert error is None or error.startswith(str(path))


@given(content=st.binary(max_size=80))
@FUZZ
def test_arbitrary_bytes_are_an_error(content: bytes, tmp_path: Path) -> None:
    for prefix in (b"", HEADER):
        path = write(tmp_path, prefix + content)
        error = tiny.error_of(read_variables, path)
        if prefix + content == HEADER + bytes(8):  # no arrays and no aliases
            assert error is None
        else:
            assert error is not None
            assert error.startswith(str(path))


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (struct.pack("<I", 2**32 - 1), "array name at byte"),
        (struct.pack("<IH", 1, 65535) + b"x", "needs 65535 bytes"),
        (struct.pack("<IH2sB", 1, 2, b"w\0", 255), "shape of w"),
        (struct.pack("<IH2sB3IBI", 1, 2, b"w\0", 3, *[2**32 - 1] * 3, 0, 16), "but a size of 16"),
        (
            struct.pack("<IH2sB1IBI", 1, 2, b"w\0", 1, 2**29, 0, 2**31),
            "w at byte .* needs 2147483648",
        ),
        (struct.pack("<IH2sB1IBI", 1, 2, b"w\0", 1, 1, 9, 4), "unknown data type 9"),
        (struct.pack("<IH2s", 1, 2, b"\xff\0"), "is not text"),
        (struct.pack("<II", 0, 1) + b"\2\0a\0\2\0b\0", "alias a of b fits no array"),
        (struct.pack("<II", 0, 0) + b"more", "4 bytes after the end"),
    ],
)
def test_malicious_sizes_fail_before_anything_is_allocated(
    body: bytes, match: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=match):
        read_variables(write(tmp_path, HEADER + body))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"version": 5}, r"binary version 6 \(found 5\)"),
        ({"name": "TransformerSpec"}, "a CTranslate2 TransformerSpec, expected WhisperSpec"),
        ({"name": ""}, "a CTranslate2 model, expected WhisperSpec"),
    ],
)
def test_other_models_are_named(options: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=match):
        read_variables(tiny.write_ctranslate2(tmp_path / "model.bin", {}, **options))


def test_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="empty file"):
        read_variables(write(tmp_path, b""))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"decoder/activation": np.array(0, np.int8)},
            "activation is 0, but a Whisper has 3",
        ),
        ({"decoder/alibi": np.array(1, np.int8)}, "decoder/alibi is 1, but a Whisper has 0"),
        ({"decoder/pre_norm": np.array([1], np.int8)}, r"decoder/pre_norm is \[1\]"),
        ({"decoder/num_heads": None}, "expected decoder/num_heads of 0 dimensions, found none"),
        ({"decoder/num_heads": np.array(0, np.int16)}, "bad value for n_text_head: 0"),
        ({"encoder/conv1/weight": np.zeros((64, 80), np.float32)}, r"found \[64, 80\]"),
        ({"decoder/embeddings/weight": None}, "expected decoder/embeddings/weight"),
        ({"decoder/odd": np.array(0, np.int8)}, "unexpected decoder/odd"),
        ({"decoder/projection/weight": np.ones((2, 2), np.float32)}, "projection/weight differs"),
        (
            {"encoder/conv1/weight_scale": np.zeros(64, np.float32)},
            "weight_scale is not positive",
        ),
        (
            {"encoder/conv1/weight_scale": np.ones(63, np.float32)},
            r"encoder/conv1/weight_scale has shape \[63\]",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_other_architectures_are_refused(
    changes: dict[str, Any],
    match: str,
    tmp_path: Path,
    arrays: dict[str, np.ndarray[Any, Any]],
) -> None:
    changed = {k: v for k, v in (arrays | changes).items() if v is not None}
    with pytest.raises(ValueError, match=match):
        read_ctranslate2(tiny.write_ctranslate2(tmp_path / "model.bin", changed))


def test_an_equal_projection_may_be_stored(
    tmp_path: Path, arrays: dict[str, np.ndarray[Any, Any]]
) -> None:
    twin = arrays | {"decoder/projection/weight": arrays["decoder/embeddings/weight"]}
    dims, state = read_ctranslate2(tiny.write_ctranslate2(tmp_path / "model.bin", twin))
    assert state["decoder.token_embedding.weight"].shape == (dims.n_vocab, 64)


def test_int8_rows_are_divided_by_their_scale(
    tmp_path: Path, arrays: dict[str, np.ndarray[Any, Any]]
) -> None:
    name = "encoder/layer_0/ffn/linear_0/weight"
    scale = np.linspace(1, 300, 256, dtype=np.float32)
    stored = np.full((256, 64), -127, np.int8)
    path = tiny.write_ctranslate2(
        tmp_path / "model.bin", arrays | {name: stored, f"{name}_scale": scale}
    )
    weight = read_ctranslate2(path)[1]["encoder.blocks.0.mlp.0.weight"]
    expected = torch.from_numpy(-127 / scale)[:, None].expand(256, 64)
    torch.testing.assert_close(weight, expected)
