"""The search for merging weights: trials, going on after a kill, Ax, the command."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from baldwhisper_convert.cli.main import main
from baldwhisper_convert.compression.merge import MergeSettings
from baldwhisper_convert.data.speech import Speech, open_speech
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_convert.locks import lock_folder
from baldwhisper_convert.pipeline import search as module
from baldwhisper_convert.pipeline.search import (
    CONTOUR_FILE,
    TRIALS_FILE,
    AxOptimizer,
    SearchSettings,
    plot_trials,
    search,
)
from baldwhisper_convert.pipeline.search_state import SEARCH_FILE, SearchState
from baldwhisper_convert.training.objectives import LossSettings
from baldwhisper_convert.training.settings import TrainingSettings
from tests.support.tiny_prepared import teacher_checkpoint, tiny_prepared

SETTINGS = SearchSettings(
    trials=3,
    merge=MergeSettings(groups=(2, 1)),
    training=TrainingSettings(epochs=1, batch_size=4),
    loss=LossSettings(hidden=1.0),
)


class Corners:
    """An optimizer that proposes the corners in turn, from the number in its state on."""

    POINTS = ((0.0, 1.0), (1.0, 0.0), (2.0, 2.0), (5.0, 1.0))

    def __init__(self, seed: int, state: Any) -> None:
        self.asked, self.scores = state or (0, [])

    def ask(self) -> tuple[int, dict[str, float]]:
        alpha, beta = self.POINTS[self.asked]
        self.asked += 1
        return self.asked - 1, {"alpha": alpha, "beta": beta}

    def tell(self, trial: int, score: float) -> None:
        self.scores = [*self.scores, (trial, score)]

    def state(self) -> Any:
        return json.loads(json.dumps((self.asked, self.scores)))


@pytest.fixture
def speech(tmp_path: Path) -> Speech:
    tiny_prepared(tmp_path / "prepared", 12, silence=0)
    return open_speech([f"{tmp_path / 'prepared'}:0.7"])


def run(speech: Speech, folder: Path, **changes: Any) -> dict[str, Any]:
    settings = dataclasses.replace(SETTINGS, **changes)
    return search(
        teacher_checkpoint(), settings, speech, speech, folder,
        optimizer=Corners, say=lambda _: None,
    )  # fmt: skip


def trials(folder: Path) -> list[dict[str, Any]]:
    """Those kept, without what the clock says."""
    kept = json.loads((folder / SEARCH_FILE).read_text())["trials"]
    return [{k: v for k, v in trial.items() if k != "seconds"} for trial in kept]


def test_every_trial_is_merged_trained_and_scored(
    speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = iter([0.5, 0.2, 0.3])
    starts = []

    def distill(model: Any, *arguments: Any) -> Any:
        starts.append(model.checkpoint.state["decoder.blocks.0.mlp.0.weight"])
        assert model.groups == ((0, 1), (2,))
        arguments[-1].mkdir(exist_ok=True)
        return model, {"wer": next(rates), "seconds": 1.0, "steps": 3}

    monkeypatch.setattr(module, "run_distill", distill)
    best = run(speech, tmp_path / "search")
    assert best == {"alpha": 1.0, "beta": 0.0, "wer": 0.2, "seconds": 1.0}
    state = teacher_checkpoint().state
    lower, upper = (state[f"decoder.blocks.{i}.mlp.0.weight"] for i in (0, 1))
    expected = [upper, lower, (lower + upper) / 2]
    for found, wanted in zip(starts, expected, strict=True):
        assert (found - wanted).abs().max() < 1e-6
    kept = json.loads((tmp_path / "search" / TRIALS_FILE).read_text())
    assert (kept["train_windows"], kept["dev_windows"]) == (len(speech.windows.windows),) * 2
    assert [trial["wer"] for trial in kept["trials"]] == [0.5, 0.2, 0.3]
    assert kept["settings"]["training"]["epochs"] == SETTINGS.training.epochs
    assert (tmp_path / "search" / CONTOUR_FILE).stat().st_size > 5000
    assert [p.name for p in tmp_path.joinpath("search").iterdir() if p.is_dir()] == []


@pytest.mark.parametrize("when", ["asked", "trained"])
def test_a_killed_search_ends_as_one_that_was_not(
    speech: Speech, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    run(speech, tmp_path / "whole")
    kept = SearchState.save
    calls = []

    def killed(self: Any, **changes: Any) -> None:
        calls.append(changes)
        if len(calls) == 4 and when == "trained":  # after the training, before it is kept
            raise KeyboardInterrupt
        kept(self, **changes)
        if len(calls) == 3 and when == "asked":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SearchState, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            run(speech, tmp_path / "killed")
    assert len(trials(tmp_path / "killed")) == 1
    run(speech, tmp_path / "killed")
    assert trials(tmp_path / "killed") == trials(tmp_path / "whole")
    # More trials continue it; other settings do not.
    run(speech, tmp_path / "killed", trials=4)
    assert trials(tmp_path / "killed")[:3] == trials(tmp_path / "whole")
    assert len(trials(tmp_path / "killed")) == 4
    with pytest.raises(FileExistsError, match="other settings"):
        run(speech, tmp_path / "killed", loss=LossSettings(hidden=2.0))


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        SearchSettings(trials=0)
    for merge in (MergeSettings(method="upper"), MergeSettings(weights=((1.0, 1.0),))):
        with pytest.raises(ValueError, match="one alpha and beta"):
            SearchSettings(merge=merge)


@pytest.mark.parametrize("n", [1, 3, 6])
def test_plots(tmp_path: Path, n: int) -> None:
    found = [{"alpha": i % 3, "beta": i // 2, "wer": 0.3 + i / 50} for i in range(n)]
    plot_trials(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_ax_finds_a_minimum_and_goes_on_from_its_state() -> None:
    pytest.importorskip("ax", reason="the extra `search` is not installed")
    optimizer = AxOptimizer(0)
    best, seen = 1e9, []
    for number in range(12):
        if number == 7:
            trial, point = optimizer.ask()
            optimizer = AxOptimizer(0, json.loads(json.dumps(optimizer.state())))
        else:
            trial, point = optimizer.ask()
        assert trial == number
        alpha, beta = point["alpha"], point["beta"]
        assert 0 <= alpha <= 10
        assert 0 <= beta <= 10
        assert alpha + beta >= 0.01 - 1e-9
        seen.append((alpha, beta))
        score = (alpha / (alpha + beta) - 0.2) ** 2
        best = min(best, score)
        optimizer.tell(trial, score)
    assert len(set(seen)) == 12
    assert best < 1e-3


def test_the_command_without_ax(
    tmp_path: Path, speech: Speech, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    teacher = export_mlx(teacher_checkpoint(), tmp_path / "teacher", dtype="float32")
    arguments = ["search", teacher, tmp_path / "dst", "--data", tmp_path / "prepared",
                 "--dev", tmp_path / "prepared"]  # fmt: skip
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 1
    assert "baldwhisper-mlx[convert,search]" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("content", ["", "[]", '{"key": 1}', '{"trials": [{"alpha": 1}]}'])
def test_a_damaged_state_says_what_to_delete(content: str, speech: Speech, tmp_path: Path) -> None:
    (tmp_path / SEARCH_FILE).write_text(content)
    with pytest.raises(ValueError, match=r"search\.json.*; delete the file to start the search"):
        run(speech, tmp_path)


def test_two_searches_in_one_folder(speech: Speech, tmp_path: Path) -> None:
    with lock_folder(tmp_path, "searches"), pytest.raises(BlockingIOError, match="searches here"):
        run(speech, tmp_path)
