"""The benchmark of the server: a real process, its figures, and how answers are compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.speed import server
from benchmarks.speed.server import Clips, main, summary

SPEECH = Path(__file__).parents[2] / "baldwhisper_mlx/assets/speech.flac"


def test_answers_are_compared_with_those_of_transcribe() -> None:
    clips = Clips([Path("a"), Path("b"), Path("c")], [1.0, 2.0, 3.0], ["one", "two", ""])
    answers = [(0, "one"), (1, "one"), (2, ""), (0, "once"), (1, "")]
    assert clips.check(answers) == {"different": 3, "mixed_up": 1}


def test_gains_are_of_the_same_round() -> None:
    clips = Clips([Path("a"), Path("b")], [1.0, 3.0], ["one", "two"])

    def row(seconds: float, batches: int) -> dict[str, Any]:
        return {
            "seconds": seconds, "processor": 4.0, "latencies": [1.0, 3.0], "windows": 4,
            "batches": batches, "different": 1, "mixed_up": 0,
        }  # fmt: skip

    found = summary({"1": [row(2.0, 4), row(8.0, 4)], "2": [row(1.0, 2), row(2.0, 2)]}, clips)
    assert found["1"]["gain"]["median"] == 1
    assert found["2"]["gain"]["median"] == pytest.approx(3)
    assert found["2"]["requests_per_second"]["median"] == pytest.approx(1.5)
    assert found["2"]["audio_per_second"]["median"] == pytest.approx(3)
    assert found["2"]["processor_seconds"]["median"] == 2
    assert (found["1"]["windows_per_batch"], found["2"]["windows_per_batch"]) == (1, 2)
    assert (found["2"]["latency_median"], found["2"]["different"]) == (2, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = []
    for name in ("a.flac", "b.flac"):
        shutil.copy(SPEECH, tmp_path / name)
        rows.append(json.dumps({"file_name": name, "text": "", "duration": 2.0}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return tmp_path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, arguments)


def test_throughput_of_a_process(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "server.json"
    arguments = ["--clients", "1,2", "--rounds", "1", "--output", str(output)]
    found = run(str(folder), *arguments)
    assert found.exit_code == 0, found.output
    result = json.loads(output.read_text(encoding="utf-8"))
    assert str(tmp_path) not in output.read_text(encoding="utf-8")
    model = result["models"]["tiny-en"]
    assert model["peak_process_bytes"] > 10**7
    for row in model["clients"].values():
        assert (row["different"], row["mixed_up"]) == (0, 0)
        assert row["windows_per_batch"] >= 1
        assert 0 < row["latency_median"] <= row["latency_p95"]


def test_endurance_of_a_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_READING_SECONDS", 0.2)
    found = run(str(folder), "--clients", "3", "--seconds", "1")
    assert found.exit_code == 0, found.output
    assert "'mixed_up': 0" in found.output


def test_wrong_arguments(folder: Path) -> None:
    found = run(str(folder), "--seconds", "1")
    assert (found.exit_code, "--clients" in found.output) == (2, True)
    found = run(str(folder), "--longest", "1")
    assert (found.exit_code, "no clips" in found.output) == (2, True)
