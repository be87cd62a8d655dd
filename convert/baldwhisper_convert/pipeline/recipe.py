"""Recipes: everything a run depends on, in one TOML file.

A recipe names the teacher, the data and the stages in order. Unknown keys, missing keys and values
of the wrong type are errors that name their place.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from baldwhisper_convert.compression.factorize import FactorizeSettings
from baldwhisper_convert.compression.merge import MergeSettings
from baldwhisper_convert.data.prepare_settings import PrepareSettings
from baldwhisper_convert.data.speech import parse_shares
from baldwhisper_convert.pipeline.settings import (
    RecipeError,
    build,
    did_you_mean,
    plain_settings,
    read_toml,
)
from baldwhisper_convert.training.objectives import LossSettings
from baldwhisper_convert.training.settings import TrainingSettings

StageKind = Literal["finetune", "merge", "factorize", "distill"]


@dataclass(frozen=True, kw_only=True)
class DataRecipe(PrepareSettings):
    """One set of labelled speech: where it is, and how it is prepared."""

    source: str
    """Folder, list or hub id; `run --data NAME=SOURCE` replaces it."""
    split: str = "train"
    text_column: str = "text"
    audio_column: str = "audio"
    streaming: bool = False

    @property
    def settings(self) -> PrepareSettings:
        """The settings of `prepare` alone, which the key of prepared data is computed from."""
        names = [item.name for item in dataclasses.fields(PrepareSettings)]
        return PrepareSettings(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class StageRecipe:
    """One stage and its settings, in a section each.

    Raises:
        ValueError: a section that the stage does not use, or no data although it needs some.
    """

    stage: StageKind
    data: tuple[str, ...] = ()
    """Names of the data; `name:0.5` uses half of its windows."""
    dev: str = ""
    """Name of the development data, for early stopping and for held-out measurements."""
    texts: tuple[str, ...] = ()
    """Names of texts whose tokens `factorize` counts besides those of the labels. The labels of
    tens of hours are too little text to tell which tokens are frequent."""
    speech: int = 0
    """Number of windows that `merge` and `factorize` measure with; 0 for 24 and 120."""
    merge: MergeSettings | None = None
    factorize: FactorizeSettings | None = None
    training: TrainingSettings | None = None
    loss: LossSettings | None = None

    def __post_init__(self) -> None:
        used = {
            "finetune": {"training"},
            "merge": {"merge"},
            "factorize": {"factorize"},
            "distill": {"training", "loss"},
        }[self.stage]
        for section in ("merge", "factorize", "training", "loss"):
            if getattr(self, section) is not None and section not in used:
                raise ValueError(
                    f"the stage {self.stage} does not use the section {section}; remove it"
                )
        if self.stage != "merge" and not self.data:
            raise ValueError(f"the stage {self.stage} needs data; name some in `data`")
        if self.texts and self.stage != "factorize":
            raise ValueError(f"the stage {self.stage} does not use texts; remove them")
        parse_shares(self.data)

    @property
    def data_names(self) -> tuple[str, ...]:
        """Names of its data and development data, without shares."""
        dev = (self.dev,) if self.dev else ()
        return (*(name for name, _ in parse_shares(self.data)), *dev)

    @property
    def trained(self) -> TrainingSettings:
        """How it trains; the defaults, if the recipe does not say."""
        default = finetuning() if self.stage == "finetune" else TrainingSettings()
        return self.training or default

    @property
    def settings(self) -> dict[str, Any]:
        """The stage's settings as plain values, including defaults, for its manifest."""
        sections: dict[str, Any] = {}
        if self.stage == "finetune":
            sections["training"] = self.trained
        elif self.stage == "merge":
            sections["merge"] = self.merge or MergeSettings()
        elif self.stage == "factorize":
            sections["factorize"] = self.factorize or FactorizeSettings()
        else:
            sections["training"] = self.trained
            sections["loss"] = self.loss or LossSettings()
        plain = {name: plain_settings(section) for name, section in sections.items()}
        named = {"data": list(self.data), "texts": list(self.texts), "dev": self.dev}
        return plain | {"speech": self.speech} | named


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run.

    Raises:
        ValueError: no stages, or a stage that names data or texts the recipe does not have.
    """

    teacher: str
    """Path or hub id of the model to compress."""
    revision: str | None = None
    tokenizer: str | None = None
    data: dict[str, DataRecipe] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    """Text files by name, plain or JSONL with "text"; `run --text NAME=FILE` replaces one."""
    stages: tuple[StageRecipe, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("a recipe needs at least one stage")
        problems = []
        for number, stage in enumerate(self.stages, start=1):
            for name in stage.data_names:
                if name not in self.data:
                    hint = did_you_mean(name, self.data)
                    problems.append(
                        f"stage {number} uses the data {name!r}{hint}; add a section [data.{name}]"
                    )
            for name in stage.texts:
                if name not in self.texts:
                    hint = did_you_mean(name, self.texts)
                    problems.append(
                        f"stage {number} uses the text {name!r}{hint}; add it to [texts]"
                    )
        if problems:
            raise RecipeError(problems)


def finetuning() -> TrainingSettings:
    """The defaults of `finetune`, as in the paper: all parameters, 20 epochs at 5e-5."""
    return TrainingSettings(epochs=20, learning_rate=5e-5, freeze=())


def read_recipe(path: str | Path) -> Recipe:
    """Reads a recipe.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not TOML, or not a valid recipe; names the place.
    """
    return build(Recipe, read_toml(path), str(path))
