"""What the benchmark scripts share: models by name, machines, result files and their schema."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator

from baldwhisper_mlx.bench import machine
from benchmarks import machines
from benchmarks.options import Benchmark, model_or_bundled, named_model
from benchmarks.peers import compare
from benchmarks.report.build import KINDS
from benchmarks.result_files import (
    RESULTS,
    SCHEMA_FILE,
    data_name,
    problems,
    read_result,
    resume,
    write_json,
)
from tests.support import tiny_results

MEASURED = [
    *((path, schema) for kind, schema in KINDS.items() for path in RESULTS.glob(f"{kind}-*.json")),
    *((path, "bench") for path in RESULTS.glob("reproduction-speed-*.json")),
]


def test_models_by_name(tmp_path: Path) -> None:
    assert named_model(f"mine={tmp_path}") == model_or_bundled(f"mine={tmp_path}")
    assert named_model(f"mine={tmp_path}") == ("mine", tmp_path)
    assert model_or_bundled("tiny-en=") == ("tiny-en", None)


@pytest.mark.parametrize("item", ["mine", "", "=", "=DIR", "mine=no such folder"])
def test_what_is_no_model(item: str) -> None:
    for read in (named_model, model_or_bundled):
        with pytest.raises(click.UsageError, match="NAME=DIR"):
            read(item)
    with pytest.raises(click.UsageError):
        named_model("tiny-en=")


@pytest.mark.parametrize(
    "error", [ValueError("not a model"), OSError("no disk"), RuntimeError("died"), ImportError("x")]
)
def test_bad_input_is_an_error_message(error: Exception) -> None:
    @click.command(cls=Benchmark)
    def fail() -> None:
        raise error

    result = CliRunner().invoke(fail)
    assert (result.exit_code, result.stderr) == (1, f"Error: {error}\n")


def test_help_and_interrupts_are_no_errors() -> None:
    @click.command(cls=Benchmark)
    @click.pass_context
    def stop(context: click.Context) -> None:
        context.exit(3)

    assert CliRunner().invoke(stop).exit_code == 3
    assert CliRunner().invoke(stop, ["--help"]).exit_code == 0


def test_results_are_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.json"
    write_json(path, {"word": "naïve"})
    with pytest.raises(TypeError):
        write_json(path, {"no": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"word": "naïve"}
    assert list(path.parent.iterdir()) == [path]


def test_an_interrupted_run_resumes_with_the_same_settings(tmp_path: Path) -> None:
    path, empty = tmp_path / "result.json", {"language": "en", "rows": []}
    assert resume(path, empty, "rows") is empty
    before = empty | {"rows": [1, 2], "added since": True}
    write_json(path, before)
    assert resume(path, empty, "rows") == before
    with pytest.raises(click.ClickException, match="measured with other settings"):
        resume(path, empty | {"language": "fr"}, "rows")


def test_a_folder_of_speech_is_named_without_the_path_of_a_machine(tmp_path: Path) -> None:
    folder = tmp_path / "speech" / "dev"
    folder.mkdir(parents=True)
    assert data_name(folder) == "speech/dev"


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


def test_every_kind_is_measured() -> None:
    assert {schema for _, schema in MEASURED} == set(KINDS.values())


@pytest.mark.parametrize(("path", "schema"), MEASURED, ids=lambda part: getattr(part, "stem", part))
def test_committed_results_fit_the_schema(path: Path, schema: str) -> None:
    read_result(path, schema)


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_misses_what_readers_need(kind: str) -> None:
    result = tiny_results.all_results()[kind]
    schema = KINDS[kind]
    assert problems(result | {"more": 1}, schema) == []
    for key in result.keys() & {"machine", "cases", "peers", "models"}:
        less = {name: value for name, value in result.items() if name != key}
        assert problems(less, schema) == [f"$: {key!r} is a required property"]
    machine = result["machine"] | {"cores": True, "chip": 1}
    assert problems(result | {"machine": machine}, schema) == [
        "$.machine.chip: 1 is not of type 'string'",
        "$.machine.cores: True is not of type 'integer'",
    ]


def test_a_program_that_is_not_measured_has_a_reason() -> None:
    result = tiny_results.peers_result()
    del result["peers"]["whisper.cpp"]["reason"]
    del result["peers"][compare.TEACHER]["wer"]
    assert problems(result, "peers") == [
        "$.peers['baldwhisper-mlx']: 'wer' is a required property",
        "$.peers['whisper.cpp']: 'reason' is a required property",
    ]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"schema": "other"}', '{"schema": "baldwhisper-scaling/1"}']
)
def test_a_wrong_result_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"result\.json"):
        read_result(path, "scaling")


def test_chips_in_file_names() -> None:
    assert machines.slug("Apple M1 Pro") == "apple-m1-pro"


@pytest.mark.parametrize("count", [4, None])
def test_a_mac_says_how_many_cores_are_fast(
    monkeypatch: pytest.MonkeyPatch, count: int | None
) -> None:
    def run(command: list[str], **_: Any) -> Any:
        assert command == ["sysctl", "-n", "hw.perflevel0.logicalcpu"]
        return subprocess.CompletedProcess(command, 0, stdout=f"{count or ''}\n")

    cores = machine.cores()
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(machines, "cores", lambda: cores)
    monkeypatch.setattr(subprocess, "run", run)
    assert machines.fast_cores() == (count or cores)


def test_the_machine_is_described_by_another_process() -> None:
    assert machines.describe()["chip"] == machine.chip()
