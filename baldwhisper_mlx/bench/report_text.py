"""A result as text: the machine, the models, and a table for each comparison.

One table has the gain of compression, another the gain of the runtime. No row has both, because
their product depends on what one compares with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

Rows = list[list[str]]
"""A table; the first row is its heading."""

DETAILS = "Ceilings of the machine, memory and counts"

ON_A_GPU = "On a GPU: what is read and computed, and an estimate for an M1 at its published rates"

_COUNTED = ("tokens", "windows", "fallbacks")


def render(result: dict[str, Any]) -> str:
    """The whole report of a result, without a final newline."""
    quantized = [
        f"{name}: {facts['quantization']}"
        for name, facts in result["contenders"].items()
        if facts["quantization"]
    ]
    models = "\n".join([grid(contender_rows(result), left=3), *quantized])
    parts = [header(result), models]
    compared = result["comparisons"]
    for name, comparison in compared.items():
        parts.append(f"{comparison['title']}\n{grid(comparison_rows(result, name))}")
    if not compared:
        parts.append(grid(plain_rows(result)))
    parts.append(f"{DETAILS}\n{grid(detail_rows(result), left=2)}")
    gpu = gpu_rows(result)
    if len(gpu) > 1:
        parts.append(f"{ON_A_GPU}\n{grid(gpu, left=2)}")
    return "\n\n".join(parts)


def header(result: dict[str, Any]) -> str:
    """Machine, versions, load, ceilings and the command line."""
    machine = result["machine"]
    threads = "".join(f", {key}={value}" for key, value in machine["threads"].items())
    lines = {
        "device": f"{machine['device']}, {machine['chip']}, {machine['cores']} cores, "
        f"{machine['memory_gb']} GiB{threads}",
        "system": f"{machine['os']}, Python {machine['python']}, MLX {machine['mlx']}"
        + (f" with {machine['blas']}" if machine["blas"] else ""),
        "load": f"{_numbers(machine['load_before'])} before, "
        f"{_numbers(machine['load_after'])} after (1, 5, 15 minutes)",
    }
    for name, rates in result["ceilings"].items():
        lines[f"ceilings, {name}"] = (
            f"{rates['bytes_per_second'] / 1e9:.1f} GB/s read, "
            f"{rates['flops_per_second'] / 1e9:.0f} GFLOP/s in the encoder's products"
        )
    lines["command"] = result["command"]
    width = max(map(len, lines))
    return "\n".join(f"{label:<{width}}  {text}" for label, text in lines.items())


def contender_rows(result: dict[str, Any]) -> Rows:
    """The models: size, dtype, primitives of a step."""
    rows = [
        ["", "model", "runtime", "parameters", "on disk", "stored", "in memory", "primitives/step",
         "loading", "MB after it"]
    ]  # fmt: skip
    for name, facts in result["contenders"].items():
        count = facts.get("primitives")
        parameters = facts.get("parameters")
        stored = "quantized" if facts["quantization"] else facts["stored_dtype"] or "-"
        rows.append(
            [
                name,
                facts["model"],
                facts["runtime"],
                f"{parameters / 1e6:.1f} M" if parameters else "-",
                f"{facts['disk_bytes'] / 1e6:.1f} MB",
                stored,
                facts["memory_dtype"],
                f"{count['fused']} ({count['graph']} on this device)" if count else "-",
                f"{facts['load_seconds']:.2f} s" if "load_seconds" in facts else "-",
                _megabytes(facts.get("load_peak_process_bytes")),
            ]
        )
    return rows


def comparison_rows(result: dict[str, Any], name: str) -> Rows:
    """Medians and quartiles of two contenders, and the speed-up round by round."""
    fast, slow = result["comparisons"][name]["fast"], result["comparisons"][name]["slow"]
    rows = [["", fast, slow, "speed-up"]]
    for case in result["cases"]:
        values = [value_text(case, contender) for contender in (fast, slow)]
        rows.append([case["name"], *values, f"{spread(case['speed_ups'][name], 2)} x"])
    return rows


def plain_rows(result: dict[str, Any]) -> Rows:
    """The same without a comparison."""
    names = list(result["contenders"])
    rows = [["", *names]]
    rows += [
        [case["name"], *(value_text(case, name) for name in names)] for case in result["cases"]
    ]
    return rows


def detail_rows(result: dict[str, Any]) -> Rows:
    """Ceilings, how much of them is reached, memory, and counts of transcriptions."""
    rows = [["", "", "ceiling", "of ceiling", "MLX MB", "process MB", *_COUNTED]]
    for case in result["cases"]:
        for name, measured in case["results"].items():
            ceiling = measured["ceiling"]
            fraction = measured["fraction"]
            rows.append(
                [
                    case["name"],
                    name,
                    "-" if ceiling is None else f"{ceiling:.3g} {case['unit']}",
                    "-" if fraction is None else f"{100 * fraction:.0f} %",
                    _megabytes(measured["peak_mlx_bytes"]),
                    _megabytes(measured["peak_process_bytes"]),
                    *("-" if measured[key] is None else str(measured[key]) for key in _COUNTED),
                ]
            )
    return rows


def gpu_rows(result: dict[str, Any]) -> Rows:
    """What a decode step and an encoding cost on a GPU, by count."""
    rows = [["", "", "primitives", "waits", "MB read", "GFLOP", "M1, ms"]]
    for name, facts in result["contenders"].items():
        for kind, costs in (facts.get("gpu") or {}).items():
            for row in costs:
                rows.append(
                    [
                        name,
                        f"{kind}, {row['label']}",
                        str(row.get("primitives", "-")),
                        f"{row['syncs']:g}" if "syncs" in row else "-",
                        f"{row['bytes'] / 1e6:.1f}",
                        f"{row['flops'] / 1e9:.1f}" if row["flops"] else "-",
                        f"{1e3 * row['m1_seconds']:.2f}",
                    ]
                )
    return rows


def value_text(case: dict[str, Any], contender: str) -> str:
    """The result of a contender in a case; for audio also the real-time factor."""
    value = case["results"][contender]["value"]
    text = f"{spread(value)} {case['unit']}"
    # the first token does not depend on how much audio follows
    if case["unit"] == "s" and not case["label"].endswith("first token"):
        text += f", RTF {value['median'] / case['amount']:.3f}"
    return text


def spread(summary: dict[str, float], digits: int | None = None) -> str:
    """Median and quartiles, such as `45.3 [44.1, 46.0]`.

    Args:
        summary: from `quartiles`.
        digits: after the point; by default three significant ones.
    """

    def number(value: float) -> str:
        return significant(value) if digits is None else f"{value:.{digits}f}"

    return f"{number(summary['median'])} [{number(summary['q1'])}, {number(summary['q3'])}]"


def significant(value: float) -> str:
    """A number with three significant digits and no exponent.

    Example:
        >>> significant(0.04567), significant(123.4), significant(12345.6)
        ('0.0457', '123', '12346')
    """
    if value == 0:
        return "0"
    text = f"{value:.3g}"
    return f"{value:.0f}" if "e" in text and abs(value) >= 1 else text


def grid(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns wide enough for their contents; the first `left` of them flush left."""
    sides = ["left" if i < left else "right" for i in range(len(rows[0]))]
    text: str = tabulate(rows, tablefmt="plain", colalign=sides, disable_numparse=True)
    return text


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)


def _megabytes(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e6:.0f}"
