"""The benchmark compression_start on a tiny model: every form and choice is measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from baldwhisper_convert.export.mlx import export_mlx
from benchmarks.compression import compression_start
from tests.support.tiny_prepared import teacher_checkpoint, tiny_prepared


def test_every_start_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression_start, "RANK", 8)
    monkeypatch.setattr(compression_start, "RANKS", (32,))
    monkeypatch.setattr(compression_start, "ROWS", (5, 40))
    monkeypatch.setattr(compression_start, "HYBRID", (4, 10))
    arguments = [str(export_mlx(teacher_checkpoint(), tmp_path / "teacher", dtype="float32"))]
    for seed, name in enumerate(("real", "synthetic", "dev")):
        tiny_prepared(tmp_path / name, 12, seed=seed)
        arguments += [f"--{name}", str(tmp_path / name)]
    results = tmp_path / "results.json"
    done = CliRunner().invoke(compression_start.main, [*arguments, "--results", str(results)])
    assert done.exit_code == 0, done.output
    found = json.loads(results.read_text())
    assert len(found["embedding"]) == 4 + 2 + 2 + 2 + 1
    whole = [row for row in found["embedding"] if row["rank"] == 32]
    assert len(whole) == 2
    for row in whole:  # nothing is lost at full rank
        assert row["kl_both"] == pytest.approx(0, abs=1e-4)
        assert row["energy"] == pytest.approx(1, abs=1e-4)
    assert all(0 <= row["top1_both"] <= 1 for row in found["embedding"])
    # Three layers: 3 choices of two of them, for half and for two thirds; 4 merged pairs.
    kls = [row["kl"] for row in found["layers"]]
    assert len(kls) == 4 + 3
    assert kls == sorted(kls)
    assert sum("merge" in row["plan"] for row in found["layers"]) == 3  # alpha 0 keeps
