"""Experiment trackers besides the log file: TensorBoard, Weights & Biases and others.

They are Accelerate's own, so any that it supports can be named. A run that is resumed continues
its curves.
"""

from __future__ import annotations

import hashlib
import importlib.util
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

AUTO = "auto"
"""Stands for TensorBoard if it is installed."""
PROJECT = "baldwhisper"
"""Name under which trackers that know projects collect runs; `WANDB_PROJECT` does not change it."""
_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "comet_ml": "comet_ml"}


def check_trackers(names: Sequence[str]) -> None:
    """Checks, before anything is trained, that trackers exist and are installed.

    Args:
        names: `auto`, or names of Accelerate's trackers such as `tensorboard` and `wandb`.

    Raises:
        ValueError: an unknown name.
        ModuleNotFoundError: the package of a tracker is not installed.
    """
    if all(name == AUTO for name in names):
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = [str(name) for name in LOGGER_TYPE_TO_CLASS]
    installed = {getattr(name, "value", str(name)) for name in get_available_trackers()}
    for name in names:
        if name == AUTO:
            continue
        if name not in known:
            raise ValueError(f"trackers: {name!r} is none of {', '.join([AUTO, *known])}")
        if name not in installed:
            raise ModuleNotFoundError(
                f"trackers: the package of {name} is not installed; install it with: pip install "
                f"{_PACKAGES.get(name, name)}"
            )


class Trackers:
    """The trackers of one run.

    Args:
        names: as in `check_trackers`.
        folder: of the run; TensorBoard writes to its subfolder `tensorboard`.
        step: the run continues after it; TensorBoard drops what it has of later steps.
        settings: of the run, for trackers that show them.
    """

    def __init__(
        self,
        names: Sequence[str],
        folder: Path,
        step: int,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if AUTO in names:
            board = ["tensorboard"] if importlib.util.find_spec("tensorboard") else []
            names = [*board, *(name for name in names if name != AUTO)]
        self._trackers: list[Any] = []
        for name in dict.fromkeys(names):
            self._trackers.append(_start(name, folder, step, settings or {}))

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Sends the numbers of a step; those of a nested mapping as `group/name`."""
        numbers = dict(_numbers(values))
        for tracker in self._trackers if numbers else ():
            tracker.log(numbers, step=step)

    def close(self) -> None:
        """Ends the run in every tracker."""
        for tracker in self._trackers:
            tracker.finish()


def _start(name: str, folder: Path, step: int, settings: Mapping[str, Any]) -> Any:
    """One of Accelerate's trackers, started."""
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState()  # or the trackers could not tell which process they are in
    kind = LOGGER_TYPE_TO_CLASS[name]
    if name == "tensorboard":
        tracker = kind(name, logging_dir=folder, purge_step=step + 1)
    elif name == "wandb":
        # The same id in a resumed run, so that it continues its curves.
        place = f"{platform.node()}:{folder.resolve()}"
        run_id = hashlib.sha256(place.encode()).hexdigest()[:16]
        tracker = kind(PROJECT, name=folder.name, dir=str(folder), id=run_id, resume="allow")
    elif kind.requires_logging_directory:
        tracker = kind(PROJECT, logging_dir=folder)
    else:
        tracker = kind(PROJECT)
    if hasattr(tracker, "start"):  # releases before 1.10 start in the constructor
        tracker.start()
    if name != "tensorboard":  # its table of settings is an extra run among the curves
        tracker.store_init_configuration(dict(settings))
    return tracker


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            for key, number in _numbers(value):
                yield f"{name}/{key}", number
        elif isinstance(value, int | float):
            yield name, value
