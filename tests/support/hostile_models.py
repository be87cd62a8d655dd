"""Damaged and hostile model folders, made from a sound tiny one."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Change = Callable[[Path], object]

DIMENSIONS = {
    "n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 32, "n_audio_head": 2, "n_audio_layer": 1,
    "n_vocab": 51865, "n_text_ctx": 448, "n_text_state": 32, "n_text_head": 2, "n_text_layer": 1,
}  # fmt: skip
"""A config of mlx-community's, of a small model."""


def config(**changes: Any) -> Change:
    """Values of the config that differ."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def header(edit: Callable[[dict[str, Any]], object]) -> Change:
    """A change in the header of the weights, whose data stay."""

    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        parsed = json.loads(data[8 : 8 + length])
        edit(parsed)
        text = json.dumps(parsed).encode().replace(b"Infinity", b"1e999")
        path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return change


def first(**changes: Any) -> Change:
    """A change in the header's entry of one tensor."""
    return header(lambda parsed: parsed["encoder.conv1.bias"].update(changes))


def dense_ids(*ids: int) -> Change:
    """Other values of the ids of dense rows, whose bytes in the file are replaced."""

    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        data = bytearray(path.read_bytes())
        (length,) = struct.unpack("<Q", data[:8])
        entry = json.loads(data[8 : 8 + length])["decoder.token_embedding.dense_ids"]
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        data[begin:end] = np.array(ids, np.int32).tobytes()
        path.write_bytes(data)

    return change


def instead(name: str, make: Callable[[Path], object]) -> Change:
    """Something else under the name of a file."""

    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


def written(name: str, content: bytes) -> Change:
    """Other content of a file."""
    return lambda folder: (folder / name).write_bytes(content)


def sparse(path: Path) -> None:
    """A file of a terabyte that takes no space."""
    path.touch()
    os.truncate(path, 2**40)


def zero(path: Path) -> None:
    """A link to a device without end."""
    path.symlink_to("/dev/zero")


def community(
    dims: dict[str, Any], weights: Callable[[Path], object] | None = None, **more: Any
) -> Change:
    """A folder in mlx-whisper's format: a config, and weights of a few bytes."""

    def change(folder: Path) -> None:
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(DIMENSIONS | dims | more))
        if weights is not None:
            weights(folder)
            return
        text = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
        data = struct.pack("<Q", len(text)) + text + bytes(8)
        (folder / "weights.safetensors").write_bytes(data)

    return change


def huge_npz(folder: Path) -> None:
    """A few hundred bytes that claim four terabytes."""
    import zipfile

    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(8)
    with zipfile.ZipFile(folder / "weights.npz", "w") as archive:
        archive.writestr("a.npy", array)


def zip_bomb(folder: Path) -> None:
    """A megabyte that unpacks to one gigabyte."""
    import zipfile

    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (250000000,)}\n"
    with (
        zipfile.ZipFile(folder / "weights.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w", force_zip64=True) as file,
    ):
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
        for _ in range(100):
            file.write(bytes(10**7))


def metadata_bomb(folder: Path) -> None:
    """A header of 90 MB, most of it spaces that take no time to parse, and small objects."""
    path = folder / "model.safetensors"
    text = b'{"a":[' + b"{}," * 30_000_000 + b"{}]}"
    path.write_bytes(struct.pack("<Q", len(text)) + text)


SPECIAL = "special_tokens"


def languages(*names: str) -> Change:
    """Other languages in place of <|en|> and <|fr|>."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        raw = json.loads(path.read_text())
        kept = {k: v for k, v in raw[SPECIAL].items() if k not in ("<|en|>", "<|fr|>")}
        ids = [raw[SPECIAL][name] for name in ("<|en|>", "<|fr|>")]
        raw[SPECIAL] = kept | dict(zip(names, ids, strict=False))
        path.write_text(json.dumps(raw))

    return change


CONFIG, WEIGHTS, VOCABULARY = "config.json", "model.safetensors", "vocabulary.tiktoken"
LIMITS = r"expected a whole number from 1 to"

MODELS: dict[str, tuple[Change, str]] = {
    "config: a pipe": (instead(CONFIG, os.mkfifo), "config.json: not a regular file, but a pipe"),
    "config: no end": (instead(CONFIG, zero), "config.json: not a regular file, but a device"),
    "config: sparse": (instead(CONFIG, sparse), "config.json: 1099511627776 bytes"),
    "config: a folder": (instead(CONFIG, os.mkdir), "config.json: not a regular file, but a fold"),
    "config: many digits": (
        written(CONFIG, b'{"n_mels": ' + b"1" * 5000 + b"}"),
        r"config.json: not valid JSON \(a number of 5000 digits",
    ),
    "config: nested": (written(CONFIG, b"[" * 10**5), "config.json: not valid JSON"),
    "config: a key twice": (
        written(CONFIG, b'{"model_type": "baldwhisper", "model_type": "x"}'),
        "config.json: not valid JSON .*'model_type' occurs twice",
    ),
    "n_audio_ctx 10": (config(n_audio_ctx=10), "config.json: .*n_audio_ctx: 10; windows have 30 s"),
    "n_audio_ctx 3000": (config(n_audio_ctx=3000), "n_audio_ctx: 3000; windows have 30 s"),
    "n_text_ctx": (config(n_text_ctx=2**17), f"config.json: .*n_text_ctx: 131072; {LIMITS} 1792"),
    "n_text_layer": (config(n_text_layer=2**19), f"n_text_layer: 524288; {LIMITS} 128"),
    "n_mels": (config(n_mels=2**19), f"n_mels: 524288; {LIMITS} 512"),
    "n_vocab": (config(n_vocab=10**18), f"n_vocab: 1000000000000000000; {LIMITS}"),
    "width": (
        config(n_audio_state=5120, n_text_state=5120, n_audio_layer=128, n_text_layer=128),
        "model of .* billion parameters",
    ),
    "no language": (languages(), "config.json: .*special_tokens has no language"),
    "escape sequence": (
        languages("<|\x1b]0;owned\x07|>"),
        r"bad name in special_tokens: '<\|\\x1b\]0;owned\\x07\|>'",
    ),
    "heads twice": (config(alignment_heads=[[0, 0]] * 1000), "alignment_heads.*there twice"),
    "dense_ids: outside": (dense_ids(0, 1, 2**31 - 1), "dense_ids must .* but has 2147483647"),
    "dense_ids: next": (dense_ids(0, 1, 1767), "dense_ids must be distinct .* but has 1767"),
    "dense_ids: negative": (dense_ids(0, 1, -1), "dense_ids must be distinct .* but has -1"),
    "dense_ids: twice": (dense_ids(0, 1, 1), "dense_ids must be distinct .* but has 1 twice"),
    "weights: a pipe": (instead(WEIGHTS, os.mkfifo), "model.safetensors: not a regular file"),
    "weights: no end": (instead(WEIGHTS, zero), "model.safetensors: not a regular file"),
    "weights: sparse": (instead(WEIGHTS, sparse), "model.safetensors: 1099511627776 bytes"),
    "weights: header": (metadata_bomb, "model.safetensors: a header of .* bytes; at most"),
    "weights: another type": (first(dtype="I32"), "another type: encoder.conv1.bias I32"),
    "weights: one more": (
        header(lambda p: p.update(foo={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})),
        "tensors unexpected: 'foo'",
    ),
    "weights: no shape": (
        header(lambda parsed: parsed["encoder.conv1.bias"].pop("shape")),
        "model.safetensors: damaged safetensors header",
    ),
    "weights: infinity": (
        first(data_offsets=[0, float("inf")]),
        "model.safetensors: damaged safetensors header",
    ),
    "weights: beyond the file": (
        first(data_offsets=[10**12, 10**12 + 128]),
        "model.safetensors: damaged safetensors header",
    ),
    "weights: overlap": (
        header(lambda parsed: parsed["encoder.conv1.bias"].update(
            data_offsets=parsed["encoder.conv2.bias"]["data_offsets"])),
        "model.safetensors: damaged safetensors header",
    ),
    "vocabulary: a pipe": (instead(VOCABULARY, os.mkfifo), "vocabulary.tiktoken: not a regular"),
    "vocabulary: no end": (instead(VOCABULARY, zero), "vocabulary.tiktoken: not a regular file"),
    "vocabulary: sparse": (instead(VOCABULARY, sparse), "vocabulary.tiktoken: 1099511627776 byt"),
    "vocabulary: empty": (written(VOCABULARY, b""), "vocabulary.tiktoken: the file has no tokens"),
    "vocabulary: negative": (
        written(VOCABULARY, b"QQ== -1\n"), "vocabulary.tiktoken: the id -1 is negative"
    ),
    "community: layers": (
        community({"n_text_layer": 2 * 10**6, "n_text_head": 10**6}),
        f"config.json: bad value for n_text_head: 1000000; {LIMITS} 80",
    ),
    "community: positions": (
        community({"n_audio_ctx": 200_000, "n_audio_state": 10_000, "n_text_state": 10_000}),
        f"n_audio_ctx: 200000; {LIMITS} 6000",
    ),
    "community: text": (community({"n_text_ctx": "1"}), f"n_text_ctx: '1'; {LIMITS} 1792"),
    "community: npz": (community({}, huge_npz), r"weights.npz: damaged \(.* bytes in 8\)"),
    "community: zip bomb": (community({}, zip_bomb), "weights.npz: damaged .*unpack to 10000000"),
    "community: quantization": (community({}, quantization=[1]), "bad value for quantization"),
    "community: vocabulary": (community({"n_vocab": 60_000}), "n_vocab is 60000: OpenAI's"),
    "community: tensors": (community({}), "weights.safetensors: .*no encoder.conv1.weight"),
}  # fmt: skip
"""By name: what to change in a copy of the sound folder, and a pattern of the error."""
