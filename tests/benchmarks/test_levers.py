"""The benchmark of levers on a tiny model: equal trainings, two seeds, what is missing only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from baldwhisper_convert.compression.factorize import FactorizeSettings
from baldwhisper_convert.data.prepared import Prepared
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_convert.training.log import LOG_FILE, read_log
from benchmarks.reproduction import levers, teacher_levers
from benchmarks.reproduction.levers import Lever, LeverRunner, first_pass, summary
from benchmarks.reproduction.teacher_levers import TeacherRunner
from benchmarks.result_files import check_settings, file_stem
from tests.support.benchmark_runs import run_variants
from tests.support.tiny_prepared import teacher_checkpoint, tiny_prepared

SMALL = FactorizeSettings(rank=8)
LEVERS = {
    "plain": Lever(keep=(1, 2), embedding=SMALL),
    "speech not augmented": Lever(keep=(1, 2), embedding=SMALL, augmented=False),
    "layers first": Lever(keep=(2,), embedding=SMALL, layers_first=True, ema=0.5),
}


def two_passes(folder: Path, n: int) -> Path:
    """Prepared states of n sources, each there twice."""
    tiny_prepared(folder, 2 * n, silence=0)
    lines = (folder / "windows.jsonl").read_text().splitlines()
    rows = [json.loads(line) | {"source": f"{i % n}.wav"} for i, line in enumerate(lines)]
    (folder / "windows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("levers")
    for seed, name in enumerate(("select", "report")):
        tiny_prepared(root / name, 6, seed=seed + 1, silence=0)
    return {
        "teacher": export_mlx(teacher_checkpoint(), root / "teacher", dtype="float32"),
        "speech": two_passes(root / "speech", 32),
        "select": root / "select",
        "report": root / "report",
    }


def run(folders: dict[str, Path], output: Path, *only: str) -> tuple[str, Any]:
    command = levers.command(LEVERS, LeverRunner, "")
    printed, result = run_variants(command, folders, output, only, "--share", "0.5")
    return printed, result["levers"]


def test_students_are_trained_once_with_two_seeds(folders: dict[str, Path], tmp_path: Path) -> None:
    _, rows = run(folders, tmp_path / "runs", "plain", "speech")
    assert list(rows) == ["plain", "speech not augmented"]
    for row in rows.values():
        assert row["steps"] == 2
        assert row["wer"] == pytest.approx(sum(row["wer_of_seeds"]) / 2, abs=1e-4)
    assert rows["plain"]["difference_interval"] == [0.0, 0.0]
    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").glob("*-[01].json")}
    assert len(trained) == 4
    output, again = run(folders, tmp_path / "runs")
    assert output.count("WER ") == 6
    assert {name: again[name] for name in rows} == rows
    assert all(path.stat().st_mtime_ns == before for path, before in trained.items())
    assert again["layers first"]["parameters"] < again["plain"]["parameters"]
    command = levers.command(LEVERS, LeverRunner, "")
    with pytest.raises(AssertionError, match=r"made with other settings \(share\)"):
        run_variants(command, folders, tmp_path / "runs", (), "--share", "0.9")


def test_the_first_pass_has_every_source_once(folders: dict[str, Path]) -> None:
    windows = first_pass(Prepared(folders["speech"])).windows
    assert sorted(window.number for window in windows) == list(range(32))
    assert len({window.source for window in windows}) == 32


def test_a_difference_is_of_both_seeds_together() -> None:
    def row(errors: int) -> dict[str, Any]:
        return {"word_errors": [[errors, 10]] * 20, "settings": {}}

    rows = summary({"plain": {0: row(2), 1: row(4)}, "other": {0: row(3), 1: row(5)}})
    assert rows["plain"]["wer_of_seeds"] == [0.2, 0.4]
    assert rows["other"]["wer"] == pytest.approx(0.4)
    assert rows["other"]["difference_interval"] == [0.1, 0.1]


def changes(levers: Mapping[str, Any]) -> dict[str, list[str]]:
    """In which settings each differs from the first."""
    plain = vars(next(iter(levers.values())))
    return {
        name: [key for key, value in vars(lever).items() if value != plain[key]]
        for name, lever in levers.items()
    }


def test_every_lever_is_one_change() -> None:
    first, *others = changes(levers.LEVERS).values()
    assert first == []
    assert all(len(changed) == 1 for changed in others)
    first, *others = changes(teacher_levers.LEVERS).values()
    assert first == []
    assert others.pop() == ["learning_rate", "lora"]  # adapters need a rate of their own
    assert all(len(changed) == 1 for changed in others)


def test_teachers_are_fine_tuned_in_several_ways(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    folders = {"teacher": export_mlx(teacher_checkpoint(), tmp_path / "teacher", dtype="float32")}
    for seed, name in enumerate(("speech", "select", "report")):
        folders[name] = tmp_path / name
        tiny_prepared(folders[name], 32 if name == "speech" else 6, mel=True, seed=seed, silence=0)
    some = {name: teacher_levers.LEVERS[name] for name in ("all weights, peak 1e-4", "LoRA")}
    command = levers.command(some, TeacherRunner, "")
    _, result = run_variants(command, folders, tmp_path / "runs", (), "--share", "0.5")
    rows = result["levers"]
    assert list(rows) == list(some)
    assert {row["steps"] for row in rows.values()} == {1}
    assert len({row["parameters"] for row in rows.values()}) == 1
    logs = [read_log(tmp_path / "runs" / f"{file_stem(name)}-0" / LOG_FILE) for name in some]
    assert logs[0][0]["loss"] == pytest.approx(logs[1][0]["loss"])  # before any step
    kept = json.loads((tmp_path / "runs" / f"{file_stem('LoRA')}-1.json").read_text())
    assert kept["settings"]["lora"]["rank"] == 32


def test_the_first_pass_needs_windows_of_one_clip(tmp_path: Path) -> None:
    data = tiny_prepared(tmp_path, 4)
    data.settings["report"]["settings"]["windows"]["single"] = 0.2
    with pytest.raises(ValueError, match=r"windows\.single = 1"):
        first_pass(data)


def test_trainings_with_other_settings_are_not_taken(tmp_path: Path) -> None:
    check_settings(tmp_path, {"share": 0.5, "keep": (1, 2)})
    check_settings(tmp_path, {"share": 0.5, "keep": (1, 2), "other": None})
    with pytest.raises(click.ClickException, match=r"made with other settings \(keep, other\)"):
        check_settings(tmp_path, {"share": 0.5, "keep": (1, 3), "other": 2})
