"""The models of a server by their names in the API."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.server.errors import ApiError
from baldwhisper_mlx.terminal import quoted

OPENAI_NAMES = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
)
"""What clients that were made for OpenAI ask for; they get the default model."""


def name_of(source: str | None, loaded: LoadedModel) -> str:
    """The name of a model in the API, which is no path of this machine.

    Args:
        source: what the user gave: a folder, a Hub id, or None for the bundled model.
        loaded: the model.
    """
    if source is None or Path(source).is_dir():
        return loaded.path.resolve().name
    return source


class Models:
    """The models that are served; the first one is the default.

    Args:
        models: names and models.

    Raises:
        ValueError: none, or two of the same name.
    """

    def __init__(self, models: Sequence[tuple[str, LoadedModel]]) -> None:
        self._models = dict(models)
        if not self._models:
            raise ValueError("there is no model to serve")
        if len(self._models) != len(models):
            raise ValueError(
                "two models have the same name: "
                f"{', '.join(name for name, _ in models)}; rename a folder"
            )
        self._created = int(time.time())

    @property
    def default(self) -> str:
        """The name of the model that is used if none is named."""
        return next(iter(self._models))

    def find(self, name: str | None) -> tuple[str, LoadedModel]:
        """A model by name: the default one for None, and for OpenAI's names.

        Raises:
            ApiError: there is no such model; 404.
        """
        if name is None or (name in OPENAI_NAMES and name not in self._models):
            name = self.default
        if name not in self._models:
            raise ApiError(
                404,
                f"model: there is no {quoted(name)}; this server has {', '.join(self._models)}",
                param="model",
                code="model_not_found",
            )
        return name, self._models[name]

    def describe(self, name: str) -> dict[str, Any]:
        """A model as OpenAI's API describes it.

        Raises:
            ApiError: there is no such model; 404.
        """
        found, _ = self.find(name)
        return {
            "id": found,
            "object": "model",
            "created": self._created,
            "owned_by": "baldwhisper-mlx",
        }

    def list(self) -> dict[str, Any]:
        """All models, the default one first."""
        return {"object": "list", "data": [self.describe(name) for name in self._models]}
