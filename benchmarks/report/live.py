"""The table of docs/live.md, from the result files of live transcription."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from baldwhisper_mlx.bench.report_text import Rows
from benchmarks.report.tables import machine_line, markdown

FILE, MEMORY = "live.json", "soak_live.json"
HEAD = [
    "model, policy", "WER, %", "delay, s: mean (95 %)", "with computation", "computing",
    "revised words",
]  # fmt: skip


def live_rows(result: dict[str, Any]) -> Rows:
    """A row for each model at once and without pauses, and for each policy."""
    rows: Rows = [HEAD]
    for name, found in result["models"].items():
        for way, key in (("at once", "offline_wer"), ("at once, `--vad`", "offline_vad_wer")):
            rows.append([f"{name}, {way}", _percent(found[key]), "-", "-", "-", "-"])
        for policy, row in found["policies"].items():
            times = [
                f"{row[f'{kind}_mean']:.2f} ({row[f'{kind}_p95']:.2f})"
                for kind in ("unaware", "aware")
            ]
            shares = [f"{100 * row[key]:.{digits}f} %" for key, digits in SHARES]
            rows.append([f"{name}, {policy}", _percent(row["wer"]), *times, *shares])
    return rows


SHARES = (("computation", 0), ("revised", 1))


def live_part(folder: Path) -> str:
    """The tables of `live.json` and the memory of `soak_live.json`."""
    result = json.loads((folder / FILE).read_text(encoding="utf-8"))
    soak = json.loads((folder / MEMORY).read_text(encoding="utf-8"))
    lengths = " and ".join(
        f"{found['audio_seconds'] / 60:.0f} minutes ({name}, "
        f"{next(iter(found['policies'].values()))['words']} matched words)"
        for name, found in result["models"].items()
    )
    machine = machine_line(next(iter(result["models"].values()))["machine"])
    memory = [row["bytes"] / 1e6 for row in soak["memory"]]
    return "\n\n".join(
        [
            f"{result['data']}, joined to recordings of {lengths}. {machine}.",
            markdown(live_rows(result)),
            f"Memory of the process over {soak['seconds'] / 60:.0f} minutes of live audio: "
            f"{min(memory):.0f} to {max(memory):.0f} MB, and {100 * soak['drift']:+.1f} % from the "
            "fifth minute to the last.",
        ]
    )


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"
