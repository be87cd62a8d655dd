"""`baldwhisper bench` on tiny models: processes, tables, files, refusals. No time is judged."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from baldwhisper_mlx.bench import plot, report_text, runner, worker
from baldwhisper_mlx.bench.processes import Child, isolated, run_to_first_line
from baldwhisper_mlx.cli.main import cli
from benchmarks.result_files import read_result
from tests.runtime.conftest import RATE, tiny_config, tone, write_model

QUICK = ["--rounds", "1", "--tokens", "2", "--batch", "1", "--seconds", "1"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    write_model(folder / "small", tiny_config())
    write_model(folder / "large", tiny_config(n_text_layer=2))
    soundfile.write(folder / "a.wav", tone(0.8), RATE)
    soundfile.write(folder / "b.wav", tone(0.6), RATE)
    return folder


@pytest.fixture(autouse=True)
def small_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "STREAM_BYTES", 2**16)


def bench(*arguments: str | Path) -> Result:
    command = ["bench", *map(str, arguments)]
    return CliRunner().invoke(cli, command, catch_exceptions=False)


@pytest.fixture(scope="module")
def measured(models: Path) -> tuple[Result, dict[str, Any]]:
    """A run of student and teacher with a case of every kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "STREAM_BYTES", 2**16)
        patch.setattr(sys, "argv", ["baldwhisper", "bench", "two words"])
        pair = ["--student", models / "small", "--teacher", models / "large"]
        audio = [models / "a.wav", models / "b.wav"]
        chosen = [word for name in ("clip", "paper", "cold", "encode") for word in ("-p", name)]
        json_file = ["--json", models / "r.json"]
        result = bench(*audio, *pair, *QUICK, *chosen, "--temperature", "0", *json_file)
    assert result.exit_code == 0, result.stderr
    return result, read_result(models / "r.json", "bench")


def test_a_result_has_the_shape_that_is_documented(
    measured: tuple[Result, dict[str, Any]], models: Path
) -> None:
    _, found = measured
    assert found["command"] == "baldwhisper bench 'two words'"
    assert list(found["contenders"]) == ["student", "teacher"]
    assert {f["model"] for f in found["contenders"].values()} == {"small", "large"}
    assert str(models) not in json.dumps(found | {"command": ""})  # no path of this machine
    names = [case["name"] for case in found["cases"]]
    assert names == [
        "paper, batch 10",
        "encode, 10 s",
        "encode, 30 s",
        "clip, 1 s, first token",
        "clip, 1 s, final text",
        "cold, 10 s",
    ]
    assert list(found["comparisons"]) == ["compression"]
    for case in found["cases"]:
        assert set(case["results"]) == {"student", "teacher"}
        student, teacher = (case["results"][name]["seconds"] for name in case["results"])
        assert case["speed_ups"]["compression"]["median"] == pytest.approx(teacher[0] / student[0])
        assert all(r["peak_process_bytes"] > 10_000_000 for r in case["results"].values())


def test_ceilings_and_counts(measured: tuple[Result, dict[str, Any]]) -> None:
    _, found = measured
    cases = {case["name"]: case for case in found["cases"]}
    facts = found["contenders"]
    assert facts["student"]["primitives"]["fused"] < facts["teacher"]["primitives"]["fused"]
    assert facts["student"]["weight_bytes"] < facts["teacher"]["weight_bytes"]
    for name in ("paper, batch 10", "encode, 30 s"):
        for result in cases[name]["results"].values():
            assert result["ceiling"] > 0
            assert result["fraction"] > 0
            assert result["peak_mlx_bytes"] > facts["student"]["weight_bytes"]
    paper = cases["paper, batch 10"]["results"]["student"]
    assert paper["fraction"] == pytest.approx(paper["value"]["median"] / paper["ceiling"])
    assert paper["tokens"] == 20
    final = cases["clip, 1 s, final text"]["results"]["teacher"]
    assert final["windows"] == 1
    assert final["fallbacks"] == 0  # one temperature was asked for
    assert cases["cold, 10 s"]["results"]["student"]["ceiling"] is None


def test_the_table_says_what_was_measured(measured: tuple[Result, dict[str, Any]]) -> None:
    result, found = measured
    assert report_text.render(found) in result.stdout
    for part in (
        found["machine"]["chip"],
        f"MLX {found['machine']['mlx']}",
        "baldwhisper bench 'two words'",
        "What compression gains",
        "float32",
        "[6/6] cold, 10 s: student",
    ):
        assert part in result.stdout + result.stderr
    assert "What the runtime gains" not in result.stdout
    rows = [line for line in result.stdout.splitlines() if line.startswith("clip, 1 s, final text")]
    assert "RTF" in rows[0]


def test_numbers_in_tables() -> None:
    assert report_text.significant(0.0) == "0"
    assert report_text.significant(123456.0) == "123456"
    assert report_text.spread({"median": 2.0, "q1": 1.25, "q3": 3.0}, 1) == "2.0 [1.2, 3.0]"
    assert report_text.grid([["", "ab"], ["row", "c"]]) == "     ab\nrow   c"


@pytest.mark.parametrize("suffix", plot.FORMATS)
def test_plots_show_something(
    measured: tuple[Result, dict[str, Any]], tmp_path: Path, suffix: str
) -> None:
    from matplotlib.image import imread

    _, found = measured
    path = tmp_path / f"plot{suffix}"
    figure = plot.draw(found, {"student": 7.0, "teacher": 5.0})
    plot.save(figure, path)
    assert list(tmp_path.iterdir()) == [path]
    bars, sizes, speeds = figure.axes
    assert len(bars.patches) == len(found["cases"])
    assert [t.get_text() for t in bars.get_yticklabels()] == [c["name"] for c in found["cases"]]
    for axes in (sizes, speeds):
        assert len(axes.collections[0].get_offsets()) == 2
        assert axes.get_ylabel() == "word error rate in %"
    if suffix == ".png":
        pixels = imread(path)
        assert pixels.shape[0] > 300
        assert 0.01 < np.mean(pixels[..., :3] < 0.9) < 0.9  # ink, and paper
    else:
        assert "<svg" in path.read_text()


def test_a_plot_without_error_rates_or_teacher(measured: tuple[Result, dict[str, Any]]) -> None:
    _, found = measured
    alone = found | {
        "comparisons": {},
        "contenders": {"student": found["contenders"]["student"]},
    }
    sizes, speeds = plot.draw(alone).axes
    assert len(sizes.patches) == len(speeds.patches) == 1
    assert "What" not in report_text.render(alone)
    assert "paper, batch 10" in report_text.grid(report_text.plain_rows(alone))


def test_another_runtime_has_a_panel_and_a_table_of_its_own(
    measured: tuple[Result, dict[str, Any]],
) -> None:
    found = json.loads(json.dumps(measured[1]))
    found["contenders"][runner.PEER] = found["contenders"]["teacher"] | {"runtime": "mlx-whisper 1"}
    comparison = {"title": "What the runtime gains", "fast": "teacher", "slow": runner.PEER}
    found["comparisons"]["runtime"] = comparison
    for case in found["cases"]:
        case["results"][runner.PEER] = case["results"]["teacher"]
        case["speed_ups"]["runtime"] = case["speed_ups"]["compression"]
    left, right, sizes, _ = plot.draw(found).axes
    assert left.get_xlabel() == "times as fast as the teacher"
    assert right.get_xlabel() == f"times as fast as the {runner.PEER}"
    assert [t.get_text() for t in sizes.get_yticklabels()] == ["student", "teacher"]
    first, second = (
        report_text.grid(report_text.comparison_rows(found, name))
        for name in ("compression", "runtime")
    )
    assert runner.PEER not in first
    assert "student" not in second


def test_what_is_refused_before_measuring(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "run_benchmark", lambda *_, **__: pytest.fail("measured"))
    small, audio = ["--student", models / "small"], models / "a.wav"
    taken = tmp_path / "taken.json"
    taken.write_text("")
    refusals = {
        "--peer runs the teacher in another program": [*small, "--peer", "mlx-whisper"],
        "clip need AUDIO": [*small, "-p", "clip"],
        "exists; use --force": [*small, "--json", taken],
        "is a folder; give a file name": [*small, "--json", tmp_path, "--force"],
        "no such folder": [*small, "--json", tmp_path / "gone" / "r.json"],
        "ends in .png or .svg": [*small, "--plot", tmp_path / "r.jpg"],
        "give NAME=PERCENT": [*small, "--wer", "student"],
        "NAME is student or teacher": [*small, "--wer", "pupil=5"],
        "gone: no such folder": [audio, "--student", tmp_path / "gone"],
    }
    for message, arguments in refusals.items():
        result = bench(*arguments)
        assert result.exit_code != 0
        assert message in result.stderr
    assert taken.read_text() == ""


def test_a_plot_needs_matplotlib(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    result = bench("--student", models / "small", "--plot", "x.png")
    assert result.exit_code == 1
    assert "baldwhisper-mlx[bench]" in result.stderr


def test_a_model_that_cannot_be_loaded_is_named(tmp_path: Path, models: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    result = bench("--student", broken, "-p", "paper", *QUICK)
    assert result.exit_code == 1
    assert "config.json is missing" in result.stderr
    assert str(broken) in result.stderr


def test_a_worker_has_one_model_and_times_its_tasks(models: Path) -> None:
    with Child("baldwhisper-mlx", str(models / "small")) as child:
        assert child.ask("machine")["chip"]
        assert child.ask("describe")["parameters"] > 0
        encoded = child.ask("encode", seconds=10.0)
        with pytest.raises(RuntimeError, match=r"baldwhisper-mlx with .*small: .*sing"):
            child.ask("sing")
    assert set(encoded) == {"seconds", "peak_mlx_bytes", "peak_process_bytes"}
    with pytest.raises(ValueError, match="unknown runtime"):
        worker.open_runtime("other", "x")


def test_a_process_that_dies_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="terminated abruptly"):
        isolated(os._exit, 3)
    assert isolated(os.getpid) != os.getpid()


def test_what_a_worker_prints_is_no_result(capfd: pytest.CaptureFixture[str]) -> None:
    isolated(print, "a library's greeting")
    out, err = capfd.readouterr()
    assert out == ""
    assert "a library's greeting" in err


def test_a_child_says_why_it_cannot(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"mlx-whisper with .*gone"):
        Child("mlx-whisper", str(tmp_path / "gone"))


def test_a_program_is_timed_to_its_first_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import sys, time\ndef main():\n    print(sys.argv[1], flush=True)\n"
    (tmp_path / "slow_to_end.py").write_text(f"{code}    time.sleep(0.1); print('more')\n")
    monkeypatch.syspath_prepend(tmp_path)
    held = bytearray(400_000_000)  # what the parent holds is not the child's
    held[::4096] = b"1" * len(held[::4096])
    found = run_to_first_line("slow_to_end", arguments=["text"])
    assert found["text"].split() == ["text", "more"]
    assert found["peak_process_bytes"] > 1_000_000
    if sys.platform == "linux":  # which is where getrusage would say so
        assert found["peak_process_bytes"] < len(held)
    with pytest.raises(RuntimeError, match="no_such_module"):
        run_to_first_line("no_such_module")
