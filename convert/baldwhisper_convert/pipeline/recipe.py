"""Recipes: everything a run depends on, in one TOML file.

A recipe names the teacher, the data and the stages in order. It is read strictly: an unknown
key, a missing one and a value of the wrong type are errors that say where they are.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from baldwhisper_convert.compression.factorize import FactorizeSettings
from baldwhisper_convert.compression.merge import MergeSettings
from baldwhisper_convert.data.augment import Augmentation
from baldwhisper_convert.data.prepare import Context, Features, Labels, PrepareSettings
from baldwhisper_convert.data.speech import parse_shares
from baldwhisper_convert.data.windows import WindowSettings
from baldwhisper_convert.pipeline.settings import build
from baldwhisper_convert.training.objectives import LossSettings
from baldwhisper_convert.training.settings import TrainingSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


StageKind = Literal["finetune", "merge", "factorize", "distill"]


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """One set of labelled speech."""

    source: str
    """Folder, list or hub id; `run --data NAME=SOURCE` gives another one."""
    split: str = "train"
    text_column: str = "text"
    audio_column: str = "audio"
    streaming: bool = False
    labels: Labels = "text"
    features: Features = "states"
    audio_context: Context = "full"
    max_wer: float = 0.3
    passes: int = 1
    language: str = "en"
    seed: int = 0
    windows: WindowSettings = field(default_factory=WindowSettings)
    augmentation: Augmentation = field(default_factory=Augmentation)

    @property
    def settings(self) -> PrepareSettings:
        """What `prepare` is told."""
        own = {item.name for item in dataclasses.fields(PrepareSettings)}
        return PrepareSettings(**{k: v for k, v in vars(self).items() if k in own})


@dataclass(frozen=True, kw_only=True)
class StageRecipe:
    """One stage. The section named like its kind has the settings; training has its own.

    Raises:
        ValueError: a section that the stage does not use, or data that it lacks.
    """

    stage: StageKind
    data: tuple[str, ...] = ()
    """Names of the data it uses; `name:0.5` uses half of the windows."""
    dev: str = ""
    """Name of the development data: early stopping, or held-out measurements."""
    texts: tuple[str, ...] = ()
    """Names of the texts whose tokens `factorize` counts with those of the labels: which tokens
    are frequent takes more text than the labels of tens of hours."""
    speech: int = 0
    """Windows of the data that `merge` and `factorize` look at; 0 for 24 and 120."""
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
                raise ValueError(f"the stage {self.stage} does not use the section {section}")
        if self.stage != "merge" and not self.data:
            raise ValueError(f"the stage {self.stage} needs data")
        if self.texts and self.stage != "factorize":
            raise ValueError(f"the stage {self.stage} does not use texts")
        parse_shares(self.data)

    @property
    def settings(self) -> dict[str, Any]:
        """The stage's settings as plain values, defaults included, for its manifest."""
        sections: dict[str, Any] = {}
        if self.stage == "finetune":
            sections["training"] = self.training or finetuning()
        elif self.stage == "merge":
            sections["merge"] = self.merge or MergeSettings()
        elif self.stage == "factorize":
            sections["factorize"] = self.factorize or FactorizeSettings()
        else:
            sections["training"] = self.training or TrainingSettings()
            sections["loss"] = self.loss or LossSettings()
        plain = {name: dataclasses.asdict(section) for name, section in sections.items()}
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
    """Text files by name, plain or JSONL with "text"; `run --text NAME=FILE` gives another one."""
    stages: tuple[StageRecipe, ...]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("a recipe needs at least one stage")
        for number, stage in enumerate(self.stages, start=1):
            names = [name for name, _ in parse_shares(stage.data)] + (
                [stage.dev] if stage.dev else []
            )
            for name in names:
                if name not in self.data:
                    raise ValueError(f"stage {number} uses the data {name!r}, which is not there")
            for name in stage.texts:
                if name not in self.texts:
                    raise ValueError(f"stage {number} uses the text {name!r}, which is not there")


def finetuning() -> TrainingSettings:
    """The defaults of `finetune`: everything learns, as in the paper (20 epochs at 5e-5)."""
    return TrainingSettings(epochs=20, learning_rate=5e-5, freeze=())


def read_recipe(path: str | Path) -> Recipe:
    """Reads a recipe.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not TOML, or not a recipe; says where.
    """
    try:
        raw = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML ({error})") from None
    return build(Recipe, raw, str(path))
