"""What a weights file says it holds, checked wholly before MLX maps or reads it.

MLX trusts the header of a file. A damaged or hostile one would be read beyond its end, or would
take all memory. So names, types, shapes and places of all tensors are checked here, and the file is
refused as a whole if anything contradicts anything. Standard library, and NumPy for `.npz`.
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from baldwhisper_mlx.bounds import MOST_HEADER_BYTES, MOST_WEIGHT_BYTES, check_file
from baldwhisper_mlx.files import parse_json
from baldwhisper_mlx.terminal import quoted

ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
"""Bytes of one number by its type in a safetensors file."""

MOST_COMPRESSION = 10
"""How many times larger than the file the tensors in a `.npz` may be; weights compress by half."""

_NPY_TYPES = {
    "b1": "BOOL", "u1": "U8", "i1": "I8", "u2": "U16", "i2": "I16", "f2": "F16",
    "u4": "U32", "i4": "I32", "f4": "F32", "u8": "U64", "i8": "I64", "f8": "F64", "V2": "BF16",
}  # fmt: skip
"""By kind and bytes; NumPy has no bfloat16, which MLX stores as two bytes of no type."""
_METADATA = "__metadata__"


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file: its type (a key of ITEM_BYTES) and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its bytes in memory."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


Header = dict[str, TensorInfo]
"""The tensors of a file by name."""


def read_tensor_header(path: Path) -> Header:
    """Reads and checks the header of a safetensors file.

    The format: https://github.com/huggingface/safetensors#format. Everything that the library
    `safetensors` refuses is refused; so are tensors of less than one byte and repeated names.

    Raises:
        ValueError: damaged, of another length than the header says, or no regular file; the
            message names the file.
        FileNotFoundError: there is no such file.
    """
    return _read_safetensors(path)[0]


def read_tensor_metadata(path: Path) -> dict[str, str]:
    """Reads what a safetensors file says about itself: its metadata, empty if it has none.

    Raises:
        ValueError, FileNotFoundError: as for `read_tensor_header`.
    """
    return _read_safetensors(path)[1]


def _read_safetensors(path: Path) -> tuple[Header, dict[str, str]]:
    size = check_file(path, MOST_WEIGHT_BYTES)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= size - 8:
            raise ValueError(f"{path}: not a safetensors file, or truncated in its header")
        if length > MOST_HEADER_BYTES:
            raise ValueError(
                f"{path}: a header of {length} bytes; at most {MOST_HEADER_BYTES} are read"
            )
        text = file.read(length)
    try:
        if not text.startswith(b"{"):
            raise ValueError("it does not begin with {")
        raw = parse_json(text)
        metadata = raw.pop(_METADATA, None) or {}
        if not isinstance(metadata, dict) or any(type(x) is not str for x in metadata.values()):
            raise ValueError(f"{_METADATA} is not an object of strings")
        header, end = _placed(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged safetensors header ({error})") from None
    if size != 8 + length + end:
        raise ValueError(
            f"{path}: truncated or damaged, {size} bytes instead of {8 + length + end}"
        )
    return header, metadata


def _placed(raw: dict[str, Any]) -> tuple[Header, int]:
    """The tensors, which must fill the file without gap or overlap; and where the last one ends."""
    header: Header = {}
    places = []
    for name, entry in raw.items():
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"{quoted(name)} has not exactly a dtype, a shape and data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
            raise ValueError(f"{quoted(name)} has the dtype {quoted(dtype)}, which is not read")
        if not _are_sizes(shape):
            raise ValueError(f"the shape of {quoted(name)} is not a list of whole numbers")
        if not _are_sizes(offsets) or len(offsets) != 2:
            raise ValueError(f"the data_offsets of {quoted(name)} are not two whole numbers")
        header[name] = TensorInfo(dtype, tuple(shape))
        places.append((*offsets, name))
    end = 0
    for start, stop, name in sorted(places):
        if start != end or stop - start != header[name].nbytes:
            raise ValueError(
                f"{quoted(name)} lies at bytes {start} to {stop}, but by its shape and the tensors "
                f"before it at {end} to {end + header[name].nbytes}"
            )
        end = stop
    return header, end


def _are_sizes(values: object) -> bool:
    """Whether it is a list of whole numbers from 0 to 2^63 - 1, at most 32 of them."""
    return (
        isinstance(values, list)
        and len(values) <= 32
        and all(type(value) is int and 0 <= value < 2**63 for value in values)
    )


def read_npz_header(path: Path) -> Header:
    """Reads and checks what a `.npz` file holds, without its values.

    The formats: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html and zip.

    Raises:
        ValueError: damaged, of a type that is no number, no regular file, or a small file that
            unpacks to a large one; the message names the file.
        FileNotFoundError: there is no such file.
    """
    size = check_file(path, MOST_WEIGHT_BYTES)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            total = sum(entry.file_size for entry in entries)
            if total > MOST_COMPRESSION * size:
                raise ValueError(f"{size} bytes that unpack to {total}")
            header: Header = {}
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                if name == entry.filename or name in header:
                    raise ValueError(f"{quoted(entry.filename)} is not a tensor, or is there twice")
                with archive.open(entry) as file:
                    header[name] = _read_npy_header(file, entry.file_size)
    # All exceptions: the readers of zip and of NumPy's headers, which are Python literals, raise a
    # dozen unrelated ones at damaged input.
    except Exception as error:
        raise ValueError(f"{path}: damaged ({str(error) or type(error).__name__})") from None
    return header


def _read_npy_header(file: IO[bytes], size: int) -> TensorInfo:
    # Here, so that safetensors files, which nearly all are, are checked without NumPy.
    from numpy.lib import format as npy

    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(file)
    if version not in readers:
        raise ValueError(f"an array of the unknown version {version}")
    shape, _, dtype = readers[version](file, max_header_size=10_000)
    kind = _NPY_TYPES.get(f"{dtype.kind}{dtype.itemsize}")
    if kind is None or not dtype.isnative or not _are_sizes(list(shape)):
        raise ValueError(f"an array of type {dtype} and shape {shape}")
    info = TensorInfo(kind, tuple(shape))
    if info.nbytes != size - file.tell():
        raise ValueError(f"an array of {info.nbytes} bytes in {size - file.tell()}")
    return info
