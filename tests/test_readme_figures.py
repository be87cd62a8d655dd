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
from tests.support.pages import ROOT, read

RESULTS = ROOT / "benchmarks/results"
PICTURE_BYTES = 100_000


def result(name: str) -> dict[str, Any]:
    """Contents of a result file."""
    loaded: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


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
        seconds = program["seconds_by_length"]["10"]
        assert f"{name}: {seconds:.2f} s, {100 * program['wer']:.1f} %" in alternative


def interval(value: float, bounds: list[float], digits: int) -> str:
    """A rate with its interval in percent, as the README writes it."""
    low, high = (f"{100 * bound:.{digits}f}" for bound in bounds)
    return f"{100 * value:.{digits}f} % [{low}, {high}]"


def wer(part: dict[str, Any], name: str) -> str:
    """A model's word error rate in a part of word_errors.json."""
    found = part["models"][name]
    return interval(found["wer"], found["wer_interval"], 2)


def case(measured: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (case for case in measured["cases"] if case["name"] == name)
    return dict(found)


def seconds(program: dict[str, Any], length: int) -> str:
    """What a clip of that length takes a program of peers-CHIP.json."""
    return f"{program['seconds_by_length'][str(length)]:.2f} s"


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
    read, accents = result("word_errors")["speech"]
    size = {
        name: f"{found['disk_bytes'] / 1e6:.0f} MB" for name, found in bench["contenders"].items()
    }
    student, base, padded, int8 = (
        peers[name]
        for name in (
            "baldwhisper-mlx, student",
            "baldwhisper-mlx",
            "baldwhisper-mlx, padded context",
            "faster-whisper int8",
        )
    )
    first = [f"{one['startup_seconds'] + one['first_seconds']:.1f} s" for one in (student, int8)]
    peak = [f"{one['peak_process_bytes'] / 1e6:.0f} MB" for one in (student, base)]
    gain = case(bench, "paper, batch 10")["speed_ups"]["compression"]["median"]
    assert bench["contenders"]["student"]["model"] == "tiny-en"
    assert_in_readme(
        [
            f"takes {size['student']} on disk, against {size['teacher']} for whisper-base",
            f"transcribes a clip of 10 s in {seconds(student, 10)}, against {seconds(base, 10)} "
            f"for whisper-base, {seconds(padded, 10)} for whisper-base in its short context and "
            f"{seconds(int8, 10)} in faster-whisper int8",
            f"takes {first[0]}, against {first[1]} in faster-whisper int8",
            f"{peak[0]} of memory, against {peak[1]}",
            f"is {wer(read, 'tiny-en')} on {read['clips']} clips of read speech, against "
            f"{wer(read, 'whisper-base')} for whisper-base",
            f"and {wer(accents, 'tiny-en')} on {accents['clips']} clips of Mandarin speakers, "
            f"against {wer(accents, 'whisper-base')}",
            f"{gain:.2f} times as fast",
        ]
    )


def test_agreement_with_openai_and_speed_beside_other_programs(on_the_cpu: dict[str, Any]) -> None:
    agreement, peers = result("agreement"), on_the_cpu["peers"]["peers"]
    for way in ("timestamps", "text"):
        same = {agreement[way][f"same_{what}"] for what in ("text", "tokens", "times")}
        assert same == {agreement[way]["clips"]}
    padded, int8, mlx = (
        peers[name]["seconds_by_length"]
        for name in ("baldwhisper-mlx, padded context", "faster-whisper int8", "mlx-whisper")
    )
    clips = agreement["text"]["clips"]
    assert_in_readme(
        [
            f"agree in {clips} of {clips} clips",
            f"a clip of 3 s takes {padded['3']:.2f} s, against {int8['3']:.2f} s in "
            f"faster-whisper int8 and {mlx['3']:.2f} s in mlx-whisper",
            f"one of 10 s {padded['10']:.2f} s, against {int8['10']:.2f} s",
            f"one of 30 s {padded['30']:.2f} s, against {int8['30']:.2f} s",
        ]
    )


def test_speed_and_errors_of_the_papers_form(on_the_cpu: dict[str, Any]) -> None:
    paper, mboshi = on_the_cpu["paper-form"], result("reproduction-augmented")
    student, teacher = (
        f"{paper['contenders'][who]['parameters'] / 1e6:.1f}" for who in ("student", "teacher")
    )
    trained = result("reproduction-speed-augmented")["contenders"]["student"]["parameters"]
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
            f"a model of {trained / 1e6:.1f} M parameters has a word error rate of {errors} on "
            f"{mboshi['data']['utterances']} clips, against {teachers} for its teacher",
        ]
    )


def test_decoding_beside_other_decoders_is_in_the_results() -> None:
    measured = result("decode_speed")
    page = read("benchmarks/RESULTS.md")
    assert decode_speed.markdown(measured) in page
    assert f"{measured['primitives_per_step']['gpu']} primitives" in page


def test_languages_and_hotwords() -> None:
    programs = result("languages_mixed")["programs"]
    one, several = (
        programs[f"base, {name}"]["languages"]["all"]["written"]
        for name in ("one language", "multilingual")
    )
    (model,) = result("hotwords")["models"].values()
    named = model["rows"]["hotwords"]
    text = " ".join(read("README.md").split())
    assert f"({several:.0%} of the words of".replace("%", " %") in text
    assert f"instead of {one:.0%})".replace("%", " %") in text
    assert f"({named['targets_written']} of {named['targets']} rare words" in text
