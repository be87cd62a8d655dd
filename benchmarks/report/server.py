"""The table of docs/server.md, from the result file of the server's throughput."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from baldwhisper_mlx.bench.report_text import Rows
from benchmarks.report.tables import machine_line, markdown

FILE = "server.json"
HEAD = [
    "model, clients", "requests/s", "against one in a row", "latency, s: median (95 %)",
    "processor, s a request", "windows a batch",
]  # fmt: skip


def server_rows(result: dict[str, Any]) -> Rows:
    """A row for each model and number of clients."""
    rows: Rows = [HEAD]
    for name, found in result["models"].items():
        for clients, row in found["clients"].items():
            rows.append([
                f"{name}, {clients}",
                f"{row['requests_per_second']['median']:.2f}",
                f"{row['gain']['median']:.2f}",
                f"{row['latency_median']:.2f} ({row['latency_p95']:.2f})",
                f"{row['processor_seconds']['median']:.2f}",
                f"{row['windows_per_batch']:.2f}",
            ])  # fmt: skip
    return rows


def server_part(folder: Path) -> str:
    """The table of `server.json`, and what it was measured on."""
    result = json.loads((folder / FILE).read_text(encoding="utf-8"))
    peaks = ", ".join(
        f"{found['peak_process_bytes'] / 1e6:.0f} MB ({name})"
        for name, found in result["models"].items()
    )
    return "\n\n".join([
        f"{result['clips']} clips of {result['data']}, {result['audio_seconds']:.0f} s in all, "
        f"medians of {result['rounds']} rounds; every text is that of `transcribe`. Peak memory of "
        f"the process: {peaks}. {machine_line(result['machine'])}.",
        markdown(server_rows(result)),
    ])  # fmt: skip
