"""The default of `export` and the claims of docs/short-context.md follow from the figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from baldwhisper_convert.cli.main import export
from baldwhisper_mlx.model.calibration import STRIDE, TAIL
from benchmarks.report.short_context import FILE, n_clips
from benchmarks.result_files import RESULTS

RUNS: list[dict[str, Any]] = json.loads((RESULTS / FILE).read_text(encoding="utf-8"))["runs"]
CHOSEN = f"stride {STRIDE}, tail {TAIL}"
MORE_ERRORS = 0.002
"""By how much the word error rate may be above that of the full context."""


def test_export_stores_constants_because_they_cost_nothing() -> None:
    """At most 0.2 points of word errors over 300 clips, and no more text where nobody speaks."""
    run = max(RUNS, key=n_clips)
    assert n_clips(run) >= 300
    settings = run["settings"]
    assert settings["fallback"]
    assert settings["timestamps"]
    assert settings["noise"] is None
    assert (settings["calibration"], settings["recordings"]) == ("sample.wav", [1])
    variants = run["models"]["whisper-base"]
    full, padded = variants["full"], variants[CHOSEN]
    is_safe = (
        padded["difference"] <= MORE_ERRORS
        and padded["sounds"]["with_text"] <= full["sounds"]["with_text"]
    )
    (option,) = (one for one in export.params if one.name == "padding")
    assert option.default is is_safe


def test_the_chosen_stride_and_tail_are_no_worse() -> None:
    """Of strides 1 to 16 and tails 25 to 400, on the same clips, by at most one word."""
    by_setting = {
        (tuple(run["settings"]["strides"]), tuple(run["settings"]["tails"])): run for run in RUNS
    }
    for strides, tails in (((1, 2, 4, 8, 16), (TAIL,)), ((STRIDE,), (25, 100, 400))):
        variants = by_setting[strides, tails]["models"]["whisper-base"]
        assert len(variants) == 1 + len(strides) * len(tails)
        errors = {
            name: sum(found[kind] for kind in ("insertions", "deletions", "substitutions"))
            for name, found in variants.items()
        }
        assert errors[CHOSEN] <= min(errors.values()) + 1


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["command"])
def test_no_path_of_the_machine(run: dict[str, Any]) -> None:
    words = run["command"].replace("=", " ").split()
    assert not [word for word in words if Path(word).is_absolute()]
