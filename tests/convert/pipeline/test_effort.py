"""Efforts of a run: what comes after each piece of work."""

from __future__ import annotations

from pathlib import Path

import pytest

from baldwhisper_convert.pipeline.effort import Efforts, performing
from baldwhisper_convert.pipeline.planned_stage import PlannedStage
from baldwhisper_convert.pipeline.recipe import read_recipe
from baldwhisper_convert.pipeline.run import Pipeline
from tests.support.tiny import tiny_dims, tiny_hf_folder, tiny_hf_model
from tests.support.tiny_speech import tiny_speech

RECIPE = """
teacher = "{teacher}"

[data.speech]
source = "{speech}"
features = "mel"
audio_context = "{context}"
windows = {{ single = 1.0, silence = 0.0, pause = 0.0, full = {full} }}

[data.french]
source = "{french}"
features = "mel"
audio_context = "{context}"
language = "fr"
windows = {{ single = 1.0, silence = 0.0, pause = 0.0, full = {full} }}
{replay}
[[stages]]
stage = "finetune"
data = ["speech"]
training = {{ epochs = {epochs}, batch_size = 4, freeze = [] }}
"""
REPLAY = """
[replay]
data = "french"
share = 0.5
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("effort")
    teacher = tiny_hf_folder(folder / "teacher", tiny_hf_model(tiny_dims()))
    speech = {name: tiny_speech(folder / name, 8) for name in ("speech", "french")}
    return {"teacher": str(teacher)} | {name: str(path) for name, path in speech.items()}


def planned(
    folder: Path,
    inputs: dict[str, str],
    replay: str = "",
    context: str = "dynamic",
    epochs: int = 1,
) -> PlannedStage:
    path = folder / "recipe.toml"
    full = float(context == "full")  # otherwise log-mel is cut there too
    text = RECIPE.format(**inputs, replay=replay, context=context, epochs=epochs, full=full)
    path.write_text(text)
    (stage,) = Pipeline(read_recipe(path), folder / "out", say=lambda _: None).plan()
    return stage


def test_a_training_counts_its_epochs(inputs: dict[str, str], tmp_path: Path) -> None:
    once, twice = (performing(planned(tmp_path, inputs, epochs=n)) for n in (1, 2))
    assert twice == pytest.approx(2 * once)


def test_a_teacher_that_encodes_30_s_is_counted(inputs: dict[str, str], tmp_path: Path) -> None:
    """Beside clips of a second, it is most of the work; in the full context it is a part of it."""
    costs = {
        context: performing(planned(tmp_path, inputs, REPLAY, context))
        / performing(planned(tmp_path, inputs, "", context))
        for context in ("dynamic", "full")
    }
    # Half of each batch is replayed, so that the same speech takes twice the steps.
    assert 2 < costs["full"] < 3
    assert costs["dynamic"] > 5


def test_what_comes_after_a_piece_of_work(inputs: dict[str, str], tmp_path: Path) -> None:
    efforts = Efforts([planned(tmp_path, inputs, REPLAY)])
    assert efforts.after(1) == 0
    first, second = (efforts.after(1, name) for name in ("speech", "french"))
    assert first is not None
    assert second is not None
    assert first > second > 0
    assert efforts.after(2) is None
