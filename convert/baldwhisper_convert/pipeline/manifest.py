"""Manifests of stage folders, which every stage of the compressor reads and writes.

A stage folder is an exported float32 model, with which the runtime can transcribe, plus
`manifest.json`: the stage, its settings and inputs, and its metrics. `run` skips a stage whose
manifest shows the same settings and inputs.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from baldwhisper_mlx.files import read_json, write_atomically
from baldwhisper_mlx.terminal import quoted

MANIFEST_FILE = "manifest.json"
MANIFEST_VERSION = 1

OTHER_SETTINGS = "made with other settings"
"""What errors say of data and stages that a recipe does not fit."""

Groups = tuple[tuple[int, ...], ...]
_GROUPS = {"teacher_layers": "decoder", "teacher_encoder_layers": "encoder"}
"""Fields of a manifest with groups of layers, and the part of the model that they are of."""

_PACKAGES = ("torch", "accelerate", "datasets", "transformers", "numpy", "mlx", "baldwhisper-mlx")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """How a stage folder was made.

    Raises:
        ValueError: teacher layers that are not increasing groups of layer numbers.
    """

    stage: str
    """Name of the stage: finetune, merge, factorize or distill."""
    parent: str
    """`fingerprint` of the model the stage started from."""
    teacher: str | None = None
    """`fingerprint` of the teacher, if the stage had one."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The stage's settings, as in its section of the recipe."""
    data: dict[str, str] = field(default_factory=dict)
    """Fingerprints of the prepared data that the stage used, by name."""
    seed: int = 0
    teacher_layers: Groups | None = None
    """For each decoder layer, the layers of the uncompressed model it replaces."""
    teacher_encoder_layers: Groups | None = None
    """The same for each encoder layer."""
    metrics: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    """Of Python and of the packages used in computing."""

    def __post_init__(self) -> None:
        for name, kind in (("stage", str), ("settings", dict), ("data", dict), ("metrics", dict)):
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name}: expected {kind.__name__}")
        for name in _GROUPS:
            groups: Groups = getattr(self, name) or ()
            flat = [layer for group in groups for layer in group]
            whole = all(groups) and all(type(layer) is int for layer in flat)
            if not whole or flat != sorted(set(flat)):
                raise ValueError(f"{name}: not increasing groups of layers: {quoted(groups)}")

    def same_work(self, other: Manifest) -> bool:
        """Whether both have the same stage, settings, parent, teacher, data and seed."""
        return not self.differences(other)

    def differences(self, other: Manifest) -> list[str]:
        """What is different in another manifest's work, such as `loss.kl: 1.0 -> 2.0`."""
        return changes(_work(self), _work(other))


def _work(manifest: Manifest) -> dict[str, Any]:
    """What a manifest says but for the results, by the names in a recipe."""
    plain = _plain(manifest)
    work = {key: plain[key] for key in ("stage", "parent", "teacher", "seed")}
    settings: dict[str, Any] = plain["settings"]
    # In manifests of earlier versions, it has the value of the run.
    training = settings.get("training")
    if isinstance(training, dict):
        training.pop("checkpoint_minutes", None)
    return settings | work | {"prepared": plain["data"]}


def changes(old: Any, new: Any, path: str = "") -> list[str]:
    """The differences of two JSON values, a line for each path.

    Example:
        >>> changes({"loss": {"kl": 1.0, "ce": 0}}, {"loss": {"kl": 2.0, "ce": 0}})
        ['loss.kl: 1.0 -> 2.0']
    """
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in dict.fromkeys([*old, *new]):
            lines += changes(old.get(key), new.get(key), ".".join(filter(None, (path, key))))
        return lines
    if old == new:
        return []
    return [f"{path}: {_shown(old)} -> {_shown(new)}"]


def _shown(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def other_work(folder: Path, different: list[str]) -> str:
    """The error of a stage folder whose work has differences, see `Manifest.differences`."""
    return f"{folder}: {OTHER_SETTINGS}: {'; '.join(different)}. --force replaces it"


def versions() -> dict[str, str]:
    """Versions of Python, the platform and the installed packages used in computing."""
    installed = {"python": sys.version.split()[0], "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest of a stage folder atomically, with the present versions."""
    plain = _plain(dataclasses.replace(manifest, versions=versions()))
    text = json.dumps({"manifest_version": MANIFEST_VERSION} | plain, indent=2) + "\n"
    write_atomically(folder / MANIFEST_FILE, text)


def read_manifest(folder: Path) -> Manifest | None:
    """Reads the manifest of a stage folder; None if there is none.

    Raises:
        ValueError: not a manifest of this version.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return None
    advice = f"delete {folder} to make the stage again"
    try:
        raw = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}; {advice}") from None
    known = {item.name for item in dataclasses.fields(Manifest)}
    if not isinstance(raw, dict) or raw.pop("manifest_version", None) != MANIFEST_VERSION:
        raise ValueError(f"{path}: not a manifest of version {MANIFEST_VERSION}; {advice}")
    # Manifests of earlier versions do not have it: they changed no encoder.
    raw.setdefault("teacher_encoder_layers", None)
    if raw.keys() != known:
        raise ValueError(
            f"{path}: expected the fields {sorted(known)}; found {sorted(raw)}; {advice}"
        )
    try:
        for name in _GROUPS:
            if raw[name] is not None:
                raw[name] = tuple(tuple(group) for group in raw[name])
        return Manifest(**raw)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}; {advice}") from None


def teacher_layers(folder: Path | None, n_layers: int, part: str = "decoder") -> Groups:
    """For each layer of the model in `folder`, the teacher's layers it replaces.

    Without a manifest, or if the manifest does not tell, these are the model's own layers.

    Args:
        folder: of the model, if it has one.
        n_layers: number of its layers in that part.
        part: `decoder` or `encoder`.

    Raises:
        ValueError: the manifest is for another number of layers.
    """
    manifest = read_manifest(folder) if folder and folder.is_dir() else None
    name = next(name for name, of in _GROUPS.items() if of == part)
    groups: Groups | None = getattr(manifest, name) if manifest else None
    if groups is None:
        return tuple((layer,) for layer in range(n_layers))
    if len(groups) != n_layers:
        raise ValueError(
            f"{folder}: {n_layers} {part} layers, but {MANIFEST_FILE} lists {groups} in {name}"
        )
    return groups


def _plain(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON values, so that tuples compare equal to lists."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(manifest)))
    return plain
