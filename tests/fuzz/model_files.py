"""Coverage-guided fuzzing of what reads model files, with atheris; run by hand.

    pip install atheris
    python -m tests.fuzz.model_files FOLDER -max_total_time=3600

FOLDER keeps the inputs that reached new code. The first byte of an input chooses the file: config,
header of safetensors, npz, vocabulary, config of mlx-community. Any exception but ValueError and
FileNotFoundError, 10 s for one input, or 500 MB end the run, and the input is stored. The default
tests try the same with hypothesis, for seconds.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

atheris: Any = importlib.import_module("atheris")

with atheris.instrument_imports(include=["baldwhisper_mlx", "zipfile", "json", "numpy.lib"]):
    from baldwhisper_mlx.checkpoint.describe import describe_model
    from baldwhisper_mlx.checkpoint.tensor_header import read_npz_header, read_tensor_header
    from baldwhisper_mlx.checkpoint.tensors import expected_tensors
    from baldwhisper_mlx.config import ModelConfig
    from baldwhisper_mlx.text.tokenizer import Tokenizer, read_ranks
from tests.runtime.conftest import tiny_config  # noqa: E402
from tests.support.hostile_models import DIMENSIONS  # noqa: E402

WORK = Path(tempfile.mkdtemp())
CONFIG = tiny_config()


def read_config(path: Path) -> None:
    """A config, and which tensors it asks for."""
    expected_tensors(ModelConfig.from_file(path))


def read_vocabulary(path: Path) -> None:
    """A vocabulary; one that is taken decodes every id."""
    tokenizer = Tokenizer(read_ranks(path), CONFIG, str(path))
    for token in range(CONFIG.timestamp_begin):
        tokenizer.decode([token], special=True)


def read_community(path: Path) -> None:
    """A config beside weights of mlx-community."""
    folder = WORK / "community"
    folder.mkdir(exist_ok=True)
    text = b'{"encoder.conv1.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (folder / "weights.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    path.replace(folder / "config.json")
    describe_model(folder)


TARGETS: tuple[Callable[[Path], object], ...] = (
    read_config, read_tensor_header, read_npz_header, read_vocabulary, read_community,
)  # fmt: skip


def one_input(data: bytes) -> None:
    """Reads the bytes as the file that the first one says."""
    if not data:
        return
    path = WORK / "input"
    path.write_bytes(data[1:])
    try:
        TARGETS[data[0] % len(TARGETS)](path)
    except (ValueError, FileNotFoundError):
        return


def seeds() -> list[bytes]:
    """A sound file for each target."""
    text = json.dumps(
        {
            "__metadata__": {"format": "x"},
            "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
            "b": {"dtype": "U8", "shape": [3], "data_offsets": [8, 11]},
        }
    ).encode()
    npz = io.BytesIO()
    np.savez(npz, a=np.zeros((2, 2), np.float32), b=np.zeros(3, np.int32))
    ranks = b"".join(base64.b64encode(bytes([i])) + b" %d\n" % i for i in range(256))
    files = (
        json.dumps(CONFIG.to_dict()).encode(),
        struct.pack("<Q", len(text)) + text + bytes(11),
        npz.getvalue(),
        ranks,
        json.dumps(DIMENSIONS | {"quantization": {"bits": 8, "group_size": 32}}).encode(),
    )
    return [bytes([number]) + content for number, content in enumerate(files)]


def main() -> None:
    """Fuzzes until an error is found or the time is over."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds()):
        (folder / f"seed-{number}").write_bytes(content)
    limits = ["-timeout=10", "-rss_limit_mb=700", "-max_len=12000"]
    atheris.Setup([sys.argv[0], str(folder), *limits, *sys.argv[2:]], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
