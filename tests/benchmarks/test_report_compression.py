"""The tables of docs/compression.md say what the result files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from baldwhisper_convert.compression.layers import LayerPlan
from baldwhisper_convert.compression.merge import MergeSettings
from benchmarks.report import compression


def form(**changes: Any) -> dict[str, Any]:
    row = {"init": "svd", "rank": 96, "projections": "shared", "mean": False, "dense_rows": 0}
    row |= {"focus": 0.0, "parameters": 51_100_000, "energy": 0.456, "held_out_positions": 2345}
    row |= {f"{kind}_{end}": 0.5 for kind in ("kl", "top1") for end in ("output", "input", "both")}
    return row | changes


def choice(plan: LayerPlan, kl: float) -> dict[str, Any]:
    return {"plan": str(plan), "weights": [list(w) for w in plan.weights], "kl": kl, "top1": 0.5}


def variant(wer: float, **changes: Any) -> dict[str, Any]:
    row = {"parameters": 44_800_000, "steps": 150, "kl_before": 4.0, "kl": 0.61, "top1": 0.86}
    row |= {"wer": wer, "wer_interval": [wer - 0.01, wer + 0.01]}
    return row | {"difference_interval": [-0.02, 0.03]} | changes


def test_forms_are_told_apart() -> None:
    forms = [
        form(),
        form(mean=True),
        form(init="joint", mean=True, projections="separate", dense_rows=18000),
        form(init="joint", mean=True),
        form(init="joint", mean=True, focus=0.03),
    ]
    rows = compression.embedding_rows(forms)
    assert [row[0] for row in rows[1:]] == [
        "plain SVD",
        "plain SVD, separate mean",
        "joint",
        "joint, one projection",
        "joint, one projection, focus 0.03",
    ]
    assert rows[3][1:5] == ["96", "18,000", "51.1 M", "45.6 %"]
    assert len({len(row) for row in rows}) == 1


def test_the_closest_layers_of_each_number_and_all_merged_pairs() -> None:
    def keep(*layers: int) -> LayerPlan:
        return MergeSettings(method="keep", keep=layers).plan(6)

    fives = [keep(*(i for i in range(6) if i != left)) for left in (3, 4, 2, 5, 0)]
    merged = [MergeSettings(alpha=alpha).plan(6) for alpha in (0.1, 1.0)]
    found = [choice(plan, kl) for kl, plan in enumerate([*fives, keep(0, 3, 5), *merged])]
    rows = compression.layer_rows(found)[1:]
    assert [row[0] for row in rows] == [
        "keep 0,1,2,4,5",
        "keep 0,1,2,3,5",
        "keep 0,1,3,4,5",
        "keep 0,1,2,3,4",
        "keep 0,3,5",
        "merge 0+1,2+3,4+5, alpha 0.1",
        "merge 0+1,2+3,4+5, alpha 1",
    ]
    assert rows[4] == ["keep 0,3,5", "3", "5.000", "0.500"]


def test_differences_are_from_the_plain_variant() -> None:
    variants = {"all": variant(0.2), "worse": variant(0.25, kl=0.9)}
    result = {"windows": 172, "plain": "all", "variants": variants}
    lines = compression.ablation_part(result).splitlines()
    assert lines[0] == "172 windows; differences are from `all`, paired:"
    common = "| 44.8 M | 150 | 4.00,"
    assert lines[-2] == f"| all {common} 0.610 | 0.860 | 20.00 [19.00, 21.00] | - |"
    assert lines[-1] == (
        f"| worse {common} 0.900 | 0.860 | 25.00 [24.00, 26.00] | +5.00 [-2.00, +3.00] |"
    )


def encoder(layers: int, groups: list[list[int]], **stages: Any) -> dict[str, Any]:
    wer = {"wer": 0.051, "wer_interval": [0.04, 0.06], "clips": 40}
    return {
        "layers": layers,
        "groups": groups,
        "parameters": 72_600_000,
        "wer": {"speech/dev": wer, "other/dev": wer},
        "encode_cpu_seconds": {"10": 0.151, "30": 0.472},
        **stages,
    }


def test_encoders_say_what_each_stage_gained() -> None:
    def distance(error: float) -> dict[str, float]:
        return {"error": error, "kl": 10 * error, "top1": 0.5}

    variants = {
        "6 layers": encoder(6, [[i] for i in range(6)], start=distance(0.0)),
        "5 layers, kept": encoder(
            5,
            [[0], [1], [2], [3], [4, 5]],
            start=distance(0.4),
            fitted=distance(0.2),
            fit_seconds=30.0,
            states=distance(0.1) | {"cpu_seconds": 60.0, "steps": 30},
        ),
    }
    result = {"chip": "Tiny", "steps": [30, 8], "batch_size": 4, "variants": variants}
    lines = compression.encoder_part(result).splitlines()
    assert lines[0] == (
        "40 clips of speech/dev and 40 clips of other/dev; 30 steps on the states and 8 through "
        "the decoder, of 4 windows each; times in CPU seconds on Tiny:"
    )
    assert "WER, speech/dev | WER, other/dev" in lines[2]
    end = "| 0.15, 0.47 | 5.10 [4.00, 6.00] | 5.10 [4.00, 6.00] |"
    assert lines[-2] == f"| 6 layers | 72.6 | 0.000, 0.00 | - | - | - | - {end}"
    assert lines[-1] == (
        "| 5 layers, kept: 0 1 2 3 4+5 | 72.6 | 0.400, 4.00 | 0.200, 2.00 | 0.100, 1.00 | - "
        f"| 1.5 {end}"
    )
    # A measurement that is not finished shows what there is.
    for row in variants.values():
        del row["wer"], row["encode_cpu_seconds"]
    lines = compression.encoder_part(result).splitlines()
    assert lines[0].startswith("No word errors yet; 30 steps")
    assert lines[-2] == "| 6 layers | 72.6 | 0.000, 0.00 | - | - | - | - | - |"


@pytest.mark.parametrize("wer", [0.05, None])
def test_bits_of_every_model(tmp_path: Path, wer: float | None) -> None:
    row = {"variant": "8 bits", "megabytes": 65.04, "kl": 0.0002, "top1": 0.998, "wer": wer}
    row["wer_interval"] = wer and [0.04, 0.06]
    result = {"clips": 12, "data": "speech/dev", "variants": [row]}
    for name in ("b", "a"):
        (tmp_path / f"quantization-{name}.json").write_text(json.dumps(result))
    part = compression.quantization_part(tmp_path)
    assert part.index("a, 12 clips of speech/dev:") < part.index("b, 12 clips")
    words = "5.00 [4.00, 6.00]" if wer else "-"
    assert part.count(f"| 8 bits | 65.0 | 0.00020 | 99.80 % | {words} |") == 2


def test_what_is_not_measured_is_said(tmp_path: Path) -> None:
    parts = compression.compression_parts(tmp_path)
    assert set(parts.values()) == {compression.NOT_MEASURED}
    (tmp_path / "compression_start.json").write_text(
        json.dumps({"windows": 48, "embedding": [form()], "layers": []})
    )
    parts = compression.compression_parts(tmp_path)
    assert parts["embedding"].startswith("48 windows, 2,345 tokens:")
    assert parts["ablation"] == compression.NOT_MEASURED
