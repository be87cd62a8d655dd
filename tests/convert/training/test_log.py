"""The training log: complete after a kill, with curves and TensorBoard where installed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from baldwhisper_convert.training import log as training_log
from baldwhisper_convert.training import trackers
from baldwhisper_convert.training.log import (
    CURVES_FILE,
    LOG_FILE,
    TrainingLog,
    plot_curves,
    read_log,
    shown,
)

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the optional packages that can be found; none, until a test adds them."""
    names: set[str] = set()

    def find_spec(name: str) -> Any:
        return object() if name in names else None

    fake = SimpleNamespace(util=SimpleNamespace(find_spec=find_spec))
    monkeypatch.setattr(training_log, "importlib", fake)
    monkeypatch.setattr(trackers, "importlib", fake)
    return names


def write_steps(folder: Path, first: int, last: int, **values: Any) -> TrainingLog:
    log = TrainingLog(folder, first - 1)
    for step in range(first, last + 1):
        log.write(step=step, loss=1 / step, kl=0.5 / step, **values)
    return log


@pytest.mark.usefixtures("installed")
def test_lines_are_on_disk_at_once(tmp_path: Path) -> None:
    log = write_steps(tmp_path, 1, 3)
    assert [row["step"] for row in read_log(tmp_path / LOG_FILE)] == [1, 2, 3]
    log.write(step=3, dev={"wer": 1 / 3, "kl": 2})
    assert read_log(tmp_path / LOG_FILE)[-1] == {"step": 3, "dev": {"wer": 0.333333, "kl": 2}}
    log.close()


@pytest.mark.usefixtures("installed")
def test_lines_after_the_checkpoint_are_dropped_on_resume(tmp_path: Path) -> None:
    log = write_steps(tmp_path, 1, 6)
    log.write(step=4, dev={"wer": 0.2})
    log.write(step=6, dev={"wer": 0.1})
    log.close()
    write_steps(tmp_path, 5, 5).close()
    found = [(row["step"], "dev" in row) for row in read_log(tmp_path / LOG_FILE)]
    assert found == [(1, False), (2, False), (3, False), (4, False), (4, True), (5, False)]


@pytest.mark.usefixtures("installed")
def test_a_cut_last_line_is_tolerated(tmp_path: Path) -> None:
    write_steps(tmp_path, 1, 3).close()
    path = tmp_path / LOG_FILE
    path.write_text(path.read_text() + '{"step": 4, "lo')
    assert [row["step"] for row in read_log(path)] == [1, 2, 3]
    write_steps(tmp_path, 4, 4).close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]


@pytest.mark.usefixtures("installed")
def test_resuming_alone_loses_nothing(tmp_path: Path) -> None:
    # The second run may be killed before it writes its first line.
    write_steps(tmp_path, 1, 3).close()
    log = TrainingLog(tmp_path, 3)
    assert [row["step"] for row in read_log(tmp_path / LOG_FILE)] == [1, 2, 3]
    log.close()


@pytest.mark.usefixtures("installed")
def test_a_fresh_run_starts_an_empty_log(tmp_path: Path) -> None:
    write_steps(tmp_path, 1, 3).close()
    TrainingLog(tmp_path, 0).close()
    assert read_log(tmp_path / LOG_FILE) == []


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, 0, enabled=False)
    log.write(step=1, loss=1.0)
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_no_log_has_no_lines(tmp_path: Path) -> None:
    assert read_log(tmp_path / LOG_FILE) == []


def test_curves_need_matplotlib(tmp_path: Path, installed: set[str]) -> None:
    write_steps(tmp_path, 1, 3).close()
    assert not (tmp_path / CURVES_FILE).exists()
    installed.add("matplotlib")
    pytest.importorskip("matplotlib")
    log = write_steps(tmp_path, 4, 5)
    log.write(step=5, dev={"wer": 0.3, "score": 0.3})
    log.write(step=6, loss=0.1, ce=0.4)
    log.close()
    assert (tmp_path / CURVES_FILE).read_bytes().startswith(PNG)


def test_an_empty_log_can_be_drawn(tmp_path: Path, installed: set[str]) -> None:
    pytest.importorskip("matplotlib")
    installed.add("matplotlib")
    plot_curves(tmp_path / LOG_FILE, tmp_path / CURVES_FILE)
    assert (tmp_path / CURVES_FILE).stat().st_size > 1000


def test_curves_show_every_loss_and_result(
    tmp_path: Path, installed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = pytest.importorskip("matplotlib.figure")
    installed.add("matplotlib")
    drawn: list[Any] = []
    save = figure.Figure.savefig
    monkeypatch.setattr(
        figure.Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))
    )
    log = write_steps(tmp_path, 1, 3, lr=0.1, agreement=0.5, seconds=1.0)
    log.write(step=2, dev={"kl": 0.8, "wer": 0.4, "score": 0.4})
    log.write(step=3, dev={"kl": 0.7, "wer": 0.3, "score": 0.3})
    log.close()
    left, right, errors = drawn[0].axes
    assert [line.get_label() for line in left.lines] == ["kl", "loss"]
    assert list(left.lines[1].get_ydata()) == pytest.approx([1, 1 / 2, 1 / 3], rel=1e-5)
    assert [line.get_label() for line in right.lines] == ["kl"]
    (line,) = errors.lines
    assert (line.get_label(), list(line.get_ydata())) == ("WER in %", [40.0, 30.0])


def test_a_bar_shows_word_errors_beside_kl() -> None:
    assert shown({"kl": 0.25, "ce": 1.0, "wer": 0.123, "score": 0.123}) == {
        "dev WER": "12.3 %",
        "dev KL": "0.250",
    }
    assert shown({"encoder_states": 1.0}) == {}


def read_events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves that TensorBoard shows of a run: step and value of each point, by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


def test_tensorboard_is_optional(tmp_path: Path, installed: set[str]) -> None:
    write_steps(tmp_path, 1, 1).close()
    assert not (tmp_path / "tensorboard").exists()
    installed.add("tensorboard")
    log = TrainingLog(tmp_path, 7)
    log.write(step=8, loss=0.5, name="x", dev={"wer": 0.25, "note": "y"})
    log.close()
    assert read_events(tmp_path) == {"loss": [(8, 0.5)], "dev/wer": [(8, 0.25)]}


def test_a_resumed_run_continues_its_curves(tmp_path: Path, installed: set[str]) -> None:
    installed.add("tensorboard")
    write_steps(tmp_path, 1, 5).close()
    write_steps(tmp_path, 4, 6).close()  # the checkpoint was of step 3
    assert [step for step, _ in read_events(tmp_path)["loss"]] == [1, 2, 3, 4, 5, 6]


def test_tensorboard_writes_events(tmp_path: Path, installed: set[str]) -> None:
    pytest.importorskip("tensorboard")
    installed.add("tensorboard")
    write_steps(tmp_path, 1, 2).close()
    (events,) = (path for path in (tmp_path / "tensorboard").iterdir() if path.is_file())
    assert events.stat().st_size > 0


def test_a_log_that_is_released_draws_nothing_and_keeps_its_lines(tmp_path: Path) -> None:
    log = write_steps(tmp_path, 1, 3)
    log.release()
    assert log._file.closed
    assert [row["step"] for row in read_log(tmp_path / LOG_FILE)] == [1, 2, 3]
    assert not (tmp_path / "curves.png").exists()


def test_word_errors_of_every_language_are_percent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.axes import Axes

    drawn: dict[str, list[float]] = {}
    plot = Axes.plot

    def recorded(self: Axes, steps: Any, values: Any, *style: Any, **how: Any) -> Any:
        drawn[how["label"]] = values
        return plot(self, steps, values, *style, **how)

    monkeypatch.setattr(Axes, "plot", recorded)
    rows = [{"step": 1, "loss": 1.0}, {"step": 1, "dev": {"wer": 0.5, "wer_fr": 0.25, "kl": 0.1}}]
    (tmp_path / LOG_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    plot_curves(tmp_path / LOG_FILE, tmp_path / CURVES_FILE)
    assert drawn["WER in %"] == [50.0]
    assert drawn["WER of fr in %"] == [25.0]
    assert drawn["kl"] == [0.1]
