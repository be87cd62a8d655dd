"""Every figure of README.md is that of a result file, and the plot is drawn from one.

Tables that the report writes are compared in tests/benchmarks/test_report.py.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from PIL import Image

from benchmarks.report import build, overview_plot
from benchmarks.speed import decode_speed
from tests.support.pages import ROOT, blocks, read

RESULTS = ROOT / "benchmarks/results"
PICTURE_BYTES = 100_000


def result(name: str) -> dict[str, Any]:
    """Contents of a result file."""
    loaded: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def test_the_readme_shows_the_transcript_of_the_sample() -> None:
    (block,) = blocks(read("README.md"), "console")
    command, output = block.split("\n", 1)
    assert command == "$ baldwhisper transcribe examples/sample.wav"
    spoken, shown = (
        re.findall(r"\w+", text.lower()) for text in (read("examples/sample.txt"), output)
    )
    assert shown == spoken


def test_the_plot_shows_the_result_file() -> None:
    shown = overview_plot.peers_to_show(build.read_results(RESULTS))
    assert shown is not None
    path = ROOT / overview_plot.PICTURE
    assert path.stat().st_size < PICTURE_BYTES
    with Image.open(path) as picture:
        drawn = picture.info["Description"]
    message = "run python -m benchmarks.report"
    assert drawn == overview_plot.description(overview_plot.points(shown)), message
    (alternative,) = re.findall(rf"!\[(.+)\]\({overview_plot.PICTURE}\)", read("README.md"))
    for name, program in shown["peers"].items():
        assert f"{name}: {10 * program['rtf']:.2f} s, {100 * program['wer']:.1f} %" in alternative


def interval(value: float, bounds: list[float], digits: int) -> str:
    """A rate with its interval in percent, as the README writes it."""
    low, high = (f"{100 * bound:.{digits}f}" for bound in bounds)
    return f"{100 * value:.{digits}f} % [{low}, {high}]"


def case(measured: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (case for case in measured["cases"] if case["name"] == name)
    return dict(found)


def seconds(measured: dict[str, Any], name: str) -> tuple[str, ...]:
    """What a case takes student and teacher."""
    results = case(measured, name)["results"]
    return tuple(f"{results[who]['value']['median']:.2f} s" for who in ("student", "teacher"))


@pytest.fixture(scope="module")
def on_the_cpu() -> dict[str, dict[str, Any]]:
    """Results by kind of the machine that the plot is about, which the README calls the CPU."""
    results = build.read_results(RESULTS)
    chip = overview_plot.machine_to_show(results)
    assert chip is not None
    return results[chip]


def assert_in_readme(claims: list[str]) -> None:
    readme = " ".join(read("README.md").split())
    assert [claim for claim in claims if claim not in readme] == []


def test_size_errors_and_speed_of_the_bundled_model(on_the_cpu: dict[str, Any]) -> None:
    bench, peers = on_the_cpu["bench"], on_the_cpu["peers"]["peers"]
    words = result("word_errors")
    base, student = (words["models"][name] for name in ("teacher", "base-en"))
    size = {
        name: f"{found['disk_bytes'] / 1e6:.0f} MB" for name, found in bench["contenders"].items()
    }
    clip, teachers_clip = seconds(bench, "clip, 10 s, final text")
    cold, teachers_cold = seconds(bench, "cold, 10 s")
    rtf, teachers_rtf = (
        f"{peers[name]['rtf']:.3f}" for name in ("baldwhisper-mlx, student", "baldwhisper-mlx")
    )
    assert bench["contenders"]["student"]["model"] == "base-en"
    assert bench["contenders"]["student"]["decoder"].startswith("5 layers")
    assert_in_readme(
        [
            f"takes {size['student']} on disk (five decoder layers, factorized embedding, 5 bits",
            f"against {size['teacher']} (float16) for whisper-base",
            f"on {words['clips']} clips of read speech is "
            f"{interval(student['wer'], student['wer_interval'], 2)}, against "
            f"{interval(base['wer'], base['wer_interval'], 2)}",
            f"a 10 s clip takes {clip} from file to text, against {teachers_clip} "
            f"(in the plot: RTF {rtf} against {teachers_rtf})",
            f"and {cold} with the start of the program, against {teachers_cold}",
            f"of its {words['models']['tiny.en']['word_errors']} errors",
        ]
    )


def test_agreement_with_openai_and_speed_beside_other_programs(on_the_cpu: dict[str, Any]) -> None:
    agreement, peers = result("agreement"), on_the_cpu["peers"]["peers"]
    for way in ("timestamps", "text"):
        same = {agreement[way][f"same_{what}"] for what in ("text", "tokens", "times")}
        assert same == {agreement[way]["clips"]}
    ours = peers["baldwhisper-mlx"]["rtf"]
    mlx, openai, int8 = (
        peers[name]["rtf"] for name in ("mlx-whisper", "openai-whisper", "faster-whisper int8")
    )
    assert openai < ours
    assert int8 < ours
    clips = agreement["text"]["clips"]
    assert_in_readme(
        [
            f"agree in {clips} of {clips} clips",
            f"It is {mlx / ours:.1f} times as fast as mlx-whisper",
            f"(RTF {ours:.3f} against {mlx:.3f})",
            f"slower than openai-whisper ({openai:.3f}) and faster-whisper in int8 ({int8:.3f})",
        ]
    )


def test_speed_and_errors_of_the_papers_form(on_the_cpu: dict[str, Any]) -> None:
    paper, mboshi = on_the_cpu["paper-form"], result("reproduction-sheared")
    student, teacher = (
        f"{paper['contenders'][who]['parameters'] / 1e6:.1f}" for who in ("student", "teacher")
    )
    trained = result("reproduction-speed-sheared")["contenders"]["student"]
    assert trained["parameters"] == paper["contenders"]["student"]["parameters"]
    gain = {
        name: case(paper, name)["speed_ups"]["compression"]["median"]
        for name in ("paper, batch 10", "decode, batch 1")
    }
    errors, teachers = (
        interval(wer["value"], wer["interval"], 1)
        for wer in (mboshi["models"][role]["wer"] for role in ("model", "baseline"))
    )
    assert_in_readme(
        [
            f"has {student} M of {teacher} M parameters",
            f"{gain['paper, batch 10']:.2f} times as fast for 10 clips at once",
            f"{gain['decode, batch 1']:.2f} times for one",
            f"{errors} on {mboshi['data']['utterances']} clips, against {teachers} for its teacher",
        ]
    )


def test_decoding_beside_other_decoders_is_in_the_results() -> None:
    measured = result("decode_speed")
    page = read("benchmarks/RESULTS.md")
    assert decode_speed.markdown(measured) in page
    assert f"{measured['primitives_per_step']['gpu']} primitives" in page
