"""The benchmark ablation on a tiny model: trains what is missing, pairs what it compares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib import image

from baldwhisper_convert.compression.factorize import FactorizeSettings
from baldwhisper_convert.compression.merge import MergeSettings
from baldwhisper_convert.data.prepared import Prepared
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_convert.training.objectives import LossSettings
from benchmarks.compression import ablation, training_plots
from benchmarks.compression.ablation_variants import PLAIN, Variant
from tests.support.benchmark_runs import run_variants
from tests.support.tiny_prepared import teacher_checkpoint, tiny_prepared

PAIRS = MergeSettings(groups=(1, 2))
HALF = Variant(layers=PAIRS, embedding=FactorizeSettings(rank=8, dense_rows=5))
VARIANTS = {
    "plain": HALF,
    "svd": Variant(layers=PAIRS, embedding=FactorizeSettings(rank=8, init="svd")),
    "dense, more speech": Variant(layers=PAIRS, embedding=None, synthetic=0.5, longer=2),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("ablation")
    made = {"teacher": export_mlx(teacher_checkpoint(), root / "teacher", dtype="float32")}
    for seed, name in enumerate(("real", "synthetic", "dev")):
        tiny_prepared(root / name, 12, seed=seed)
        made[name] = root / name
    return made


def run(folders: dict[str, Path], output: Path, *only: str) -> Any:
    printed, result = run_variants(ablation.main, folders, output, only, "--steps", "3")
    return printed, result["variants"]


def test_variants_are_trained_once_and_compared(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "VARIANTS", VARIANTS)
    output, rows = run(folders, tmp_path / "runs", "plain", "svd")
    assert list(rows) == ["plain", "svd"]
    assert rows["plain"]["difference_interval"] == [0.0, 0.0]
    for row in rows.values():
        assert row["steps"] == 3
        assert row["wer_interval"][0] <= row["wer"] <= row["wer_interval"][1]
        assert row["kl"] != row["kl_before"]
    # Five dense rows and a mean more, and a projection of its own.
    assert rows["plain"]["parameters"] - rows["svd"]["parameters"] == 5 * 32 + 32 + 8 * 32

    output, again = run(folders, tmp_path / "runs")
    assert output.count("WER ") == 1  # only the one that was missing
    assert {name: again[name] for name in rows} == rows
    extra = again["dense, more speech"]
    assert extra["steps"] == 6
    assert extra["windows"] == 12 + 6


def test_a_portion_keeps_the_passes_of_a_source_together(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    data = tiny_prepared(tmp_path / "twice", 12)
    lines = (tmp_path / "twice/windows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for i, row in enumerate(rows):
        row["source"] = f"{i % 6}.wav"
    (tmp_path / "twice/windows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    part = ablation.Portion(tmp_path / "twice", 0.5)
    sources = [window.source for window in part.windows]
    assert len(sources) == 6
    assert len(set(sources)) == 3
    whole = Prepared(tmp_path / "twice")
    for i, window in enumerate(part.windows):
        same = whole.windows.index(window)
        assert part.features(i).equal(whole.features(same))
    assert len(data) == 12


def test_the_interval_of_a_difference_is_paired() -> None:
    errors = [[i % 3, 10] for i in range(50)]
    worse = [[wrong + 1, words] for wrong, words in errors]
    found = {
        "plain": {"word_errors": errors, "settings": {}, "kl": 1.0},
        "worse": {"word_errors": worse, "settings": {}, "kl": 1.0},
    }
    rows = ablation.report(found, "plain")
    # One error in ten words more, in whichever windows are drawn.
    assert rows["worse"]["difference_interval"] == [0.1, 0.1]
    assert rows["worse"]["wer"] == pytest.approx(rows["plain"]["wer"] + 0.1)
    assert rows["plain"]["wer_interval"][0] < rows["plain"]["wer"]


def test_every_variant_differs_from_the_plain_one() -> None:
    variants = list(ablation.VARIANTS.values())
    assert len(set(map(repr, variants))) == len(variants)
    assert PLAIN.loss == LossSettings(ce=0.1, kl=1.0, hidden=1.0)


def test_the_plots_show_what_differs_in_speech_alone(tmp_path: Path) -> None:
    def row(real: float, synthetic: float, longer: int, wer: float) -> dict[str, Any]:
        interval = [wer - 0.01, wer + 0.01]
        shares = {"real": real, "synthetic": synthetic, "longer": longer}
        return shares | {"wer": wer, "wer_interval": interval}

    variants = {
        "plain": row(1.0, 0.0, 1, 0.5),
        "whole": row(1.0, 0.0, 3, 0.2),
        "quarter": row(0.25, 0.0, 3, 0.3),
        "more": row(1.0, 1.0, 3, 0.1),
    }
    real = [(share, round(rates[0])) for share, rates in training_plots.points(variants, "real")]
    assert real == [(0.25, 30), (1.0, 20)]
    more = training_plots.points(variants, "synthetic")
    assert [(share, round(rates[0])) for share, rates in more] == [(0.0, 20), (1.0, 10)]

    (tmp_path / "ablation.json").write_text(json.dumps({"variants": variants}))
    steps: list[dict[str, Any]] = [{"step": i, "seconds": 60 * i} for i in range(1, 5)]
    steps += [{"step": i, "dev": {"wer": 1 / i}} for i in (2, 4)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    arguments = ["--log", str(tmp_path / "log.jsonl"), "--output", str(tmp_path / "plots")]
    arguments += ["--ablation", str(tmp_path / "ablation.json")]
    done = CliRunner().invoke(training_plots.main, arguments)
    assert done.exit_code == 0, done.output
    for name in (training_plots.TIME_FILE, training_plots.DATA_FILE):
        pixels = image.imread(tmp_path / "plots" / name)
        assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50
