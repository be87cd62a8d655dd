"""Recipes: everything a run depends on, in one TOML file.

A recipe names the teacher, the data and the stages in order. It is read strictly: an unknown
key, a missing one and a value of the wrong type are errors that say where they are.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from baldwhisper_convert.augment import Augmentation
from baldwhisper_convert.distill import LossSettings
from baldwhisper_convert.factorize import FactorizeSettings
from baldwhisper_convert.merge import MergeSettings
from baldwhisper_convert.optimizing import TrainingSettings
from baldwhisper_convert.prepare import Context, Features, Labels, PrepareSettings
from baldwhisper_convert.windows import WindowSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

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
        parts(self.data)

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
            names = [name for name, _ in parts(stage.data)] + ([stage.dev] if stage.dev else [])
            for name in names:
                if name not in self.data:
                    raise ValueError(f"stage {number} uses the data {name!r}, which is not there")
            for name in stage.texts:
                if name not in self.texts:
                    raise ValueError(f"stage {number} uses the text {name!r}, which is not there")


def finetuning() -> TrainingSettings:
    """The defaults of `finetune`: everything learns, as in the paper (20 epochs at 5e-5)."""
    return TrainingSettings(epochs=20, learning_rate=5e-5, freeze=())


def parts(data: Sequence[str]) -> list[tuple[str, float]]:
    """Names with their shares: `["a", "b:0.5"]` is `[("a", 1.0), ("b", 0.5)]`.

    Raises:
        ValueError: a share that is not a number above 0.
    """
    found = []
    for item in data:
        name, colon, share = item.rpartition(":")
        try:
            found.append((name, float(share)) if colon else (item, 1.0))
        except ValueError:
            found.append((item, 1.0))  # a path with a colon
        if not found[-1][1] > 0:
            raise ValueError(f"{item}: the share must be above 0")
    return found


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


def override(settings: T, changes: Sequence[str]) -> T:
    """Settings with `key=value` changes; keys may be dotted, values are TOML.

    A value that is no TOML is taken as text, so that quotes are not needed.

    Raises:
        ValueError: an unknown key or a bad value.

    Example:
        >>> override(LossSettings(), ["kl=2"]).kl
        2.0
    """
    plain = _without_none(dataclasses.asdict(settings))  # type: ignore[call-overload]
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise ValueError(f"{change!r} is not key=value")
        *path, last = key.strip().split(".")
        place: Any = plain
        for name in path:
            place = place.get(name)
            if not isinstance(place, dict):
                raise ValueError(f"no setting is called {key.strip()!r}")
        if last not in place:
            raise ValueError(f"no setting is called {key.strip()!r}; there are {', '.join(place)}")
        try:
            place[last] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            place[last] = text.strip()
    return build(type(settings), plain, "settings")


def _without_none(plain: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in plain.items()
        if value is not None
    }


def build(kind: type[T], raw: Any, where: str) -> T:
    """A dataclass from parsed TOML, checked field by field.

    Args:
        kind: the dataclass.
        raw: a table.
        where: what it is, for errors.

    Raises:
        ValueError: unknown or missing keys, wrong types, or what the dataclass refuses.
    """
    if not isinstance(raw, Mapping):
        raise ValueError(f"{where}: expected a table, found {raw!r}")
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(raw.keys() - fields.keys())
    if unknown:
        raise ValueError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(fields)}")
    hints = typing.get_type_hints(kind)
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in raw.items()}
    missing = [
        name
        for name, item in fields.items()
        if name not in values
        and item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{where}: missing {', '.join(missing)}")
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _value(hint: Any, raw: Any, where: str) -> Any:
    """One value as its type hint says."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if raw is None:
            return None
        return _value(next(a for a in arguments if a is not type(None)), raw, where)
    if dataclasses.is_dataclass(hint):
        return build(hint, raw, where)  # type: ignore[arg-type]
    if origin is Literal:
        if raw not in arguments:
            raise ValueError(f"{where}: {raw!r} is none of {', '.join(map(str, arguments))}")
        return raw
    if origin is tuple:
        if not isinstance(raw, Sequence) or isinstance(raw, str):
            raise ValueError(f"{where}: expected a list, found {raw!r}")
        kinds = [arguments[0]] * len(raw) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(raw):
            raise ValueError(f"{where}: expected {len(kinds)} values, found {len(raw)}")
        return tuple(_value(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, raw)))  # noqa: B905
    if origin is dict:
        if not isinstance(raw, Mapping):
            raise ValueError(f"{where}: expected a table, found {raw!r}")
        return {key: _value(arguments[1], value, f"{where}.{key}") for key, value in raw.items()}
    if hint is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if not isinstance(raw, hint) or (isinstance(raw, bool) and hint is not bool):
        raise ValueError(f"{where}: expected {hint.__name__}, found {raw!r}")
    return raw
