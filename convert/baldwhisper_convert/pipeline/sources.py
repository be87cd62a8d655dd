"""Where the teacher and the data of a recipe are, and the error that lists its problems."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.data.prepare_settings import PrepareSettings
from baldwhisper_convert.pipeline.planned_data import PlannedData
from baldwhisper_convert.pipeline.recipe import Recipe
from baldwhisper_convert.pipeline.settings import RecipeError
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_mlx.audio.speech_dataset import read_rows


@dataclass
class Sources:
    """Where the data of a recipe is, and what of it has been read."""

    recipe: Recipe
    source_of: Callable[[str], str]
    """The source of data, by its name in the recipe."""
    text_of: Callable[[str], Path]
    noise: str | None = None
    """Replaces the folders of noise."""
    skip_bad: bool = False
    planned: dict[tuple[str, bool], PlannedData | None] = field(default_factory=dict)
    """By name, and whether the teacher's encoder is the recipe's own; None if it cannot be read."""

    def settings_of(self, name: str) -> PrepareSettings:
        """How a data set is prepared, with this run's folder of noise."""
        settings = self.recipe.data[name].settings
        if not self.noise or not settings.augmentation.recordings:
            return settings
        noisy = dataclasses.replace(settings.augmentation, recordings=self.noise)
        return dataclasses.replace(settings, augmentation=noisy)


def read_teacher(sources: Sources) -> Checkpoint:
    """Reads the teacher of a recipe.

    Raises:
        RecipeError: it cannot be read; names the missing sources of data too.
    """
    recipe = sources.recipe
    try:
        return read_checkpoint(recipe.teacher, revision=recipe.revision, tokenizer=recipe.tokenizer)
    except (ValueError, OSError) as error:
        problems = [f"teacher: {' '.join(str(error).split())}"]
    for name in dict.fromkeys(name for stage in recipe.stages for name in stage.data_names):
        data = recipe.data[name]
        try:
            read_rows(sources.source_of(name), split=data.split, streaming=True)
        except (ValueError, OSError, ModuleNotFoundError) as error:
            problems.append(f"data.{name}.source: {' '.join(str(error).split())}")
    raise RecipeError(problems)
