"""What a contender's files say, read without MLX: sizes, dtype, quantization, dimensions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from baldwhisper_mlx.config import CONFIG_FILE, WEIGHTS_FILE, ModelConfig
from baldwhisper_mlx.info import count_parameters, describe_model
from baldwhisper_mlx.model_files import MODEL_FILES, read_tensor_header


def stored_facts(folder: Path) -> dict[str, Any]:
    """Facts about a model folder.

    Args:
        folder: an exported model, or one of mlx-community's (whose files say less).

    Returns:
        `disk_bytes`, `stored_dtype`, `quantization` and, of an
        exported model, `parameters` and what `describe_model` says of its parts.

    Raises:
        ValueError: a file of an exported model is damaged; the message names it.
    """
    files = [path for path in folder.iterdir() if path.is_file()]
    facts: dict[str, Any] = {
        "disk_bytes": sum(path.stat().st_size for path in files),
        "stored_dtype": None,
        "quantization": None,
    }
    if not all((folder / name).is_file() for name in MODEL_FILES):
        return facts
    config = ModelConfig.from_file(folder / CONFIG_FILE)
    lines = describe_model(folder)
    facts["stored_dtype"] = config.dtype
    facts["quantization"] = None if config.quantization is None else lines["weights"]
    facts["parameters"] = count_parameters(read_tensor_header(folder / WEIGHTS_FILE), config)
    return facts | {key: lines[key] for key in ("encoder", "decoder", "embedding", "context")}
