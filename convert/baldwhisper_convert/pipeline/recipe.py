"""Recipes: everything a run depends on, in one TOML file.

A recipe names the teacher, the data and the stages in order. Unknown keys, missing keys and values
of the wrong type are errors that name their place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.compression.factorize import FactorizeSettings
from baldwhisper_convert.compression.merge import MergeSettings
from baldwhisper_convert.data.prepare_settings import PrepareSettings
from baldwhisper_convert.data.speech import Speech, parse_shares, with_replay
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
Training = Literal["finetune", "distill"]


@dataclass(frozen=True, kw_only=True)
class DataRecipe(PrepareSettings):
    """One set of labelled speech: where it is, and how it is prepared."""

    source: str
    """Folder, list or hub id; `run --data NAME=SOURCE` replaces it."""
    split: str = "train"
    """Split of a Hub dataset."""
    text_column: str = "text"
    """Column with the transcripts."""
    audio_column: str = "audio"
    """Column with the audio."""
    streaming: bool = False
    """Read a Hub dataset as it arrives instead of downloading it first."""

    @property
    def settings(self) -> PrepareSettings:
        """The settings of `prepare` alone, which the key of prepared data is computed from."""
        names = [item.name for item in dataclasses.fields(PrepareSettings)]
        return PrepareSettings(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class ReplayRecipe:
    """Speech of another language in every batch of the trainings, so that it is not forgotten.

    Raises:
        ValueError: a share that is not above 0 and below 1, or a negative weight.
    """

    data: str | tuple[str, ...]
    """Name of the data in the other language, prepared with features = "mel"; a list of names for
    several, such as one of each language, where `name:0.5` uses half of its windows."""
    share: float = 0.25
    """Share of the windows of every batch."""
    teacher: Literal["original", "stage"] = "original"
    """Whose predictions are kept: those of the recipe's teacher, or of the stage's, which may be
    fine-tuned with replay itself."""
    weight: float = 1.0
    """Of the KL to them."""
    stages: tuple[Training, ...] = ("finetune", "distill")
    """The trainings that replay it. After a fine-tuning with replay, `distill` may learn both
    languages from the fine-tuned model instead, with the speech of both as its data."""

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("replay.stages must name finetune, distill or both")
        if not 0 < self.share < 1:
            raise ValueError(f"replay.share must be above 0 and below 1, not {self.share:g}")
        if not self.weight > 0:
            raise ValueError(f"replay.weight must be above 0, not {self.weight:g}")
        if not self.sets:
            raise ValueError("replay.data must name some data")
        parse_shares(self.sets)

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of the data, with their shares."""
        return (self.data,) if isinstance(self.data, str) else self.data

    @property
    def data_names(self) -> tuple[str, ...]:
        """Names of the data, without shares."""
        return tuple(name for name, _ in parse_shares(self.sets))


@dataclass(frozen=True, kw_only=True)
class StageRecipe:
    """One stage and its settings, in a section each.

    Raises:
        ValueError: a section that the stage does not use, or no data although it needs some.
    """

    stage: StageKind
    """What the stage does."""
    data: tuple[str, ...] = ()
    """Names of the data; `name:0.5` uses half of its windows."""
    dev: str | tuple[str, ...] = ""
    """Name of the development data, for early stopping and for held-out measurements; a list of
    names for several, such as one of each language."""
    texts: tuple[str, ...] = ()
    """Names of texts whose tokens `factorize` counts besides those of the labels. The labels of
    tens of hours are too little text to tell which tokens are frequent."""
    speech: int = 0
    """Number of windows that `merge` and `factorize` measure with; 0 for 24 and 120."""
    merge: MergeSettings | None = None
    """Settings of the stage merge."""
    factorize: FactorizeSettings | None = None
    """Settings of the stage factorize."""
    training: TrainingSettings | None = None
    """Settings of the stages finetune and distill."""
    loss: LossSettings | None = None
    """Settings of the stage distill."""

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
        return (*(name for name, _ in parse_shares(self.data)), *self.dev_names)

    @property
    def dev_names(self) -> tuple[str, ...]:
        """Names of its development data."""
        if isinstance(self.dev, str):
            return (self.dev,) if self.dev else ()
        return self.dev

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
    """Branch, tag or commit of a teacher from the Hub."""
    tokenizer: str | None = None
    """Path or hub id of its tokenizer, if the teacher has none."""
    start: str = ""
    """Path or hub id of a model that was fine-tuned from the teacher. The stages begin with it, and
    replay still keeps the predictions of the teacher itself."""
    data: dict[str, DataRecipe] = field(default_factory=dict)
    """Sets of labelled speech by name."""
    texts: dict[str, str] = field(default_factory=dict)
    """Text files by name, plain or JSONL with "text"; `run --text NAME=FILE` replaces one."""
    replay: ReplayRecipe | None = None
    """Speech of another language that `finetune` and `distill` are to keep."""
    stages: tuple[StageRecipe, ...]
    """The stages, in order."""

    def replayed(self, stage: StageRecipe) -> ReplayRecipe | None:
        """The speech that a stage replays; None if it replays none."""
        return self.replay if self.replay and stage.stage in self.replay.stages else None

    def with_replay(
        self,
        stage: StageRecipe,
        speech: Speech | None,
        *,
        original: Checkpoint,
        teacher: Checkpoint,
        read: Callable[[tuple[str, ...], Checkpoint], Speech | None],
    ) -> Speech | None:
        """The speech of a stage, with that of another language if the stage replays some.

        Args:
            stage: one of the recipe's.
            speech: its own.
            original: the recipe's teacher.
            teacher: of the stage.
            read: returns data by its names, prepared for a teacher; None if that is impossible.

        Raises:
            ValueError: both cannot be in a batch, see `Replay`.
        """
        replay = self.replayed(stage)
        if replay is None or speech is None:
            return speech
        kept = original if replay.teacher == "original" else teacher
        other = read(replay.sets, kept)
        if other is None:
            return speech
        return with_replay(speech, other, replay.share, kept, replay.weight, data=replay.sets)

    @property
    def data_names(self) -> list[str]:
        """Names of all data that its stages read."""
        return list(dict.fromkeys(name for stage in self.stages for name in self.read_by(stage)))

    def read_by(self, stage: StageRecipe) -> tuple[str, ...]:
        """Names of the data that a stage reads, with what it replays."""
        replay = self.replayed(stage)
        return (*stage.data_names, *(replay.data_names if replay else ()))

    @property
    def prepared_first(self) -> list[tuple[int, str]]:
        """Data that can be prepared before the first stage, because no later model makes it.

        Returns:
            The number of the first stage that reads it, and its name.
        """
        first, tuned = dict[str, int](), False
        for number, stage in enumerate(self.stages, start=1):
            for name in self.read_by(stage):
                known = name in stage.data_names and not tuned
                if known or not self.data[name].by_teacher:
                    first.setdefault(name, number)
            tuned |= stage.stage == "finetune"
        return [(number, name) for name, number in first.items()]

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("a recipe needs at least one stage")
        users = [(f"stage {n}", s.data_names, s.texts) for n, s in enumerate(self.stages, start=1)]
        users += [("replay", self.replay.data_names, ())] if self.replay else []
        problems = []
        for user, data, texts in users:
            for name in (name for name in data if name not in self.data):
                hint = did_you_mean(name, self.data)
                problems.append(f"{user} uses the data {name!r}{hint}; add a section [data.{name}]")
            for name in (name for name in texts if name not in self.texts):
                hint = did_you_mean(name, self.texts)
                problems.append(f"{user} uses the text {name!r}{hint}; add it to [texts]")
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
