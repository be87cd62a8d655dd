"""Reader of CTranslate2's binary format, the one faster-whisper models come in.

The file is a header, a list of named arrays and a list of aliases. It is read through a
memory map, and every length is checked against the rest of the file before anything is allocated,
so a truncated or malicious file is an error. Layout after CTranslate2's
`python/ctranslate2/specs/model_spec.py` (MIT), binary version 6, the only one Whisper
models exist in.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from baldwhisper_convert.checkpoint.key_maps import CTRANSLATE2, match, rename
from baldwhisper_convert.checkpoint.state import Dimensions, State, split_fused

BINARY_VERSION = 6
SPECIFICATION = "WhisperSpec"

# In the order of CTranslate2's DataType enum; numpy has no bfloat16, its bits are kept.
_DTYPES = ("<f4", "i1", "<i2", "<i4", "<f2", "<u2")
_BFLOAT16 = 5

_MOST_AXES = 3
"""Convolutions have three."""

_REQUIRED_SCALARS = {
    "decoder/activation": 3,  # exact GELU
    "decoder/pre_norm": 1,
    "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0,
    "decoder/alibi": 0,
}
_IGNORED_SCALARS = {
    "encoder/num_heads",  # read as dimensions
    "decoder/num_heads",
    "decoder/alignment_heads",  # how CTranslate2 averages heads; the config has the list
    "decoder/alignment_layer",
    "decoder/alibi_use_positive_positions",  # of no effect without alibi
    "decoder/scale_alibi",
}


class _Reader:
    """Bounds-checked little-endian reads from a buffer."""

    def __init__(self, buffer: mmap.mmap, path: Path) -> None:
        self.buffer, self.path, self.offset = buffer, path, 0

    def take(self, count: int, what: str) -> int:
        """Reserves `count` bytes and returns where they start."""
        start = self.offset
        if count > len(self.buffer) - start:
            raise ValueError(
                f"{self.path}: truncated or not a CTranslate2 model: {what} at byte {start} "
                f"needs {count} bytes, {len(self.buffer) - start} are left"
            )
        self.offset += count
        return start

    def number(self, code: str, what: str) -> int:
        """One unsigned integer by its struct code."""
        start = self.take(struct.calcsize("<" + code), what)
        return int(struct.unpack_from("<" + code, self.buffer, start)[0])

    def string(self, what: str) -> str:
        """A string with its length before it and a zero byte after it."""
        length = self.number("H", what)
        start = self.take(length, what)
        try:
            return self.buffer[start : start + length].rstrip(b"\0").decode()
        except UnicodeDecodeError:
            raise ValueError(
                f"{self.path}: {what} at byte {start} is not text; not a CTranslate2 model"
            ) from None

    def array(self, name: str) -> torch.Tensor:
        """One array, copied out of the file; its size must agree with its shape."""
        ndim = self.number("B", f"shape of {name}")
        shape = [self.number("I", f"shape of {name}") for _ in range(ndim)]
        if ndim > _MOST_AXES:
            raise ValueError(f"{self.path}: {name} has {ndim} dimensions; not a Whisper")
        code, size = self.number("B", f"type of {name}"), self.number("I", f"size of {name}")
        if code >= len(_DTYPES):
            raise ValueError(f"{self.path}: {name} has the unknown data type {code}")
        dtype = np.dtype(_DTYPES[code])
        if math.prod(shape) * dtype.itemsize != size:
            raise ValueError(
                f"{self.path}: {name} has shape {shape} of {dtype.itemsize} bytes each, "
                f"but a size of {size} bytes"
            )
        start = self.take(size, name)
        flat: npt.NDArray[np.generic] = np.frombuffer(
            self.buffer, dtype, count=size // dtype.itemsize, offset=start
        )
        if code == _BFLOAT16:
            # torch has no uint16 arithmetic in every version, int16 carries the same bits.
            bits = torch.from_numpy(flat.view(np.int16).copy())
            return bits.view(torch.bfloat16).reshape(shape)
        return torch.from_numpy(flat.copy()).reshape(shape)


def read_variables(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Reads every array of a `model.bin`.

    Args:
        path: the file.

    Returns:
        Arrays by name as they are stored (float32, int8, int16, int32, float16 or bfloat16),
        and aliases: another name to the name of the array it stands for.

    Raises:
        ValueError: not a CTranslate2 Whisper, truncated, or inconsistent; names the file.
    """
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: empty file, expected a CTranslate2 model")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
        reader = _Reader(buffer, path)
        version = reader.number("I", "version")
        if version != BINARY_VERSION:
            raise ValueError(
                f"{path}: not a CTranslate2 model of binary version {BINARY_VERSION} (found "
                f"{version}); convert the original checkpoint instead"
            )
        specification, revision = reader.string("name"), reader.number("I", "revision")
        if specification != SPECIFICATION:
            raise ValueError(
                f"{path}: a CTranslate2 {specification or 'model'}, expected {SPECIFICATION} "
                f"(found revision {revision})"
            )
        variables: dict[str, torch.Tensor] = {}
        for _ in range(reader.number("I", "number of arrays")):
            name = reader.string("array name")
            if name in variables:
                raise ValueError(f"{path}: {name} occurs twice")
            variables[name] = reader.array(name)
        aliases: dict[str, str] = {}
        for _ in range(reader.number("I", "number of aliases")):
            name, target = reader.string("alias"), reader.string("alias target")
            if name in variables or name in aliases or target not in variables:
                raise ValueError(f"{path}: alias {name} of {target} fits no array")
            aliases[name] = target
        if reader.offset != len(buffer):
            raise ValueError(f"{path}: {len(buffer) - reader.offset} bytes after the end")
    return variables, aliases


def read_ctranslate2(path: Path) -> tuple[Dimensions, State]:
    """Reads a Whisper from a CTranslate2 `model.bin`, dequantizing int8 and int16 weights.

    Returns:
        Dimensions (mel bins from the first convolution, heads from the file's scalars) and
        the state in canonical names, not yet checked for completeness.

    Raises:
        ValueError: as `read_variables`; or the architecture is not that of a Whisper.
    """
    variables, aliases = read_variables(path)
    arrays = _dequantized(variables, path)
    arrays |= {name: arrays[target] for name, target in aliases.items() if target in arrays}
    for name, value in _REQUIRED_SCALARS.items():
        scalar = arrays.pop(name, None)
        if scalar is not None and (scalar.ndim or float(scalar.item()) != value):
            raise ValueError(f"{path}: {name} is {scalar.tolist()}, but a Whisper has {value}")
    dims = _dimensions(arrays, path)
    names = rename(arrays.keys() - _IGNORED_SCALARS, CTRANSLATE2, str(path))
    projection = arrays.get("decoder/projection/weight")
    embedding = arrays["decoder/embeddings/weight"]
    if projection is not None and not torch.equal(projection.float(), embedding.float()):
        raise ValueError(
            f"{path}: decoder/projection/weight differs from decoder/embeddings/weight; "
            "only models that tie the two can be exported"
        )
    state = {new: arrays[old] for old, new in names.items() if new is not None}
    return dims, split_fused(state, str(path))


def _dequantized(variables: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """Float arrays: stored integers divided by their `*_scale`, per row or per tensor."""
    floats: dict[str, torch.Tensor] = {}
    for name, tensor in variables.items():
        if name.endswith("_scale") and name.removesuffix("_scale") in variables:
            continue
        scale = variables.get(f"{name}_scale")
        if scale is None:
            floats[name] = tensor
            continue
        if scale.ndim > 1 or (scale.ndim == 1 and scale.shape != tensor.shape[:1]):
            raise ValueError(f"{path}: {name}_scale has shape {list(scale.shape)}")
        if not bool((scale > 0).all()):
            raise ValueError(f"{path}: {name}_scale is not positive everywhere")
        by_row = scale.float().reshape(-1, *[1] * (tensor.ndim - 1)) if scale.ndim else scale
        floats[name] = tensor.float() / by_row
    return floats


def _dimensions(arrays: dict[str, torch.Tensor], path: Path) -> Dimensions:
    def shape(name: str, ndim: int) -> torch.Size:
        if name not in arrays or arrays[name].ndim != ndim:
            actual = list(arrays[name].shape) if name in arrays else "none"
            raise ValueError(f"{path}: expected {name} of {ndim} dimensions, found {actual}")
        return arrays[name].shape

    def layers(side: str) -> int:
        pattern = f"{side}/layer_{{i}}/ffn/layer_norm/gamma"
        matches = [match(pattern, name) for name in arrays]
        return max((int(values["i"]) + 1 for values in matches if values), default=0)

    shape("encoder/num_heads", 0), shape("decoder/num_heads", 0)
    audio, text = (shape(f"{s}/position_encodings/encodings", 2) for s in ("encoder", "decoder"))
    try:
        return Dimensions(
            n_mels=shape("encoder/conv1/weight", 3)[1],
            n_audio_ctx=audio[0],
            n_audio_state=audio[1],
            n_audio_head=_whole(arrays["encoder/num_heads"]),
            n_audio_layer=layers("encoder"),
            n_vocab=shape("decoder/embeddings/weight", 2)[0],
            n_text_ctx=text[0],
            n_text_state=text[1],
            n_text_head=_whole(arrays["decoder/num_heads"]),
            n_text_layer=layers("decoder"),
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _whole(scalar: torch.Tensor) -> int:
    """A stored number of heads; 0, which no dimension may be, if it is no whole number."""
    value = float(scalar.item())
    return int(value) if value.is_integer() else 0
