"""`run --dry-run` and what `run` says about work that is done, interrupted or of other settings."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from baldwhisper_convert import progress
from baldwhisper_convert.cli.main import main
from baldwhisper_convert.data import prepared_writer
from baldwhisper_convert.data.prepare_settings import PrepareSettings
from baldwhisper_convert.data.windows import WindowSettings
from baldwhisper_convert.pipeline import run as running
from baldwhisper_convert.pipeline import sources, timing
from baldwhisper_convert.pipeline.dry_run import DONE, TO_DO, Row, lacking_space, table
from baldwhisper_convert.pipeline.manifest import changes, read_manifest
from baldwhisper_convert.pipeline.recipe import Recipe
from baldwhisper_convert.pipeline.run import Pipeline
from baldwhisper_convert.pipeline.settings import build
from baldwhisper_convert.training import log, loop
from tests.support.tiny import tiny_dims, tiny_hf_folder, tiny_hf_model
from tests.support.tiny_speech import sound, tiny_speech


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_hf_folder(tmp_path_factory.mktemp("teacher") / "model", tiny_hf_model(tiny_dims()))


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "BUDGET", 0.1)


def recipe_of(teacher: Path, clips: Path, **training: Any) -> Recipe:
    """Three stages, two data sets."""
    plain = {"full": 0.0, "silence": 0.0, "single": 1.0}
    data = {"source": str(clips), "windows": plain}
    settings = {"epochs": 2, "batch_size": 2, "freeze": []} | training
    return build(
        Recipe,
        {
            "teacher": str(teacher),
            "data": {"train": data | {"features": "mel"}, "states": data},
            "stages": [
                {"stage": "finetune", "data": ["train"], "dev": "train", "training": settings},
                {"stage": "merge", "data": ["states"]},
                {"stage": "factorize", "data": ["states"], "factorize": {"rank": 8}},
            ],
        },
        "recipe",
    )


def statuses(rows: list[Row]) -> dict[str, str]:
    return {row.work: row.status for row in rows}


def test_a_dry_run_sees_what_is_done_and_writes_nothing(teacher: Path, tmp_path: Path) -> None:
    clips, out, said = tiny_speech(tmp_path / "clips", 6), tmp_path / "out", list[str]()
    recipe = recipe_of(teacher, clips)
    rows = Pipeline(recipe, out, say=said.append).dry_run()
    works = ["prepare train", "finetune", "prepare states", "merge", "factorize"]
    assert [row.work for row in rows] == works
    assert set(statuses(rows).values()) == {TO_DO}
    assert not out.exists()
    by_work = {row.work: row for row in rows}
    assert by_work["finetune"].steps == 2 * 6 // 2
    assert all(row.seconds > 0 and row.memory > 0 and row.disk > 0 for row in rows)
    Pipeline(recipe, out, say=said.append).run()
    # What it predicted lies on the disk.
    for name in ("train", "states"):
        (folder,) = (out / "prepared").glob(f"{name}*")
        predicted = by_work[f"prepare {name}"].disk
        stored = sum(path.stat().st_size for path in folder.iterdir())
        assert abs(stored - predicted) < 0.1 * stored
    for number, name in enumerate(("finetune", "merge", "factorize"), start=1):
        stored = sum(p.stat().st_size for p in (out / f"{number:02}-{name}").iterdir())
        assert abs(stored - by_work[name].disk) < 0.1 * stored + 200_000
    again = Pipeline(recipe, out, say=said.append).dry_run()
    assert set(statuses(again).values()) == {DONE}
    assert sum(row.seconds for row in again) == 0
    # Another rank is another last stage, and nothing else.
    other = json.loads(json.dumps({"rank": 4}))
    changed = recipe_of(teacher, clips)
    stage = build(type(changed.stages[2]), {"stage": "factorize", "data": ["states"],
                                            "factorize": other}, "stage")  # fmt: skip
    object.__setattr__(changed, "stages", (*changed.stages[:2], stage))
    rows = Pipeline(changed, out, say=said.append).dry_run()
    assert statuses(rows) == dict.fromkeys(works, DONE) | {"factorize": TO_DO}
    with pytest.raises(FileExistsError, match=r"03-factorize: .*factorize.rank: 8 -> 4"):
        Pipeline(changed, out, say=said.append).run()


def test_a_dry_run_starts_no_trackers(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    class Recorder(log.Trackers):
        def __init__(self, names: Any, *rest: Any) -> None:
            started.append(tuple(names))
            super().__init__(names, *rest)

    monkeypatch.setattr(log, "Trackers", Recorder)
    recipe = recipe_of(teacher, tiny_speech(tmp_path / "clips", 4), trackers=["tensorboard"])
    Pipeline(recipe, tmp_path / "out", say=lambda _: None).dry_run()
    assert started == [()]


def test_every_bar_of_a_run_names_stage_and_data(
    teacher: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "DELAY", 0)
    recipe = recipe_of(teacher, tiny_speech(tmp_path / "clips", 6))
    Pipeline(recipe, tmp_path / "out", say=lambda _: None).run()
    shown = capsys.readouterr().err
    for bar in (
        "stage 1 of 3: finetune, data train: prepare",
        "stage 1 of 3: finetune, data train: train",
        "stage 1 of 3: finetune, data train: evaluate",
        "stage 2 of 3: merge, data states: prepare",
        "stage 2 of 3: merge, data states: compare layers",
        "stage 3 of 3: factorize, data states: calibrate",
        "stage 3 of 3: factorize, data states: measure",
    ):
        assert f"{bar}:" in shown, bar
    assert "run: about" in shown


class Killed(BaseException):
    """As Ctrl-C is: no handler of exceptions stops it."""


def test_an_interrupted_training_resumes_where_the_dry_run_says(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, out, said = tiny_speech(tmp_path / "clips", 6), tmp_path / "out", list[str]()
    recipe = recipe_of(teacher, clips, checkpoint_minutes=1e-9, evaluate_every=3)
    real = loop._Run._step

    def step(self: Any, number: int, *rest: Any) -> Any:
        if number == 4:
            raise Killed
        return real(self, number, *rest)

    monkeypatch.setattr(loop._Run, "_step", step)
    with pytest.raises(Killed):
        Pipeline(recipe, out, say=said.append).run()
    monkeypatch.undo()
    monkeypatch.setattr(timing, "BUDGET", 0.1)
    rows = Pipeline(recipe, out, say=said.append).dry_run()
    assert statuses(rows)["finetune"] == "resumes at step 4 of 6"
    assert statuses(rows)["prepare train"] == DONE
    Pipeline(recipe, out, say=said.append).run()
    assert f"{out / '01-finetune'}: resumes after step 4" in said


def test_interrupted_preparing_resumes_where_the_dry_run_says(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, out, said = tiny_speech(tmp_path / "clips", 20), tmp_path / "out", list[str]()
    recipe = recipe_of(teacher, clips)
    real = prepared_writer.PreparedWriter.add

    def add(self: Any, window: Any, features: Any) -> None:
        if window.number == 9:
            raise Killed
        real(self, window, features)

    monkeypatch.setattr(prepared_writer.PreparedWriter, "add", add)
    with pytest.raises(Killed):
        Pipeline(recipe, out, say=said.append).run()
    monkeypatch.undo()
    monkeypatch.setattr(timing, "BUDGET", 0.1)
    rows = Pipeline(recipe, out, say=said.append).dry_run()
    assert statuses(rows)["prepare train"] == "resumes at window 9 of 20"
    Pipeline(recipe, out, say=said.append).run()
    assert f"{out / 'prepared/train'}: resumes after window 9" in said


def test_replaced_audio_and_other_settings_are_named(teacher: Path, tmp_path: Path) -> None:
    import os

    import soundfile

    clips, folder = tiny_speech(tmp_path / "clips", 4), tmp_path / "prepared"
    arguments = ["prepare", str(teacher), str(folder), "--data", str(clips)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    other = CliRunner().invoke(main, [*arguments, "--set", "windows.full=0", "--set", "passes=2"])
    assert other.exit_code == 1
    assert "passes: 1 -> 2; windows.full: 0.3 -> 0.0" in other.output
    assert CliRunner().invoke(main, [*arguments, "--set", "language=English"]).exit_code == 0
    path = clips / "002.wav"
    length = soundfile.info(path).frames / 16_000
    soundfile.write(path, sound(length, seed=77), 16_000)
    later = (folder / "prepared.json").stat().st_mtime + 10
    os.utime(path, (later, later))
    replaced = CliRunner().invoke(main, arguments)
    assert replaced.exit_code == 1
    assert "002.wav" in replaced.output
    assert "001.wav" not in replaced.output


def test_a_finished_stage_is_done_when_repeated(teacher: Path, tmp_path: Path) -> None:
    clips, folder = tiny_speech(tmp_path / "clips", 4), tmp_path / "prepared"
    prepare = ["prepare", str(teacher), str(folder), "--data", str(clips)]
    assert CliRunner().invoke(main, prepare).exit_code == 0
    student = tmp_path / "student"
    assert CliRunner().invoke(main, ["merge", str(teacher), str(student)]).exit_code == 0
    arguments = ["distill", str(student), str(tmp_path / "done"), "--teacher", str(teacher),
                 "--data", str(folder), "--set", "training.epochs=0.1",
                 "--set", "training.batch_size=2"]  # fmt: skip
    first = CliRunner().invoke(main, arguments)
    assert first.exit_code == 0, first.output
    made = (tmp_path / "done/model.safetensors").stat().st_mtime_ns
    again = CliRunner().invoke(main, arguments)
    assert (again.exit_code, again.output) == (0, f"{tmp_path / 'done'}: done already\n")
    assert (tmp_path / "done/model.safetensors").stat().st_mtime_ns == made
    other = CliRunner().invoke(main, [*arguments, "--set", "loss.kl=2"])
    assert other.exit_code == 1
    assert "loss.kl: 1.0 -> 2.0. --force replaces it" in other.output
    assert CliRunner().invoke(main, [*arguments, "--set", "loss.kl=2", "--force"]).exit_code == 0


def test_changes_name_every_path() -> None:
    old = {"a": {"b": 1, "c": [1]}, "d": None}
    assert changes(old, {"a": {"b": 2, "c": [1]}, "e": "x"}) == ["a.b: 1 -> 2", 'e: none -> "x"']


def test_the_table_sums_up_and_space_is_checked(tmp_path: Path) -> None:
    rows = [
        Row(stage=1, work="prepare a", status=DONE, windows=4),
        Row(stage=1, work="finetune", status=TO_DO, windows=4, steps=8, seconds=3700,
            memory=10**9, disk=10**6, extra_disk=2 * 10**6),
    ]  # fmt: skip
    lines = table(rows).splitlines()
    assert lines[-1] == (
        "In all 1 h 1 min, 1.0 MB on disk and at most 2.0 MB more while training, 1.0 GB of memory"
    )
    assert lines[1].split()[-2:] == ["done", "already"]
    assert lacking_space(rows, tmp_path / "new") == ""
    huge = [Row(stage=1, work="merge", status=TO_DO, windows=1, disk=10**18)]
    assert "but only" in lacking_space(huge, tmp_path / "new")


def test_a_stage_of_other_settings_is_refused_before_anything_is_trained(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it is a late one, and the first has been deleted to save disk space."""
    clips, out = tiny_speech(tmp_path / "clips", 6), tmp_path / "out"
    recipe = recipe_of(teacher, clips)
    Pipeline(recipe, out, say=lambda _: None).run()
    shutil.rmtree(out / "01-finetune")
    object.__setattr__(recipe.stages[2].factorize, "rank", 4)
    monkeypatch.setattr(running, "perform", lambda *_, **__: pytest.fail("a stage is performed"))
    with pytest.raises(FileExistsError, match=r"03-factorize: .*factorize.rank: 8 -> 4"):
        Pipeline(recipe, out, say=lambda _: None).run()


def test_a_damaged_recording_of_a_late_stage_is_found_before_the_first(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, late = tiny_speech(tmp_path / "clips", 6), tiny_speech(tmp_path / "late", 6)
    whole = (late / "003.wav").read_bytes()
    (late / "003.wav").write_bytes(whole[: len(whole) * 6 // 10])
    recipe = recipe_of(teacher, clips)
    features = dataclasses.replace(recipe.data["train"], source=str(late))
    object.__setattr__(recipe, "data", recipe.data | {"dev": features})
    object.__setattr__(recipe.stages[2], "dev", "dev")
    monkeypatch.setattr(running, "perform", lambda *_, **__: pytest.fail("a stage is performed"))
    with pytest.raises(ValueError, match=r"003.wav"):
        Pipeline(recipe, tmp_path / "out", say=lambda _: None).run()


def test_a_set_is_read_once_for_the_check_and_once_to_prepare_it(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(teacher, tiny_speech(tmp_path / "clips", 6))
    read, readings = sources.read_utterances, list[str]()

    def counted(source: str, **how: Any) -> Any:
        readings.append(source)
        return read(source, **how)

    monkeypatch.setattr(sources, "read_utterances", counted)
    for _ in range(2):
        readings.clear()
        Pipeline(recipe, tmp_path / "out", say=lambda _: None).run()
        assert len(readings) == 2 * len(recipe.data)


@pytest.mark.parametrize("dropped", [0, 3, 6])
def test_dropped_windows_do_not_change_the_predicted_time(
    dropped: int, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Preparing takes as long, whether the teacher's labels are usable or not."""
    (planned, *_) = Pipeline(
        recipe_of(teacher, tiny_speech(tmp_path / "clips", 6)), tmp_path
    ).plan()
    ((data, checkpoint), *_) = planned.own
    windows = [SimpleNamespace(positions=1500) for _ in range(6 - dropped)]
    made = SimpleNamespace(windows=windows, settings={"report": {"dropped": dropped}})

    def measured(*inputs: Any) -> tuple[float, Any]:
        return (1.0 if len(inputs[-1]) == 1 else 7.0), made

    monkeypatch.setattr(timing, "_prepared_seconds", measured)
    settings = PrepareSettings(language="en", windows=WindowSettings(full=0.0))
    cost = timing.time_prepare(checkpoint, data, settings, 60)
    assert cost.seconds == pytest.approx(1 + 6 * 60 / 6)


def test_a_stream_is_shown_as_a_lower_bound() -> None:
    row = Row(stage=1, work="prepare x", status=TO_DO, windows=65, seconds=2.0, at_least=True)
    assert "  65+  " in table([row])
    assert "In all at least 2.0 s" in table([row])
    assert "at least" not in table([dataclasses.replace(row, at_least=False)]).splitlines()[-1][:20]


def test_a_text_may_have_the_name_of_data(teacher: Path, tmp_path: Path) -> None:
    clips = tiny_speech(tmp_path / "clips", 6)
    table = {
        "teacher": str(teacher),
        "data": {"words": {"source": str(clips), "windows": {"full": 0.0, "silence": 0.0}}},
        "texts": {"words": str(clips / "metadata.jsonl")},
        "stages": [{"stage": "factorize", "data": ["words"], "texts": ["words"],
                    "factorize": {"rank": 8}, "speech": 2}],
    }  # fmt: skip
    pipeline = Pipeline(build(Recipe, table, "recipe"), tmp_path / "out", say=lambda _: None)
    manifest = read_manifest(pipeline.run())
    assert manifest is not None
    assert list(manifest.data) == ["words", "words (2)"]
    assert set(statuses(pipeline.dry_run()).values()) == {DONE}
