"""The header of a weights file is checked as the library `safetensors` does, and more strictly."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import load, save

from baldwhisper_mlx.bounds import MOST_HEADER_BYTES
from baldwhisper_mlx.checkpoint import tensor_header
from baldwhisper_mlx.checkpoint.tensor_header import (
    ITEM_BYTES,
    Header,
    TensorInfo,
    read_npz_header,
    read_tensor_header,
    read_tensor_metadata,
)

PROPERTY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
B = {"dtype": "U8", "shape": [3], "data_offsets": [8, 11]}


NPY = {kind: np.dtype(code) for code, kind in tensor_header._NPY_TYPES.items()}


def sound(path: Path, read: Callable[[Path], Header]) -> Header | None:
    """What is read; None if it is refused with an error that names the file."""
    try:
        return read(path)
    except ValueError as error:
        if not str(error).startswith(f"{path}: "):
            raise
    return None


def stored(path: Path, header: Any, data: bytes = bytes(11)) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def theirs(path: Path) -> dict[str, Any] | None:
    """The tensors by the library, or None if it refuses the file."""
    try:
        return dict(load(path.read_bytes()))
    except (SafetensorError, KeyError):
        return None


def test_a_sound_file(tmp_path: Path) -> None:
    path = stored(tmp_path / "a", {"a": A, "b": B, "__metadata__": {"x": "y"}})
    assert read_tensor_header(path) == {"a": TensorInfo("F32", (2,)), "b": TensorInfo("U8", (3,))}
    assert read_tensor_metadata(path) == {"x": "y"}
    found = theirs(path)
    assert found is not None
    assert found.keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": A, "b": B | {"data_offsets": [7, 10]}}, "lies at bytes 7 to 10"),  # overlap
        ({"a": A, "b": B | {"data_offsets": [0, 3]}}, "lies at bytes"),  # overlap
        ({"a": A, "b": B | {"data_offsets": [10**12, 11]}}, "lies at bytes"),
        ({"a": A, "b": B | {"data_offsets": [10**12, 10**12 + 3]}}, "lies at bytes"),
        ({"a": A, "b": B | {"data_offsets": [9, 12]}}, "lies at bytes 9"),  # a gap
        ({"a": A, "b": B | {"data_offsets": [11, 8]}}, "lies at bytes"),
        ({"a": A, "b": B | {"data_offsets": [-8, -5]}}, "not two whole numbers"),
        ({"a": A, "b": B | {"data_offsets": [8.0, 11.0]}}, "not two whole numbers"),
        ({"a": A, "b": B | {"data_offsets": [8, "11"]}}, "not two whole numbers"),
        ({"a": A, "b": B | {"data_offsets": [8]}}, "not two whole numbers"),
        ({"a": A, "b": B | {"data_offsets": 8}}, "not two whole numbers"),
        ({"a": A, "b": B | {"data_offsets": [2**64 + 8, 2**64 + 11]}}, "not two whole numbers"),
        (b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,1e999]}}', "not two whole numbers"),
        ({"a": A, "b": B | {"shape": [4]}}, "lies at bytes"),
        ({"a": A, "b": B | {"shape": [True, 3]}}, "shape of 'b'"),
        ({"a": A, "b": B | {"shape": [-1, -3]}}, "shape of 'b'"),
        ({"a": A, "b": B | {"shape": [1.5, 2]}}, "shape of 'b'"),
        ({"a": A, "b": B | {"shape": None}}, "shape of 'b'"),
        ({"a": A, "b": B | {"shape": [2**62, 2**62]}}, "lies at bytes"),
        ({"a": A, "b": B | {"shape": [1] * 1000 + [3]}}, "shape of 'b'"),
        ({"a": A, "b": B | {"dtype": "F4"}}, "has the dtype 'F4'"),
        ({"a": A, "b": B | {"dtype": ["U8"]}}, "has the dtype"),
        ({"a": A, "b": {"dtype": "U8", "data_offsets": [8, 11]}}, "'b' has not exactly"),
        ({"a": A, "b": B | {"more": 1}}, "'b' has not exactly"),
        ({"a": A, "b": 5}, "'b' has not exactly"),
        ({"a": A, "\x1b[31m": 5}, r"'\\x1b\[31m' has not exactly"),
        (b'{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},'
         b'"a":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}}', "key 'a' occurs twice"),
        ({"a": A, "b": B, "__metadata__": 5}, "__metadata__ is not"),
        ({"a": A, "b": B, "__metadata__": {"x": 1}}, "__metadata__ is not"),
        (b"[]", "begin with {"),
        (b" {}", "begin with {"),
        (b"{" * 100_000, ""),
        (b'{"a": ' + b"[" * 100_000, ""),
        (b'{"a": ' + b"1" * 5000 + b"}", "a number of 5000 digits"),
        (b'{"\xff": 1}', "utf-8"),
    ],
)  # fmt: skip
def test_a_header_that_contradicts_itself(tmp_path: Path, header: Any, message: str) -> None:
    path = stored(tmp_path / "a", header)
    with pytest.raises(ValueError, match=rf"a: damaged safetensors header .*{message}"):
        read_tensor_header(path)
    # The library leaves it to its users whether they read such types and repeated names.
    if not any(words in message for words in ("occurs twice", "not exactly", "of 'b'")):
        assert theirs(path) is None


@pytest.mark.parametrize("size", [0, 7, 8, 9])
def test_a_file_without_a_header(tmp_path: Path, size: int) -> None:
    (tmp_path / "a").write_bytes(bytes(size))
    with pytest.raises(ValueError, match="a: not a safetensors file"):
        read_tensor_header(tmp_path / "a")


@pytest.mark.parametrize("extra", [-1, 1, 1000])
def test_a_file_of_another_length(tmp_path: Path, extra: int) -> None:
    path = stored(tmp_path / "a", {"a": A, "b": B}, bytes(11 + extra))
    with pytest.raises(ValueError, match="a: truncated or damaged"):
        read_tensor_header(path)
    assert theirs(path) is None


def test_a_large_header_is_not_read(tmp_path: Path) -> None:
    """A hundred megabytes of JSON take gigabytes of memory."""
    path = tmp_path / "a"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", MOST_HEADER_BYTES + 1))
        file.truncate(2 * MOST_HEADER_BYTES)
    with pytest.raises(ValueError, match=f"a: a header of {MOST_HEADER_BYTES + 1} bytes"):
        read_tensor_header(path)


shapes = st.lists(st.integers(0, 4), max_size=4)
types = st.sampled_from(["F16", "F32", "U8", "I32", "U32", "I64", "BOOL", "F64"])
numbers = st.integers(-2, 40) | st.floats() | st.sampled_from([2**32, 2**63, 2**64]) | st.none()


@PROPERTY
@given(
    tensors=st.dictionaries(st.text(max_size=5), st.tuples(types, shapes), max_size=4),
    metadata=st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)
def test_what_the_library_writes_is_read(tmp_path: Path, tensors: Any, metadata: Any) -> None:
    tensors.pop("__metadata__", None)
    metadata = metadata if tensors else None  # the library writes no JSON for nothing but metadata
    kinds = {v: k for k, v in tensor_header._NPY_TYPES.items()}
    arrays = {
        n: np.zeros(s, np.dtype(kinds[t].replace("b1", "?"))) for n, (t, s) in tensors.items()
    }
    path = tmp_path / "a"
    path.write_bytes(save(arrays, metadata))
    expected = {name: TensorInfo(kind, tuple(shape)) for name, (kind, shape) in tensors.items()}
    assert read_tensor_header(path) == expected
    assert read_tensor_metadata(path) == (metadata or {})


@PROPERTY
@given(
    entries=st.dictionaries(
        st.sampled_from("abc"),
        st.fixed_dictionaries(
            {
                "dtype": types | st.just("X"),
                "shape": st.lists(numbers, max_size=2),
                "data_offsets": st.lists(numbers, min_size=1, max_size=3),
            }
        )
        | st.fixed_dictionaries(
            {"dtype": st.just("U8"), "shape": st.just([4])},
            optional={"data_offsets": st.sampled_from([[0, 4], [4, 8], [8, 12], [2, 6], [0, 8]])},
        ),
        max_size=3,
    ),
    size=st.sampled_from([0, 4, 8, 12]),
)
def test_what_is_read_the_library_reads_alike(tmp_path: Path, entries: Any, size: int) -> None:
    path = stored(tmp_path / "a", entries, bytes(size))
    header = sound(path, read_tensor_header)
    if header is None:
        return
    found = theirs(path)
    assert found is not None
    assert {name: info.shape for name, info in header.items()} == {
        name: array.shape for name, array in found.items()
    }
    assert sum(info.nbytes for info in header.values()) == size


@PROPERTY
@given(data=st.binary(max_size=60), length=st.integers(0, 70) | st.integers(0, 2**64 - 1))
def test_any_bytes_are_refused_or_sound(tmp_path: Path, data: bytes, length: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(struct.pack("<Q", length) + data)
    if sound(path, read_tensor_header) is not None:
        assert theirs(path) is not None


def test_item_sizes_are_those_of_the_library() -> None:
    for kind, dtype in NPY.items():
        assert ITEM_BYTES[kind] == dtype.itemsize
    assert ITEM_BYTES["BF16"] == 2


# ---- npz


def test_a_sound_npz(tmp_path: Path) -> None:
    columns = np.asfortranarray(np.zeros((2, 3), np.float16))  # as MLX saves a transposed array
    arrays = {"a.b": columns, "c": np.arange(4, dtype=np.uint32)}
    for name, save_npz in (("a.npz", np.savez), ("b.npz", np.savez_compressed)):
        save_npz(tmp_path / name, **arrays)  # type: ignore[arg-type]
        expected = {"a.b": TensorInfo("F16", (2, 3)), "c": TensorInfo("U32", (4,))}
        assert read_npz_header(tmp_path / name) == expected


def zipped(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data


ARRAY = "{'descr': '%s', 'fortran_order': %s, 'shape': %s}"
FLOATS = ARRAY % ("<f4", False, "%s")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"a.npy": npy(FLOATS % "(1000000000000,)", bytes(8))}, "4000000000000 bytes in 8"),
        ({"a.npy": npy(FLOATS % "(3,)", bytes(8))}, "12 bytes in 8"),
        ({"a.npy": npy(FLOATS % "(-2,)", bytes(8))}, "shape"),
        ({"a.npy": npy(FLOATS % "(2.0,)", bytes(8))}, ""),
        ({"a.npy": npy(FLOATS % "'x'", bytes(8))}, ""),
        ({"a.npy": npy(ARRAY % ("|O", False, "(1,)"), b"N.")}, "object"),
        ({"a.npy": npy(ARRAY % (">f4", False, "(2,)"), bytes(8))}, ">f4"),
        ({"a.npy": npy(ARRAY % ("<c8", False, "(1,)"), bytes(8))}, "com"),
        ({"a.npy": npy("(" * 5000, bytes(8))}, ""),
        ({"a.npy": npy("__import__('os')", bytes(8))}, ""),
        ({"a.npy": npy(FLOATS % "(2,)", bytes(8), b"\x03\x00")}, "version"),
        ({"a.npy": b"\x93NUMPY"}, ""),
        ({"a.npy": b""}, ""),
        ({"a.txt": b"hello"}, "not a tensor"),
        ({"a\x1b.txt": b"hello"}, r"a\\x1b"),
    ],
)  # fmt: skip
def test_npz_files_that_are_refused(tmp_path: Path, entries: Any, message: str) -> None:
    path = zipped(tmp_path / "a.npz", entries)
    with pytest.raises(ValueError, match=rf"a\.npz: damaged \(.*{message}"):
        read_npz_header(path)


def test_a_small_file_that_unpacks_to_a_large_one(tmp_path: Path) -> None:
    data = npy(FLOATS % "(25000000,)", bytes(10**8))
    path = zipped(tmp_path / "a.npz", {"a.npy": data}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**6
    with pytest.raises(ValueError, match="bytes that unpack to 1000"):
        read_npz_header(path)


@PROPERTY
@given(changes=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=4))
def test_npz_with_flipped_bits(tmp_path: Path, changes: list[tuple[float, int]]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros((2, 2), np.float32), b=np.zeros(3, np.int32))
    data = bytearray(buffer.getvalue())
    for place, bits in changes:
        data[int(place * (len(data) - 1))] ^= bits
    path = tmp_path / "a.npz"
    path.write_bytes(data)
    header = sound(path, read_npz_header) or {}
    assert sum(info.nbytes for info in header.values()) <= len(data)
