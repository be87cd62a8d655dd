"""Makes RESULTS.md, the plots, and the tables of README.md and docs/ from the result files.

    python -m benchmarks.report

Result files are benchmarks/results/KIND-CHIP.json, of all machines that have been measured; a page
says which measurements are missing. tests/benchmarks/test_report.py fails if the pages are not
those that this program writes.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click

from baldwhisper_mlx.bench import report_text
from baldwhisper_mlx.files import write_atomically
from benchmarks.options import Benchmark
from benchmarks.report.compression import compression_parts
from benchmarks.report.live import live_part
from benchmarks.report.overview_plot import (
    PICTURE,
    overview_part,
    peers_to_show,
    points,
    save_overview,
)
from benchmarks.report.reproduction import reproduction_parts
from benchmarks.report.server import server_part
from benchmarks.report.short_context import short_context_part
from benchmarks.report.tables import (
    IN_SHORT,
    batch_rows,
    beam_search_part,
    chip_row,
    decode_speed_part,
    length_rows,
    machine_line,
    markdown,
    peer_rows,
    share_rows,
    word_errors_part,
)
from benchmarks.result_files import read_result
from benchmarks.speed import scaling

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS, PAGE = Path("benchmarks/results"), Path("benchmarks/RESULTS.md")
README, GUIDE, PROFILE = Path("README.md"), Path("docs/benchmarks.md"), Path("docs/profile.md")
COMPRESSION, REPRODUCTION = Path("docs/compression.md"), Path("docs/reproduction.md")
SHORT_CONTEXT, LIVE = Path("docs/short-context.md"), Path("docs/live.md")
SERVER = Path("docs/server.md")
CARD = Path("baldwhisper_mlx/assets/tiny-en/README.md")

KINDS = {
    "bench": "bench",
    "paper-form": "bench",
    "peers": "peers",
    "scaling": "scaling",
    "profile": "profile",
}
"""Start of a result file's name to its definition in result.schema.json."""

NOTHING = "Nothing has been measured yet; [docs/benchmarks.md]({guide}) says how."
TITLES = {
    "bench": "Speed",
    "paper-form": "Speed of the paper's form",
    "peers": "Other programs",
    "scaling": "Long recordings and large batches",
    "profile": "Where the time goes",
}

Results = dict[str, dict[str, dict[str, Any]]]
"""Machine (the chip in its file names) to kind to result."""


def read_results(folder: Path) -> Results:
    """All result files of a folder, checked.

    Raises:
        ValueError: a file is not a result of its kind; the message names it.
    """
    found: Results = {}
    for kind, schema in KINDS.items():
        for path in sorted(folder.glob(f"{kind}-*.json")):
            result = read_result(path, schema)
            found.setdefault(path.stem.removeprefix(f"{kind}-"), {})[kind] = result
    return dict(sorted(found.items()))


def results_page(results: Results) -> str:
    """The whole of RESULTS.md."""
    guide = os.path.relpath(GUIDE, PAGE.parent)
    parts = [
        "# Results",
        "Written by `python -m benchmarks.report` from the files in `results/`; do not edit.",
    ]
    if not results:
        parts.append(NOTHING.format(guide=guide))
    for chip, kinds in results.items():
        first = next(iter(kinds.values()))
        parts += [f"## {first['machine']['chip']}", machine_line(first["machine"])]
        for kind, result in kinds.items():
            parts.append(f"### {TITLES[kind]}")
            parts += SECTIONS[kind](result)
            picture = plot_path(kind, chip)
            parts.append(f"![{TITLES[kind]}]({os.path.relpath(picture, PAGE.parent)})")
        missing = [TITLES[kind] for kind in KINDS if kind not in kinds]
        if missing:
            parts.append(f"Not measured on this machine: {', '.join(missing).lower()}.")
    return "\n\n".join(parts) + "\n"


def plot_path(kind: str, chip: str) -> Path:
    """Where a plot is, from the root of the repository."""
    return RESULTS / "plots" / f"{kind}-{chip}.png"


def bench_section(result: dict[str, Any]) -> list[str]:
    """Tables of `baldwhisper bench`: models, comparisons, ceilings."""
    parts = [
        f"```\n{report_text.header(result)}\n```",
        markdown(report_text.contender_rows(result)),
    ]
    for name, comparison in result["comparisons"].items():
        parts.append(f"{comparison['title']}; medians [quartiles]:")
        parts.append(markdown(report_text.comparison_rows(result, name)))
    if not result["comparisons"]:
        parts.append(markdown(report_text.plain_rows(result)))
    parts += [f"{report_text.DETAILS}:", markdown(report_text.detail_rows(result))]
    return parts


def paper_form_section(result: dict[str, Any]) -> list[str]:
    """The same of a student of the paper's form, whose weights are random."""
    what = (
        "A student with three decoder layers and rank 96, as in the paper, and random weights "
        "(`python -m benchmarks.speed.paper_form`): the time of forced tokens does not depend on "
        "the weights."
    )
    return [what, *bench_section(result)]


def peers_section(result: dict[str, Any]) -> list[str]:
    """The programs, their settings, and why some are missing."""
    notes = []
    for name, found in result["peers"].items():
        if found["status"] == "measured":
            how = ", ".join(f"{key} {value}" for key, value in found["settings"].items())
            notes.append(f"- {name}: {found['version']}; {how}")
        else:
            notes.append(f"- {name}: {found['status']} ({found['reason']})")
    what = (
        f"{result['clips']} clips of {result['data']}, {result['audio_seconds']:.0f} s, greedy, "
        f"weights of {result['checkpoint']} except for our other models."
    )
    return [what, markdown(peer_rows(result)), "\n".join(notes)]


def scaling_section(result: dict[str, Any]) -> list[str]:
    """Time and memory over the length of the audio, and over the batch."""
    parts = []
    for name, found in result["models"].items():
        power = scaling.exponent(found["lengths"])
        text = "" if power is None else f": time grows with the length to the power {power:.3f}"
        parts += [f"{name}, repeated speech{text}", markdown(length_rows(found))]
        parts += [f"{name}, {result['tokens']} forced tokens a clip", markdown(batch_rows(found))]
    return parts


def profile_section(result: dict[str, Any]) -> list[str]:
    """Whole times; the parts are on the page of the profile."""
    rows = [["", "encoding 30 s", "one step", "batch"]]
    for name, found in result["models"].items():
        whole = [f"{found[what]['whole_ms']:.2f} ms" for what in ("encoder", "step")]
        rows.append([name, *whole, str(found["batch"])])
    page = os.path.relpath(PROFILE, PAGE.parent)
    return [markdown(rows), f"The parts are in [{PROFILE}]({page})."]


SECTIONS = {
    "bench": bench_section,
    "paper-form": paper_form_section,
    "peers": peers_section,
    "scaling": scaling_section,
    "profile": profile_section,
}


def chips_part(results: Results) -> str:
    """The table of docs/benchmarks.md: a row for each machine, and an empty one for a Mac."""
    rows = [["machine", "MLX", *(f"{name}: student (speed-up)" for name in IN_SHORT)]]
    rows += [chip_row(kinds["bench"]) for kinds in results.values() if "bench" in kinds]
    if not any(chip.startswith("apple") for chip, kinds in results.items() if "bench" in kinds):
        rows.append(["Apple M1, gpu", *["not measured"] * (len(IN_SHORT) + 1)])
    return markdown(rows)


def profile_part(results: Results) -> str:
    """The tables of docs/profile.md: shares of parts, and counts of primitives."""
    parts = []
    for kinds in results.values():
        if "profile" not in kinds:
            continue
        result = kinds["profile"]
        for name, found in result["models"].items():
            head = f"{result['machine']['chip']} ({result['machine']['device']}), {name}"
            parts.append(f"## {head}, {found['dtype']}")
            for what, title in (("encoder", "Encoding 30 s"), ("step", "One decode step")):
                one = found[what]
                where = f", batch {found['batch']}, {found['position']} tokens in the cache"
                title += where if what == "step" else ""
                parts.append(f"{title}: {one['whole_ms']:.2f} ms")
                parts.append(markdown(share_rows(one)))
                counted = [f"{count} {kind}" for kind, count in one["primitives"].items()]
                total = sum(one["primitives"].values())
                parts.append(f"{total} primitives on this device: {', '.join(counted)}.")
    return "\n\n".join(parts) or NOTHING.format(guide=GUIDE.name)


def fill(page: str, name: str, content: str) -> str:
    """A page with new content between its markers `<!-- report: NAME -->` and `<!-- end -->`.

    Raises:
        ValueError: the markers are not there exactly once.
    """
    pattern = rf"(<!-- report: {name} -->\n).*?(<!-- end -->)"
    filled, times = re.subn(pattern, lambda m: f"{m[1]}{content}\n{m[2]}", page, flags=re.DOTALL)
    if times != 1:
        raise ValueError(f"the markers of {name!r} are in the page {times} times, and not once")
    return filled


def documents(root: Path, results: Results) -> dict[Path, str]:
    """Every page with figures, up to date, by its path from `root`."""
    errors = word_errors_part(root / RESULTS)
    parts = [
        (README, "overview", overview_part(peers_to_show(results))),
        (README, "accuracy", errors),
        (CARD, "accuracy", errors),
        (GUIDE, "benchmarks", chips_part(results)),
        (GUIDE, "beam search", beam_search_part(root / RESULTS)),
        (PROFILE, "profile", profile_part(results)),
        (SHORT_CONTEXT, "short context", short_context_part(root / RESULTS)),
        (LIVE, "live", live_part(root / RESULTS)),
        (SERVER, "server", server_part(root / RESULTS)),
        *((COMPRESSION, name, part) for name, part in compression_parts(root / RESULTS).items()),
        *((REPRODUCTION, name, part) for name, part in reproduction_parts(root / RESULTS).items()),
    ]
    pages: dict[Path, str] = {}
    for path, name, content in parts:
        before = pages.get(path) or (root / path).read_text(encoding="utf-8")
        pages[path] = fill(before, name, content)
    page = f"{results_page(results)}\n{decode_speed_part(root / RESULTS)}\n"
    return pages | {PAGE: page}


@click.command(cls=Benchmark)
def main() -> None:
    """Write all pages and plots from the files in benchmarks/results."""
    from baldwhisper_mlx.bench.plot import save
    from benchmarks.report.plots import draw
    from benchmarks.reproduction.plots import draw_reproduction

    results = read_results(ROOT / RESULTS)
    for path, text in documents(ROOT, results).items():
        write_atomically(ROOT / path, text)
    for chip, kinds in results.items():
        for kind in kinds:
            path = ROOT / plot_path(kind, chip)
            path.parent.mkdir(parents=True, exist_ok=True)
            save(draw(kind, kinds), path)
    if (shown := peers_to_show(results)) is not None:
        save_overview(points(shown), ROOT / PICTURE)
    draw_reproduction(ROOT / RESULTS)


if __name__ == "__main__":
    main()
