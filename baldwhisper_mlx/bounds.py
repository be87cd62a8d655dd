"""How large a model may be: bounds that are checked before anything is read or built.

A file of a few hundred bytes can claim a million layers. Every reader of the runtime and of the
converter therefore compares dimensions and file sizes with this one table: the largest Whisper,
large-v3, times four. Standard library only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from baldwhisper_mlx.terminal import quoted

FACTOR = 4
"""How many times larger than the largest Whisper a model may be."""

LARGEST = {
    "n_mels": 128,
    "n_audio_ctx": 1500,
    "n_audio_state": 1280,
    "n_audio_head": 20,
    "n_audio_layer": 32,
    "n_vocab": 51_866,
    "n_text_ctx": 448,
    "n_text_state": 1280,
    "n_text_head": 20,
    "n_text_layer": 32,
}
"""Dimensions of OpenAI's large-v3."""

BOUNDS = {name: FACTOR * size for name, size in LARGEST.items()}
"""Largest value of each dimension that is read."""

MOST_PARAMETERS = FACTOR * 1_550_000_000
MOST_WEIGHT_BYTES = 4 * MOST_PARAMETERS
"""Of one weights file, in float32."""
MOST_HEADER_BYTES = FACTOR * 2**20
"""Of the header of a safetensors file; that of a quantized large-v3 takes less than 1 MB."""
MOST_CONFIG_BYTES = 2**20
"""Of a `config.json`."""
MOST_JSON_BYTES = FACTOR * 4_000_000
"""Of any other JSON file of a model. The largest is tokenizer.json: 4 MB."""
MOST_VOCABULARY_BYTES = FACTOR * 2**20
"""Of a vocabulary as a list of tokens; OpenAI's takes 0.8 MB."""


def check_dimensions(values: Mapping[str, Any], keys: Mapping[str, str] | None = None) -> None:
    """Makes sure that dimensions are whole numbers of at least 1, and not too large.

    Args:
        values: any of the ten dimensions, under OpenAI's names; others are not looked at. If all
            that it takes are there, the number of parameters is checked as well.
        keys: OpenAI's name to the key in the source file, for messages; by default the same.

    Raises:
        ValueError: a dimension of another type or range; the message names the key, the value
            and the largest value.

    Example:
        >>> check_dimensions({"n_text_layer": 6})
        >>> check_dimensions({"n_text_layer": 2000}, {"n_text_layer": "decoder_layers"})
        Traceback (most recent call last):
        ...
        ValueError: bad value for decoder_layers: 2000; expected a whole number from 1 to 128
    """
    for name, most in BOUNDS.items():
        value = values.get(name, 1)
        if type(value) is not int or not 1 <= value <= most:
            raise ValueError(
                f"bad value for {(keys or {}).get(name, name)}: {quoted(value)}; expected a whole "
                f"number from 1 to {most}"
            )
    if BOUNDS.keys() <= values.keys():
        count = parameters_at_least(values)
        if count > MOST_PARAMETERS:
            raise ValueError(
                f"the dimensions are those of a model of {count / 1e9:.1f} billion parameters; "
                f"at most {MOST_PARAMETERS / 1e9:.1f} billion are read"
            )


def parameters_at_least(dims: Mapping[str, int]) -> int:
    """Parameters of a model without its token embedding, biases and norms.

    Without the embedding, because a factorized one may be small.

    Args:
        dims: OpenAI's ten dimensions.

    Example:
        >>> parameters_at_least(LARGEST) // 10**6
        1476
    """
    audio, text = dims["n_audio_state"], dims["n_text_state"]
    convolutions = 3 * audio * (dims["n_mels"] + audio)
    positions = dims["n_audio_ctx"] * audio + dims["n_text_ctx"] * text
    encoder = dims["n_audio_layer"] * 12 * audio * audio
    decoder = dims["n_text_layer"] * (14 * text * text + 2 * audio * text)
    return convolutions + positions + encoder + decoder


def check_file(path: Path, most: int) -> int:
    """Makes sure, before it is opened, that a path is a regular file of a sane size.

    A pipe would block for ever, and a device such as /dev/zero has no end.

    Args:
        path: may be a link to the file.
        most: bytes.

    Returns:
        Its size in bytes.

    Raises:
        FileNotFoundError: there is nothing of that name; the message names it.
        ValueError: a folder, pipe, device or socket, or too large; the message names it.
        OSError: it cannot be looked at, for example without permission.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{path}: missing") from None
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path}: not a regular file, but {_kind(found.st_mode)}")
    if found.st_size > most:
        raise ValueError(f"{path}: {found.st_size} bytes; at most {most} are read from such a file")
    return found.st_size


def read_bounded(path: Path, most: int) -> bytes:
    """The bytes of a regular file of a sane size.

    Args:
        path: may be a link to the file.
        most: bytes.

    Raises:
        FileNotFoundError, ValueError, OSError: as for `check_file`.
    """
    check_file(path, most)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:  # it grew, or is one of those that report a size of 0
        raise ValueError(f"{path}: more than {most} bytes; no more are read from such a file")
    return content


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")
