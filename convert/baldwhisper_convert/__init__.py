"""The compressor: any Whisper checkpoint in, a model folder for baldwhisper_mlx out.

    >>> from baldwhisper_convert import export_mlx, read_checkpoint
    >>> export_mlx(read_checkpoint("openai/whisper-base"), "models/whisper-base")

Importing the package is cheap; torch loads with the first attribute that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
    from baldwhisper_convert.checkpoint.state import Dimensions
    from baldwhisper_convert.checkpoint.vocabulary import Vocabulary
    from baldwhisper_convert.export.mlx import export_mlx
    from baldwhisper_convert.readers.read import read_checkpoint

__all__ = ["Checkpoint", "Dimensions", "Vocabulary", "export_mlx", "read_checkpoint"]

_HOME = {
    "Checkpoint": "checkpoint.checkpoint",
    "Dimensions": "checkpoint.state",
    "Vocabulary": "checkpoint.vocabulary",
    "export_mlx": "export.mlx",
    "read_checkpoint": "readers.read",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
