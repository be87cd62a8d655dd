"""The benchmark encoder_depth on a tiny model: stages, words and times of every variant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from baldwhisper_convert.compression.merge import MergeSettings
from baldwhisper_convert.data.prepared import Prepared
from baldwhisper_convert.export.mlx import export_mlx
from benchmarks.compression import encoder_depth, encoder_variants
from benchmarks.compression.encoder_variants import UNTRAINED, VARIANTS, Cropped
from benchmarks.result_files import spread
from tests.support.tiny import tiny_checkpoint, tiny_dims
from tests.support.tiny_prepared import tiny_prepared
from tests.support.tiny_speech import tiny_speech

TINY = {
    "all layers": MergeSettings(part="encoder", method="keep", keep=(0, 1, 2)),
    "kept": MergeSettings(part="encoder", groups=(1, 2), alpha=1.0, beta=0.0),
    f"kept{UNTRAINED}": MergeSettings(part="encoder", groups=(1, 2), alpha=1.0, beta=0.0),
    "merged": MergeSettings(part="encoder", groups=(2, 1), alpha=1.0),
}


def test_every_stage_of_every_variant_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (encoder_depth, encoder_variants):
        monkeypatch.setattr(module, "VARIANTS", TINY)
    monkeypatch.setattr(encoder_variants, "CROP", 12)
    monkeypatch.setattr(encoder_depth, "ROUNDS", 1)
    dims = tiny_dims(n_mels=80, n_audio_state=16, n_audio_layer=3, n_text_state=16, n_text_layer=1)
    teacher = export_mlx(tiny_checkpoint(dims, alignment_heads=None), tmp_path / "teacher")
    arguments = [str(teacher)]
    for seed, name in enumerate(("audio", "text", "dev")):
        tiny_prepared(tmp_path / name, 12, seed=seed, mel=True, text=name != "audio", width=80)
        arguments += [f"--{name}", str(tmp_path / name)]
    speech = tiny_speech(tmp_path / "speech" / "dev", 3)
    results, runs = tmp_path / "results.json", tmp_path / "runs"
    arguments += ["--data", str(speech), "--output", str(runs), "--results", str(results)]
    arguments += ["--limit", "2", "--steps", "3", "2"]
    done = CliRunner().invoke(encoder_depth.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = json.loads(results.read_text())["variants"]
    assert found.keys() == TINY.keys()
    assert found["all layers"]["start"]["error"] == 0
    assert "states" not in found["all layers"]
    fitted, trained = found[f"kept{UNTRAINED}"], found["kept"]
    assert [fitted[stage] for stage in ("start", "fitted")] == [
        trained[stage] for stage in ("start", "fitted")
    ]
    assert not {"states", "decoder"} & fitted.keys()
    assert fitted["wer"].keys() == trained["wer"].keys()
    for name, groups in (("kept", [[0], [1, 2]]), ("merged", [[0, 1], [2]])):
        row = found[name]
        assert (row["layers"], row["groups"]) == (2, groups)
        assert row["fitted"]["error"] < row["start"]["error"]
        assert (row["states"]["steps"], row["decoder"]["steps"]) == (3, 2)
        assert row["parameters"] < found["all layers"]["parameters"]
        assert row["wer"]["speech/dev"]["clips"] == 2
        assert row["encode_cpu_seconds"].keys() == {"10", "30"}
        errors = [row[stage]["error"] for stage in ("start", "fitted", "states", "decoder")]
        assert len(set(errors)) == 4
    again = CliRunner().invoke(encoder_depth.main, arguments, catch_exceptions=False)
    assert again.exit_code == 0, again.output
    before = {name: row["states"] for name, row in found.items() if "states" in row}
    found = json.loads(results.read_text())["variants"]
    assert {name: found[name]["states"] for name in before} == before


def test_most_windows_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_variants, "CROP", 12)
    data: Prepared = tiny_prepared(tmp_path / "audio", 12, mel=True, text=False)
    cropped = Cropped(data)
    assert not cropped.labelled
    longer = [i for i, window in enumerate(data.windows) if window.positions > 12]
    assert longer
    for i, window in enumerate(cropped.windows):
        whole = data.windows[i].positions
        assert window.positions == (min(12, whole) if i % 4 else whole)
        expected = data.features(i)[:, : 2 * window.positions]
        assert torch.equal(cropped.features(i), expected)


def test_variants_are_of_six_layers_and_named_by_their_number() -> None:
    for name, settings in VARIANTS.items():
        plan = settings.plan(6)
        assert name.startswith(f"{len(plan.groups)} layers")
        assert ("merged" in name) == (None in plan.kept)


def test_clips_are_spread_over_the_folder() -> None:
    clips = [{"file_name": str(i)} for i in range(10)]
    assert [clip["file_name"] for clip in spread(clips, 4)] == ["0", "2", "5", "7"]
    assert spread(clips, None) == spread(clips, 99) == clips
