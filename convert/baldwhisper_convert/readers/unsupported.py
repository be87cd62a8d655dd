"""Sources that cannot be converted, recognized by what marks them: one sentence each.

Without these checks such a source is an unpickling error or a list of unexpected tensor names,
neither of which says what it is or what to do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

_OTHER_FORMATS = {
    b"lmgg": "whisper.cpp (ggml)",
    b"fmgg": "whisper.cpp (ggml)",
    b"tjgg": "whisper.cpp (ggml)",
    b"GGUF": "GGUF (llama.cpp, whisper.cpp)",
    b"TFL3": "TensorFlow Lite",
    b"\x89HDF": "Keras or TensorFlow (HDF5)",
}
"""The first four bytes of files that some name `.bin` or `.pt` too (TFLite's are bytes 4 to 7)."""

_QUANTIZED_LEAVES = {
    "SCB": "bitsandbytes",
    "absmax": "bitsandbytes",
    "quant_map": "bitsandbytes",
    "qweight": "GPTQ or AWQ",
    "qzeros": "GPTQ or AWQ",
    "weight_scale_inv": "fp8",
    "weight_packed": "compressed-tensors",
}
"""Last part of a tensor's name to the program that quantizes so."""


def refuse_other_format(path: Path) -> None:
    """Refuses a file of another program's format, whatever its name.

    Raises:
        ValueError: it is one; the message says which.
    """
    with path.open("rb") as file:
        start = file.read(8)
    program = _OTHER_FORMATS.get(start[:4]) or _OTHER_FORMATS.get(start[4:])
    if program is not None:
        raise ValueError(
            f"{path}: a {program} file, which cannot be converted; give the original checkpoint "
            "that it was made from"
        )


def refuse_foreign_folder(names: Collection[str], source: str) -> None:
    """Refuses a folder without weights that are read, if it has another program's.

    Args:
        names: its files.
        source: the folder or repository, for the message.

    Raises:
        ValueError: it has them; the message says which.
    """
    for name in sorted(names):
        if name.endswith(".gguf") or (name.startswith("ggml") and name.endswith(".bin")):
            raise ValueError(
                f"{source}: has the weights of whisper.cpp ({name}), which cannot be converted; "
                "give the original checkpoint that they were made from"
            )


def refuse_quantized_config(config: Mapping[str, Any], path: Path) -> None:
    """Refuses a model that transformers stored quantized.

    Args:
        config: contents of `path`.
        path: the `config.json`.

    Raises:
        ValueError: it names a method of quantization.
    """
    settings = config.get("quantization_config")
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    if method is not None:
        raise ValueError(_quantized(str(path), str(method)))


def refuse_quantized_tensors(tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Refuses tensors that are quantized, other than by MLX.

    Args:
        tensors: by name, as they are stored.
        source: the file, for the message.

    Raises:
        ValueError: some are; the message names the program, or the type.
    """
    for name, tensor in tensors.items():
        parts = name.split(".")
        program = _QUANTIZED_LEAVES.get(parts[-1])
        if program is not None and len(parts) > 2:
            raise ValueError(_quantized(source, program))
        if tensor.is_quantized or "float8" in str(tensor.dtype) or "float4" in str(tensor.dtype):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(_quantized(source, f"{name}: {kind}"))


def _quantized(source: str, method: str) -> str:
    return (
        f"{source}: quantized ({method}), which cannot be converted; export the model that it was "
        "quantized from, or load it with transformers, call its dequantize(), and save that"
    )
