"""The tables of docs/compression.md: cost and gain of every choice of the compressor.

From compression_start.json, ablation.json, encoder_depth.json and quantization-MODEL.json in
benchmarks/results; a part whose file is missing says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from baldwhisper_mlx.bench.report_text import Rows
from benchmarks.report.tables import markdown

NOT_MEASURED = "Not measured yet."
CLOSEST = 4
"""Choices of layers that are shown of each number of them, the closest to the teacher first."""


def with_interval(rate: float, interval: Sequence[float], sign: str = "") -> str:
    """A rate and its interval in per cent."""
    low, high = interval
    return f"{100 * rate:{sign}.2f} [{100 * low:{sign}.2f}, {100 * high:{sign}.2f}]"


def embedding_rows(rows: Sequence[dict[str, Any]]) -> Rows:
    """A row for each form of the factorized embedding."""
    ends = ("output", "input", "both")
    titles = [f"{end}: KL, top-1" for end in ends]
    table = [["start", "rank", "dense rows", "parameters", "energy kept", *titles]]
    for row in rows:
        name = {"svd": "plain SVD", "joint": "joint"}[row["init"]]
        if row["init"] == "svd" and row["mean"]:
            name += ", separate mean"
        if row["init"] == "joint" and row["projections"] == "shared":
            name += ", one projection"
        if row["focus"]:
            name += f", focus {row['focus']:g}"
        table.append(
            [
                name,
                str(row["rank"]),
                f"{row['dense_rows']:,}",
                f"{row['parameters'] / 1e6:.1f} M",
                f"{100 * row['energy']:.1f} %",
                *(f"{row[f'kl_{end}']:.2f}, {row[f'top1_{end}']:.2f}" for end in ends),
            ]
        )
    return table


def layer_rows(rows: Sequence[dict[str, Any]]) -> Rows:
    """The closest choices of each number of layers, and all merged pairs."""
    table = [["decoder layers", "number", "KL", "top-1"]]
    merged = [row for row in rows if row["plan"].startswith("merge")]
    kept = [row for row in rows if row not in merged]
    shown = []
    for count in sorted({len(row["weights"]) for row in kept}, reverse=True):
        shown += [row for row in kept if len(row["weights"]) == count][:CLOSEST]
    for row in shown + merged:
        name = row["plan"]
        if row in merged:
            name += f", alpha {merged_alpha(row['weights']):g}"
        table.append([name, str(len(row["weights"])), f"{row['kl']:.3f}", f"{row['top1']:.3f}"])
    return table


def merged_alpha(weights: Sequence[Sequence[float]]) -> float:
    """Weight of the lower layer of a merged pair, for an upper one of 1 (beta)."""
    lower, upper = next([w for w in row if w] for row in weights)
    return round(lower / upper, 6)


def ablation_rows(result: dict[str, Any]) -> Rows:
    """A row for each variant; differences are from the plain one, on the same windows."""
    table = [["", "parameters", "steps", "KL before, after", "top-1", "WER, %", "difference"]]
    plain = result["variants"][result["plain"]]["wer"]
    for name, row in result["variants"].items():
        change = with_interval(row["wer"] - plain, row["difference_interval"], "+")
        table.append(
            [
                name,
                f"{row['parameters'] / 1e6:.1f} M",
                str(row["steps"]),
                f"{row['kl_before']:.2f}, {row['kl']:.3f}",
                f"{row['top1']:.3f}",
                with_interval(row["wer"], row["wer_interval"]),
                "-" if name == result["plain"] else change,
            ]
        )
    return table


def encoder_rows(result: dict[str, Any]) -> Rows:
    """A row for each lighter encoder, its stages in their order."""
    stages = {"start": "as chosen", "fitted": "least squares", "states": "states taught",
              "decoder": "and KL"}  # fmt: skip
    data = encoder_data(result)
    titles = [f"{title}: error, KL" for title in stages.values()]
    table = [["encoder", "M", *titles, "CPU min.", "10 s, 30 s", *(f"WER, {d}" for d in data)]]
    for name, row in result["variants"].items():
        figures = [row.get(stage) for stage in stages]
        seconds = row.get("fit_seconds", 0.0)
        seconds += sum(row.get(stage, {}).get("cpu_seconds", 0.0) for stage in stages)
        times, wer = row.get("encode_cpu_seconds"), row.get("wer", {})
        groups = "" if row["layers"] == 6 else f": {groups_text(row['groups'])}"
        table.append(
            [
                f"{name}{groups}",
                f"{row['parameters'] / 1e6:.1f}",
                *(f"{f['error']:.3f}, {f['kl']:.2f}" if f else "-" for f in figures),
                f"{seconds / 60:.1f}" if seconds else "-",
                ", ".join(f"{times[length]:.2f}" for length in ("10", "30")) if times else "-",
                *(
                    with_interval(wer[d]["wer"], wer[d]["wer_interval"]) if wer else "-"
                    for d in data
                ),
            ]
        )
    return table


def encoder_data(result: dict[str, Any]) -> dict[str, int]:
    """Name and number of clips of the speech that words were measured on."""
    measured = (row["wer"] for row in result["variants"].values() if "wer" in row)
    return {name: found["clips"] for name, found in next(measured, {}).items()}


def groups_text(groups: Sequence[Sequence[int]]) -> str:
    """Groups of teacher layers, such as `0 1 2+3`."""
    return " ".join("+".join(map(str, group)) for group in groups)


def quantization_rows(result: dict[str, Any]) -> Rows:
    """A row for each quantization, the largest model first."""
    table = [["weights", "MB", "KL, nats per token", "same top-1 token", "WER, %"]]
    for row in sorted(result["variants"], key=lambda row: -row["megabytes"]):
        wer = row["wer"]
        table.append(
            [
                row["variant"],
                f"{row['megabytes']:.1f}",
                f"{row['kl']:.5f}",
                f"{100 * row['top1']:.2f} %",
                "-" if wer is None else with_interval(wer, row["wer_interval"]),
            ]
        )
    return table


def start_part(found: dict[str, Any] | None, kind: str, rows: Callable[[Any], Rows]) -> str:
    """A table of compression_start.json."""
    if found is None:
        return NOT_MEASURED
    positions = found["embedding"][0]["held_out_positions"]
    return f"{found['windows']} windows, {positions:,} tokens:\n\n{markdown(rows(found[kind]))}"


def ablation_part(found: dict[str, Any] | None) -> str:
    """The table of ablation.json."""
    if found is None:
        return NOT_MEASURED
    what = f"{found['windows']} windows; differences are from `{found['plain']}`, paired:"
    return f"{what}\n\n{markdown(ablation_rows(found))}"


def encoder_part(found: dict[str, Any] | None) -> str:
    """The table of encoder_depth.json."""
    if found is None:
        return NOT_MEASURED
    steps, through = found["steps"]
    clips = [f"{count} clips of {name}" for name, count in encoder_data(found).items()]
    words = " and ".join(clips) or "No word errors yet"
    what = (
        f"{words}; {steps} steps on the states and {through} through the decoder, of "
        f"{found['batch_size']} windows each; times in CPU seconds on {found['chip']}:"
    )
    return f"{what}\n\n{markdown(encoder_rows(found))}"


def quantization_part(folder: Path) -> str:
    """The tables of all quantized models."""
    parts = []
    for path in sorted(folder.glob("quantization-*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        name = path.stem.removeprefix("quantization-")
        parts.append(f"{name}, {found['clips']} clips of {found['data']}:")
        parts.append(markdown(quantization_rows(found)))
    return "\n\n".join(parts) or NOT_MEASURED


def compression_parts(folder: Path) -> dict[str, str]:
    """The parts of docs/compression.md by the names of their markers.

    Args:
        folder: of the result files.
    """
    start = _read(folder / "compression_start.json")
    return {
        "embedding": start_part(start, "embedding", embedding_rows),
        "layers": start_part(start, "layers", layer_rows),
        "ablation": ablation_part(_read(folder / "ablation.json")),
        "encoder layers": encoder_part(_read(folder / "encoder_depth.json")),
        "quantization": quantization_part(folder),
    }


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
