"""Which kind of model a folder holds, by its `config.json` alone.

Nothing else is needed to say that a model cannot be run, so the weights of such a model are neither
downloaded nor opened. Standard library only.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Literal

from baldwhisper_mlx.bounds import MOST_CONFIG_BYTES
from baldwhisper_mlx.config import CONFIG_FILE, MODEL_TYPE, ModelConfig
from baldwhisper_mlx.files import peek_json

Kind = Literal["baldwhisper", "mlx-whisper", "transformers", "other"]

KINDS: tuple[Kind, ...] = ("baldwhisper", "mlx-whisper")
"""What the runtime reads: folders of `baldwhisper-convert export`, and those of mlx-community."""

DIMENSIONS = tuple(field.name for field in fields(ModelConfig) if field.name.startswith("n_"))
"""The ten dimensions of OpenAI's ModelDimensions."""

_TRANSFORMERS = {"d_model", "encoder_layers"}


def kind_of(folder: Path) -> Kind:
    """What the `config.json` of a folder says that the folder holds.

    "transformers" are Hugging Face's Whisper checkpoints. "other" is any other model, or a folder
    without a readable config.

    Example:
        >>> kind_of(BUNDLED)
        'baldwhisper'
    """
    config = peek_json(folder / CONFIG_FILE, MOST_CONFIG_BYTES)
    kind = config.get("model_type", "whisper")
    if kind == MODEL_TYPE:
        return "baldwhisper"
    if kind == "whisper" and set(DIMENSIONS) <= config.keys():
        return "mlx-whisper"
    if kind == "whisper" and config.keys() >= _TRANSFORMERS:
        return "transformers"
    return "other"


def is_community(folder: Path) -> bool:
    """Whether `config.json` is one of mlx-whisper's: it has OpenAI's dimensions."""
    return kind_of(folder) == "mlx-whisper"


def why_not(name: str, kind: Kind) -> str:
    """Why a model that is none of `KINDS` is not run, and what to do."""
    if kind == "transformers":
        return (
            f"{name}: a Whisper in transformers' format; convert it first: "
            f"baldwhisper-convert export {name} FOLDER"
        )
    return (
        f"{name}: not a model that baldwhisper can run. If it is a Whisper checkpoint, "
        f"convert it: baldwhisper-convert export {name} FOLDER"
    )
