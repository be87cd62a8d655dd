"""Trackers by one setting: which exist, what is missing, and what they are sent."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate import tracking

from baldwhisper_convert.pipeline.recipe import StageRecipe
from baldwhisper_convert.training.log import TrainingLog
from baldwhisper_convert.training.settings import TrainingSettings


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Everything that is sent to a double of the package wandb."""
    calls: list[tuple[str, Any]] = []

    class Run:
        def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
            calls.append(("log", (step, values)))

        def finish(self) -> None:
            calls.append(("finish", None))

    def init(**options: Any) -> Run:
        calls.append(("init", options))
        return Run()

    def update(values: dict[str, Any], **_: Any) -> None:
        calls.append(("settings", values))

    double = SimpleNamespace(init=init, config=SimpleNamespace(update=update))
    monkeypatch.setitem(sys.modules, "wandb", double)
    names = {getattr(name, "value", str(name)) for name in tracking.get_available_trackers()}
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: [*names, "wandb"])
    return calls


def test_weights_and_biases(wandb: list[tuple[str, Any]], tmp_path: Path) -> None:
    settings = TrainingSettings(trackers=("tensorboard", "wandb"), epochs=7)
    for step in (0, 1):
        log = TrainingLog(tmp_path, step, settings)
        log.write(step=step + 1, loss=0.5, name="x")
        log.write(step=step + 1, dev={"wer": 0.25})
        log.close()
    first, second = (value for name, value in wandb if name == "init")
    assert first["project"] == "baldwhisper"
    assert first["resume"] == "allow"
    assert first == second  # the same id, so the resumed run continues the curves
    assert [value for name, value in wandb if name == "log"] == [
        (1, {"loss": 0.5}),
        (1, {"dev/wer": 0.25}),
        (2, {"loss": 0.5}),
        (2, {"dev/wer": 0.25}),
    ]
    assert next(value for name, value in wandb if name == "settings")["epochs"] == 7
    assert wandb[-1][0] == "finish"
    assert (tmp_path / "tensorboard").is_dir()


def test_none(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, 0, TrainingSettings(trackers=()))
    log.write(step=1, loss=0.5)
    log.close()
    assert not (tmp_path / "tensorboard").exists()


def test_a_missing_package_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(ModuleNotFoundError, match=r"wandb is not installed.*pip install wandb"):
        TrainingSettings(trackers=("wandb",))


def test_an_unknown_tracker() -> None:
    with pytest.raises(ValueError, match=r"'weights' is none of auto, .*wandb"):
        TrainingSettings(trackers=("weights",))


def test_how_it_is_computed_is_no_other_work() -> None:
    """Neither another tracker nor another use of memory trains a stage again."""

    def settings(**changes: Any) -> dict[str, Any]:
        training = dataclasses.replace(TrainingSettings(), **changes)
        return StageRecipe(stage="finetune", training=training, data=("x",)).settings

    assert settings() == settings(trackers=("tensorboard",), gradient_checkpointing=True)
    assert settings() != settings(seed=1)
