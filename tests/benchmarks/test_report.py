"""The pages with figures are those that the result files make, and say what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image

from baldwhisper_mlx.bench import plot
from benchmarks.report import build, overview_plot, plots, tables
from benchmarks.speed import scaling
from tests.support import tiny_results

ROOT = Path(__file__).resolve().parent.parent.parent


def write(folder: Path, results: dict[str, Any], chip: str = "tiny-cpu") -> Path:
    folder.mkdir(exist_ok=True)
    for kind, result in results.items():
        (folder / f"{kind}-{chip}.json").write_text(json.dumps(result))
    return folder


@pytest.fixture
def results(tmp_path: Path) -> build.Results:
    return build.read_results(write(tmp_path / "results", tiny_results.all_results()))


def test_pages_are_current() -> None:
    results = build.read_results(ROOT / build.RESULTS)
    for path, text in build.documents(ROOT, results).items():
        assert (ROOT / path).read_text(encoding="utf-8") == text, "run python -m benchmarks.report"


def test_plots_are_there_for_every_result_and_no_other() -> None:
    results = build.read_results(ROOT / build.RESULTS)
    expected = {
        ROOT / build.plot_path(kind, chip) for chip, kinds in results.items() for kind in kinds
    }
    assert set((ROOT / build.RESULTS / "plots").glob("*")) == expected


def test_a_page_of_all_results(results: build.Results) -> None:
    page = build.results_page(results)
    for part in (
        "## Tiny CPU",
        "What compression gains",
        "| paper, batch 10 | 100 [95.5, 106] tokens/s | 50 [",
        "| baldwhisper-mlx, student | 0.1000 | 0.30 s | 1.00 s | 3.00 s | 30.0 | 6.00 % | 400 "
        "| 1.50 s | 150 | float32 |",
        "| whisper.cpp | missing |",
        "- transformers: failed (no | memory)",
        "grows with the length to the power 1.000",
        "| 600 s | 60.00 s | 0.1000 | 300 | 500 | 38.4 |",
        "(results/plots/scaling-tiny-cpu.png)",
        "(../docs/profile.md)",
    ):
        assert part in page
    assert "Not measured on this machine" not in page
    del results["tiny-cpu"]["peers"]
    assert "Not measured on this machine: other programs." in build.results_page(results)


def test_student_and_peer_are_never_in_one_table(results: build.Results) -> None:
    for block in build.results_page(results).split("\n\n"):
        head = block.splitlines()[0]
        if "speed-up" in head:
            assert ("student" in head) != ("mlx-whisper" in head)


def test_the_plot_of_the_readme(results: build.Results, tmp_path: Path) -> None:
    shown = overview_plot.peers_to_show(results)
    found = overview_plot.points(results["tiny-cpu"]["peers"])
    assert [point.seconds for point in found] == sorted(point.seconds for point in found)
    student = next(point for point in found if point.name == "baldwhisper-mlx, student")
    assert str(student) == "1.00 s, 6.0 %, 150 MB"
    assert f"student: {student}" in overview_plot.overview_part(shown)
    overview_plot.save_overview(found, tmp_path / "overview.png")
    with Image.open(tmp_path / "overview.png") as picture:
        assert picture.info["Description"] == overview_plot.description(found)
    assert list(tmp_path.glob("*.png")) == [tmp_path / "overview.png"]
    axes, key = overview_plot.draw_overview(found).axes
    assert len(axes.collections) == len(found)
    assert {text.get_text() for text in key.texts} > {"1.00", "6.0", "150"}


def test_an_apple_machine_is_shown_first(results: build.Results) -> None:
    assert overview_plot.machine_to_show(results) == "tiny-cpu"
    results["apple-m2"] = {"bench": {}}
    assert overview_plot.machine_to_show(results) == "tiny-cpu"
    results["apple-m1"] = results["tiny-cpu"]
    assert overview_plot.machine_to_show(results) == "apple-m1"
    assert overview_plot.machine_to_show({}) is None


def test_programs_measured_before_their_lengths_were() -> None:
    found = tiny_results.peers_result()
    del found["peers"]["openai-whisper"]["seconds_by_length"]
    rows = {row[0]: row for row in tables.peer_rows(found)}
    assert rows["openai-whisper"][1:5] == ["0.4000", "-", "-", "-"]
    assert {len(row) for row in rows.values()} == {11}


def test_word_errors_best_first(tmp_path: Path) -> None:
    def row(wer: float) -> dict[str, Any]:
        ratio = 0.04 / wer
        return {
            "wer": wer,
            "wer_interval": [wer - 0.01, wer + 0.01],
            "wer_ratio": ratio,
            "wer_ratio_interval": [ratio - 0.1, ratio + 0.1],
        }

    def part(name: str, clips: int, student: float) -> dict[str, Any]:
        models = {"student": row(student), "teacher": row(0.04)}
        return {"data": name, "clips": clips, "models": models}

    speech = [part("speech/dev", 3, 0.05), part("accents/dev", 7, 0.08)]
    found = {"baseline": "teacher", "speech": speech}
    (tmp_path / "word_errors.json").write_text(json.dumps(found))
    lines = tables.word_errors_part(tmp_path).splitlines()
    assert "3 clips of speech/dev and 7 clips of accents/dev" in lines[0]
    assert lines[-2] == "| teacher | 4.00 % [3.00, 5.00] | 1 | 4.00 % [3.00, 5.00] | 1 |"
    assert lines[-1] == (
        "| student | 5.00 % [4.00, 6.00] | 0.80 [0.70, 0.90] "
        "| 8.00 % [7.00, 9.00] | 0.50 [0.40, 0.60] |"
    )


def test_beams_beside_greedy_decoding(tmp_path: Path) -> None:
    def row(wer: float, time: float) -> dict[str, Any]:
        return {
            "wer": wer,
            "wer_interval": [wer - 0.01, wer + 0.01],
            "cpu_time_ratio": {"median": time},
        }

    models = {"base": {"1": row(0.05, 1.0), "5": row(0.04, 1.5)}}
    part = {"data": "speech/dev", "clips": 3, "models": models}
    found = {"machine": {"chip": "Chip"}, "beams": [1, 5], "speech": [part]}
    (tmp_path / "beam_search.json").write_text(json.dumps(found))
    lines = tables.beam_search_part(tmp_path).splitlines()
    assert "3 clips of speech/dev, Chip" in lines[0]
    assert lines[-3] == "| speech | model | greedy WER | 5 beams: WER | time |"
    assert lines[-1] == ("| speech/dev | base | 5.00 % [4.00, 6.00] | 4.00 % [3.00, 5.00] | 1.50 |")


def test_no_figure_without_a_measurement() -> None:
    assert "Nothing has been measured yet" in build.results_page({})
    assert "not been measured yet" in overview_plot.overview_part(None)
    assert "Nothing has been measured yet" in build.profile_part({})
    rows = build.chips_part({}).splitlines()
    assert rows[-1].startswith("| Apple M1, gpu | not measured |")


def test_a_mac_replaces_the_empty_row(tmp_path: Path) -> None:
    folder = write(tmp_path / "r", tiny_results.all_results())
    assert "| Apple M1, gpu | not measured |" in build.chips_part(build.read_results(folder))
    write(folder, {"bench": tiny_results.bench("Apple M2")}, "apple-m2")
    part = build.chips_part(build.read_results(folder))
    assert "not measured" not in part
    assert "| Apple M2, gpu | 0.32.4 | 100 tokens/s (2.00) | 100 tokens/s (2.00) | 1 s (2" in part


def test_shares_add_up_to_the_whole() -> None:
    profile = tiny_results.profile_result()["models"]["student"]["step"]
    shares = plots.kind_shares(profile)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["unexplained"] == pytest.approx(0.1)
    assert shares["softmax"] == 0  # inside attention, which counts already
    rows = tables.share_rows(profile)
    assert ["- of which softmax", "softmax", "4.000", "40.0 %"] in rows
    assert rows[-1] == ["remainder", "-", "1.000", "10.0 %"]


def test_the_exponent_of_time() -> None:
    def points(power: float) -> list[dict[str, float]]:
        return [{"audio_seconds": s, "seconds": 3 * s**power} for s in (30.0, 90.0, 900.0)]

    short = {"audio_seconds": 1.0, "seconds": 5.0}  # costs a window, and would spoil the line
    for power in (1.0, 1.5):
        assert scaling.exponent([short, *points(power)]) == pytest.approx(power)
    assert scaling.exponent([short]) is None


def test_cells_keep_their_borders() -> None:
    assert tables.markdown([["a", "b"], ["x | y", ""]]) == "| a | b |\n|---|---|\n| x / y |  |"


def test_a_wrong_result_is_named(tmp_path: Path) -> None:
    results = tiny_results.all_results()
    del results["peers"]["peers"]["openai-whisper"]["rtf"]
    with pytest.raises(
        ValueError, match=r"peers-tiny-cpu\.json: .*openai-whisper.*: 'rtf' is a required property"
    ):
        build.read_results(write(tmp_path / "a", results))
    with pytest.raises(ValueError, match=r"scaling-tiny-cpu\.json: not a result of schema"):
        build.read_results(write(tmp_path / "b", {"scaling": tiny_results.bench()}))


def test_markers_must_be_there_once() -> None:
    page = "a\n<!-- report: x -->\nold\n<!-- end -->\nb\n"
    filled = "a\n<!-- report: x -->\n\\1 new\n<!-- end -->\nb\n"
    assert build.fill(page, "x", "\\1 new") == filled
    for wrong in ("no markers", page + page):
        with pytest.raises(ValueError, match="markers"):
            build.fill(wrong, "x", "")


@pytest.mark.parametrize("kind", build.KINDS)
def test_pictures_show_something(tmp_path: Path, kind: str) -> None:
    figure = plots.draw(kind, tiny_results.all_results())
    plot.save(figure, tmp_path / "picture.png")
    pixels = imread(tmp_path / "picture.png")
    assert 0.01 < np.mean(pixels[..., :3] < 0.9) < 0.9  # ink, and paper
    drawn = [len(a.patches) + len(a.lines) + len(a.collections) for a in figure.axes]
    assert min(drawn) > 0


def test_speeds_borrow_the_error_rates_of_the_peers() -> None:
    rates = plots.error_rates(tiny_results.peers_result())
    assert rates == {"teacher": pytest.approx(5.0), "student": pytest.approx(6.0)}
    assert plots.error_rates(None) == {}
