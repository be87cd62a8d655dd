"""The tables of the report: each function makes the rows of one table from a result.

The tables of `baldwhisper bench` are in baldwhisper_mlx/bench/report_text.py.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from baldwhisper_mlx.bench.report_text import Rows, significant
from benchmarks.peers.figures import LENGTHS
from benchmarks.speed import decode_speed
from benchmarks.speed.scaling import SAMPLE_BYTES

_PEAKS = ("peak_mlx_bytes", "peak_process_bytes")
IN_SHORT = (
    "paper, batch 10",
    "decode, batch 1",
    "clip, 10 s, first token",
    "clip, 10 s, final text",
    "cold, 10 s",
)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its heading, and `|` in cells becomes `/`."""
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def machine_line(machine: dict[str, Any]) -> str:
    """The machine in a sentence."""
    blas = f" with {machine['blas']}" if machine.get("blas") else ""
    return (
        f"{machine['chip']}, {machine['cores']} cores, {machine['memory_gb']} GiB, "
        f"{machine['os']}; MLX {machine['mlx']}{blas} on the {machine['device'].upper()}"
    )


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def peer_rows(result: dict[str, Any]) -> Rows:
    """A row for each program, the missing ones too."""
    timed = [f"{length} s" for length in LENGTHS]
    rows = [["", "RTF", *timed, "tokens/s", "WER", "peak MB", "start", "size MB", "dtype"]]
    for name, found in result["peers"].items():
        if found["status"] != "measured":
            rows.append([name, found["status"], *["-"] * (len(rows[0]) - 2)])
            continue
        by_length = found.get("seconds_by_length", {})  # older results have none
        rows.append(
            [
                name,
                f"{found['rtf']:.4f}",
                *(_seconds(by_length.get(str(length))) for length in LENGTHS),
                f"{found['tokens_per_second']:.1f}",
                "-" if found["wer"] is None else f"{100 * found['wer']:.2f} %",
                f"{found['peak_process_bytes'] / 1e6:.0f}",
                f"{found['startup_seconds']:.2f} s",
                f"{found['model_bytes'] / 1e6:.0f}",
                str(found["settings"].get("dtype", "-")),
            ]
        )
    return rows


def word_error_rows(result: dict[str, Any]) -> Rows:
    """A row a model, the best first, from a result of word_errors.py."""
    speech, baseline = result["speech"], result["baseline"]
    heads = [(f"{part['data']}: WER", f"relative WER ({baseline} / model)") for part in speech]
    rows = [["", *itertools.chain(*heads)]]
    for name in sorted(speech[0]["models"], key=lambda name: _mean_wer(result, name)):
        cells = [name]
        for part in speech:
            found = part["models"][name]
            low, high = found["wer_interval"]
            cells.append(f"{100 * found['wer']:.2f} % [{100 * low:.2f}, {100 * high:.2f}]")
            low, high = found["wer_ratio_interval"]
            ratio = f"{found['wer_ratio']:.2f} [{low:.2f}, {high:.2f}]"
            cells.append(ratio if name != baseline else "1")
        rows.append(cells)
    return rows


def _mean_wer(result: dict[str, Any], name: str) -> float:
    return sum(float(part["models"][name]["wer"]) for part in result["speech"])


def length_rows(model: dict[str, Any]) -> Rows:
    """Time and memory of a model over the length of the audio, from a result of scaling.py."""
    rows = [["audio", "time", "RTF", "MLX MB", "process MB", "MB of samples"]]
    for point in model["lengths"]:
        samples = point["audio_seconds"] * SAMPLE_BYTES
        rows.append(
            [
                f"{point['audio_seconds']:g} s",
                f"{point['seconds']:.2f} s",
                f"{point['seconds'] / point['audio_seconds']:.4f}",
                *(_megabytes(point[key]) for key in _PEAKS),
                f"{samples / 1e6:.1f}",
            ]
        )
    return rows


def batch_rows(model: dict[str, Any]) -> Rows:
    """Speed and memory of a model over the batch size, from a result of scaling.py."""
    rows = [["batch", "tokens/s", "MLX MB", "process MB"]]
    for point in model["batches"]:
        speed = f"{point['tokens'] / point['seconds']:.1f}"
        rows.append([str(point["batch"]), speed, *(_megabytes(point[key]) for key in _PEAKS)])
    return rows


def chip_row(result: dict[str, Any]) -> list[str]:
    """A row for one machine: the speeds of the student, and its speed-ups."""
    cases = {case["name"]: case for case in result["cases"]}
    machine = result["machine"]
    cells = [_short(cases.get(name)) for name in IN_SHORT]
    return [f"{machine['chip']}, {machine['device']}", machine["mlx"], *cells]


def _short(case: dict[str, Any] | None) -> str:
    if case is None:
        return "-"
    value = case["results"]["student"]["value"]["median"]
    gain = case["speed_ups"].get("compression")
    text = f"{significant(value)} {case['unit']}"
    return text if gain is None else f"{text} ({gain['median']:.2f})"


def share_rows(profile: dict[str, Any]) -> Rows:
    """Parts with their share of the whole; pieces of a part are indented below it."""
    whole = profile["whole_ms"]
    rows = [["part", "kind", "ms", "share"]]
    for part in profile["parts"]:
        name = f"- of which {part['name']}" if part["inside"] else part["name"]
        rows.append([name, part["kind"], f"{part['ms']:.3f}", f"{100 * part['ms'] / whole:.1f} %"])
    left = whole - sum(part["ms"] for part in profile["parts"] if not part["inside"])
    rows.append(["remainder", "-", f"{left:.3f}", f"{100 * left / whole:.1f} %"])
    return rows


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.0f}"


def word_errors_part(folder: Path) -> str:
    """The table of `word_errors.json`: word error rates of the bundled model and of others."""
    path = folder / "word_errors.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    sets = " and ".join(f"{part['clips']} clips of {part['data']}" for part in result["speech"])
    what = (
        f"{sets}, whose speakers are not in the training data; default options, Whisper's English "
        "normalizer; 95 % intervals in brackets, paired over the clips:"
    )
    return f"{what}\n\n{markdown(word_error_rows(result))}"


def beam_search_rows(result: dict[str, Any]) -> Rows:
    """A row for every folder of speech and model, from a result of beam_search.py."""
    heads = [
        ("greedy WER",) if size == 1 else (f"{size} beams: WER", "time") for size in result["beams"]
    ]
    rows = [["speech", "model", *itertools.chain(*heads)]]
    for part in result["speech"]:
        for name, sizes in part["models"].items():
            cells = [part["data"], name]
            for size in result["beams"]:
                found = sizes[str(size)]
                low, high = found["wer_interval"]
                cells.append(f"{100 * found['wer']:.2f} % [{100 * low:.2f}, {100 * high:.2f}]")
                if size > 1:
                    cells.append(f"{found['cpu_time_ratio']['median']:.2f}")
            rows.append(cells)
    return rows


def beam_search_part(folder: Path) -> str:
    """The table of `beam_search.json`: what beams gain and cost."""
    result = json.loads((folder / "beam_search.json").read_text(encoding="utf-8"))
    sets = " and ".join(f"{part['clips']} clips of {part['data']}" for part in result["speech"])
    what = (
        f"{sets}, {result['machine']['chip']}; default options but for the beams; 95 % intervals "
        "in brackets. Time is the processor's for a whole clip, encoding included, over that of "
        "greedy decoding (median of the clips):"
    )
    return f"{what}\n\n{markdown(beam_search_rows(result))}"


def decode_speed_part(folder: Path) -> str:
    """The section of RESULTS.md from `decode_speed.json`: decoding alone, beside other decoders."""
    result = json.loads((folder / "decode_speed.json").read_text(encoding="utf-8"))
    primitives = result["primitives_per_step"]
    return "\n\n".join(
        [
            "## Decoding beside CTranslate2 and mlx-whisper",
            f"whisper-base, {result['protocol']}, on {result['machine']}, BLAS: {result['blas']}. "
            "Tokens per second, and in brackets how many times as fast baldwhisper-mlx in float32 "
            "is in the same run:",
            decode_speed.markdown(result),
            f"A step of this model is {primitives['gpu']} primitives on a GPU, logit rules "
            "included. Made by",
            "```bash\npython -m benchmarks.speed.decode_speed --model MODEL --ct2 CT2_FOLDER "
            "--out benchmarks/results/decode_speed.json\n```",
        ]
    )
