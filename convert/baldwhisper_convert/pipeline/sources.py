"""Where the teacher and the data of a recipe are, and the error that lists its problems."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from baldwhisper_convert.checkpoint.average import check_same_form
from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.data.clips import Reading
from baldwhisper_convert.data.prepare_settings import PrepareSettings
from baldwhisper_convert.data.utterances import BadRows, Utterance, read_utterances
from baldwhisper_convert.pipeline.planned_data import PlannedData
from baldwhisper_convert.pipeline.recipe import Recipe
from baldwhisper_convert.pipeline.settings import RecipeError
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_mlx.audio.speech_columns import Say, say_nothing
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

    def reading(
        self, name: str, bad: BadRows, say: Say = say_nothing, most: int | None = None
    ) -> Reading:
        """The utterances of a data set, which can be read again.

        Args:
            name: of the data.
            bad, say: as for `Reading`.
            most: rows that are read; all by default.
        """
        data = self.recipe.data[name]

        def read(**how: Any) -> Iterator[Utterance]:
            rows = read_utterances(
                self.source_of(name),
                split=data.split,
                text_column=data.settings.text_from(data.text_column),
                audio_column=data.audio_column,
                streaming=data.streaming,
                **how,
            )
            return islice(rows, most)

        return Reading(read, bad, say)


def read_models(sources: Sources) -> tuple[Checkpoint, Checkpoint]:
    """Reads the teacher of a recipe and the model that its stages begin with, often the same.

    Raises:
        RecipeError: one cannot be read, or has another form; names the missing sources of data too.
    """
    recipe = sources.recipe
    key = "teacher"
    try:
        teacher = read_checkpoint(
            recipe.teacher, revision=recipe.revision, tokenizer=recipe.tokenizer
        )
        if not recipe.start:
            return teacher, teacher
        key = "start"
        start = read_checkpoint(recipe.start, tokenizer=recipe.tokenizer)
        check_same_form(start, teacher)
        return teacher, start
    except (ValueError, OSError) as error:
        problems = [f"{key}: {' '.join(str(error).split())}"]
    for name in recipe.data_names:
        data = recipe.data[name]
        try:
            read_rows(sources.source_of(name), split=data.split, streaming=True)
        except (ValueError, OSError, ModuleNotFoundError) as error:
            problems.append(f"data.{name}.source: {' '.join(str(error).split())}")
    raise RecipeError(problems)
