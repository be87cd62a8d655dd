"""The tables and pictures of docs/reproduction.md say what the result files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from benchmarks.report import reproduction
from benchmarks.report.compression import NOT_MEASURED
from benchmarks.reproduction import measure
from benchmarks.reproduction.plots import draw_reproduction
from tests.support import tiny_results


def estimate(value: float) -> dict[str, Any]:
    return {"value": value, "interval": [value - 0.01, value + 0.01]}


def evaluation(model: float, baseline: float) -> dict[str, Any]:
    """As `baldwhisper evaluate` writes it, of a model and its baseline by their WER."""
    rates = {"model": model, "baseline": baseline}
    return {
        "data": {"utterances": 257},
        "models": {
            role: {"wer": estimate(rate), "cer": estimate(rate / 2), "rtf": rate / 10}
            for role, rate in rates.items()
        },
        "comparison": {"wer": {"retention": estimate(baseline / model)}},
    }


def variant(group: str, wer: float, parameters: int = 40_000_000) -> dict[str, Any]:
    return {
        "group": group, "parameters": parameters, "steps": 20, "seconds": 9.0, "wer": wer,
        "wer_interval": [wer - 0.01, wer + 0.01], "difference_interval": [-0.02, 0.03],
        "curve": [[10, wer + 0.1], [20, wer]],
    }  # fmt: skip


VARIANTS = {
    "merged": variant("layers", 0.4),
    "lower layers kept": variant("layers", 0.5),
    "factorized, rank 96": variant("vocabulary", 0.45),
    "random start": variant("vocabulary", 0.9),
    "factorized, rank 32": variant("vocabulary", 0.6, 35_000_000),
}
TRIALS = [
    {"alpha": 0.0, "beta": 3.0, "wer": 0.5},
    {"alpha": 0.1, "beta": 9.9, "wer": 0.6},
    {"alpha": 5.0, "beta": 5.0, "wer": 0.7},
    {"alpha": 2.0, "beta": 0.0, "wer": 0.9},
]

LEVERS = {
    "layers 0, 3, 5": variant("", 0.52) | {"wer_of_seeds": [0.54, 0.50]},
    "no KL": variant("", 0.55, 41_000_000) | {"wer_of_seeds": [0.554, 0.546]},
}

LANGUAGES = {
    "models": {
        "student": {
            "languages": {
                "French": {
                    "tokens": 85, "median_rank": 12.0, "within_reach": 0.75, "likeliest": 0.5,
                }
            }
        }
    }
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "merged": evaluation(0.42, 0.40),
        "sheared": evaluation(0.44, 0.40),
        "speed-merged": tiny_results.bench(),
        "speed-sheared": tiny_results.bench(),
        "variants": {"variants": VARIANTS},
        "search": {"trials": TRIALS},
        "levers": {"levers": LEVERS},
        "teacher-levers": {
            "levers": {"all weights": VARIANTS["merged"] | {"wer_of_seeds": [0.5, 0.6]}}
        },
        "languages": LANGUAGES,
        "keeping-languages": LANGUAGES,
        "keeping-together": LANGUAGES,
        "context-base": evaluation(0.9, 0.1),
        "context-tuned": evaluation(0.4, 0.5),
    }
    for name, found in files.items():
        (tmp_path / f"reproduction-{name}.json").write_text(json.dumps(found))
    return tmp_path


def test_the_papers_table(folder: Path) -> None:
    _, tuned, merged, sheared = reproduction.paper_rows(reproduction.read(folder))
    assert tuned[0] == "fine-tuned"
    assert tuned[3:] == ["1", "40.00 [39.00, 41.00]", "20.00 [19.00, 21.00]", "1"]
    assert merged[0] == "merged"
    assert merged[4] == "42.00 [41.00, 43.00]"
    assert sheared[0] == "merged and factorized"
    assert sheared[-1] == "0.909 [0.899, 0.919]"
    case = tiny_results.case(reproduction.RATE)
    for row, role in ((tuned, "teacher"), (merged, "student"), (sheared, "student")):
        assert float(row[2]) == pytest.approx(case["results"][role]["value"]["median"], abs=0.05)
    assert sheared[3].startswith(f"{case['speed_ups']['compression']['median']:.2f} [")


def test_variants_of_a_group_against_its_first() -> None:
    result = {"variants": VARIANTS}
    rows = reproduction.variant_rows(result, "vocabulary")[1:]
    assert [row[0] for row in rows] == [
        "factorized, rank 96",
        "random start",
        "factorized, rank 32",
    ]
    assert rows[0][-1] == "-"
    assert rows[1][-1] == "+45.00 [-2.00, +3.00]"
    assert rows[2][1] == "35.0 M"


def test_levers_with_each_seed() -> None:
    plain, changed = reproduction.lever_rows(LEVERS)[1:]
    assert plain == ["layers 0, 3, 5", "40.0 M", "52.00 [51.00, 53.00]", "54.0, 50.0", "-"]
    assert changed == [
        "no KL", "41.0 M", "55.00 [54.00, 56.00]", "55.4, 54.6", "+3.00 [-2.00, +3.00]",
    ]  # fmt: skip


def test_trials_by_what_a_merged_layer_depends_on() -> None:
    rows = reproduction.search_rows(TRIALS)[1:]
    assert rows == [
        ["0 to 0.1", "2", "50.0", "55.0"],
        ["0.5 to 0.75", "1", "70.0", "70.0"],
        ["0.75 to 1", "1", "90.0", "90.0"],
    ]


def test_contexts(folder: Path) -> None:
    found = reproduction.read(folder)
    contexts = {name: found[name] for name in found if name.startswith("context-")}
    english, tuned = reproduction.context_rows(contexts)[1:]
    assert tuned[0].startswith("whisper-base, fine-tuned on Mboshi")
    assert english == [
        "whisper-base as it is, English", "257", "10.00 [9.00, 11.00]", "90.00 [89.00, 91.00]",
        "0.010", "0.090",
    ]  # fmt: skip


def test_other_languages() -> None:
    (row,) = reproduction.language_rows(LANGUAGES)[1:]
    assert row == ["student", "French", "85", "12", "75 %", "50 %"]


def test_what_models_kept_of_french(folder: Path) -> None:
    models = {"fine-tuned": LANGUAGES["models"]["student"]}
    files = {
        "keeping-base-french": evaluation(0.17, 0.17),
        "keeping-tuned-french": evaluation(0.9, 0.17),
        "keeping-tuned-mboshi": evaluation(0.33, 0.33),
        "keeping-base-switched": evaluation(0.8, 0.8),
        "keeping-languages": {"models": models},
    }
    both = files["keeping-base-switched"]["models"]["model"]["wer"]
    files["keeping-base-switched"]["models"]["model"]["wer"] = both | {"deletions": 3, "total": 40}
    for name, found in files.items():
        (folder / f"reproduction-{name}.json").write_text(json.dumps(found))
    found = reproduction.read(folder)
    rows = reproduction.keeping_rows(found, reproduction.KEEPING, "keeping-languages")
    base, tuned, replay, *_ = rows[1:]
    assert base == [
        "whisper-base", "-", "17.00 [16.00, 18.00]", "80.00 [79.00, 81.00]", "8", "-",
    ]  # fmt: skip
    assert tuned == [
        "fine-tuned", "33.00 [32.00, 34.00]", "90.00 [89.00, 91.00]", "-", "-", "12",
    ]  # fmt: skip
    assert replay == ["fine-tuned with replay", "-", "-", "-", "-", "-"]
    assert "fine-tuned with replay" in reproduction.reproduction_parts(folder)["keeping"]


def test_all_parts_and_pictures(folder: Path) -> None:
    parts = reproduction.reproduction_parts(folder)
    assert set(parts) == {
        "paper", "levers", "teacher-levers", "search", "context", "languages", "keeping",
        "together", "layers", "vocabulary",
    }  # fmt: skip
    assert NOT_MEASURED not in parts.values()
    assert "no KL" in parts["levers"]
    assert "all weights" in parts["teacher-levers"]
    draw_reproduction(folder)
    for name in ("curves", "ranks", "search"):
        assert imread(folder / f"reproduction_{name}.png").std() > 0.01


def test_a_run_of_an_earlier_version_resumes(tmp_path: Path) -> None:
    (tmp_path / "sheared--rank-96.json").write_text("{}")
    (tmp_path / "sheared--rank-32").mkdir()
    (tmp_path / "one-after-the-other.json").write_text("old")
    (tmp_path / "sequential.json").write_text("new")
    measure.adopt_earlier_names(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "factorized--rank-32", "factorized--rank-96.json", "one-after-the-other.json",
        "sequential.json",
    ]  # fmt: skip
    assert (tmp_path / "sequential.json").read_text() == "new"


def test_what_is_not_measured_is_said(folder: Path) -> None:
    for name in ("speed-sheared", "merged"):
        (folder / f"reproduction-{name}.json").unlink()
    for name in ("levers", "teacher-levers"):
        (folder / f"reproduction-{name}.json").unlink()
    (folder / "reproduction-variants.json").write_text(
        json.dumps({"variants": {"merged": VARIANTS["merged"]}})
    )
    parts = reproduction.reproduction_parts(folder)
    for name in ("paper", "levers", "teacher-levers", "vocabulary"):
        assert parts[name] == NOT_MEASURED
    assert parts["layers"] != NOT_MEASURED
