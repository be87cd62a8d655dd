"""`baldwhisper evaluate` on a tiny model: figures, files, refusals, resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from baldwhisper_mlx.cli.main import cli
from baldwhisper_mlx.evaluation import hypotheses, inference
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.transcription import batched
from tests.runtime.conftest import RATE, tiny_config, tone, write_model

ROOT = Path(__file__).parents[3]
SECONDS = (1, 2, 6, 12, 3, 31)

Run = Callable[..., Result]


@dataclass
class FakeModel:
    """Replaces the model: returns given texts, by the whole seconds of a clip."""

    texts: dict[int, str]
    batches: list[int] = field(default_factory=list)

    def __call__(self, samples: Sequence[Any], loaded: Any, **options: Any) -> list[Transcript]:
        self.batches.append(len(samples))
        lengths = [len(one) / RATE for one in samples]
        return [Transcript(f" {self.texts[round(s)]} ", (), "en", s) for s in lengths]


def texts(*changes: tuple[int, str]) -> dict[int, str]:
    return {seconds: f"clip of {seconds} seconds" for seconds in SECONDS} | dict(changes)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    fake = FakeModel(texts())
    monkeypatch.setattr(inference, "transcribe_clips", fake)
    return fake


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models that only look at the audio there is, and so are fast."""
    root = tmp_path_factory.mktemp("models")
    config = tiny_config(audio_context="dynamic")
    other = tiny_config(audio_context="dynamic", n_text_layer=2)
    return write_model(root / "student", config), write_model(root / "teacher", other)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips of two speakers, of which one has no speech."""
    folder = tmp_path_factory.mktemp("speech") / "dev"
    (folder / "clips").mkdir(parents=True)
    rows = []
    for number, seconds in enumerate(SECONDS):
        noise = np.random.default_rng(number).standard_normal(seconds * RATE, np.float32)
        samples = 0.3 * tone(seconds) + np.float32(0.1) * noise
        soundfile.write(folder / "clips" / f"{number}.wav", samples, RATE)
        text = "" if seconds == 2 else f"Clip of {seconds} seconds!"
        row = {"file_name": f"clips/{number}.wav", "text": text, "speaker": "ab"[number % 2]}
        rows.append(row)
    write_rows(folder / "metadata.jsonl", rows)
    return folder


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def run(models: tuple[Path, Path], data: Path) -> Run:
    """Runs `baldwhisper evaluate` on the data with the student; keywords replace options."""

    def run(*arguments: str, **options: Any) -> Result:
        given = {"model": models[0], "data": data, "language": "en"} | options
        pairs = [(f"--{name}", str(value)) for name, value in given.items()]
        command = ["evaluate", *(word for pair in pairs for word in pair), *arguments]
        return CliRunner().invoke(cli, command, catch_exceptions=False)

    return run


def report_of(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def without_times(value: Any) -> Any:
    """A report, without how long it took."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in ("seconds", "rtf")}
    return [without_times(one) for one in value] if isinstance(value, list) else value


# Figures.


def test_errors_are_counted(model: FakeModel, run: Run) -> None:
    model.texts = texts((2, "thank you"), (1, "clip off one second"), (6, ""), (12, "no " * 20))
    report = report_of(run("--json"))
    data, found = report["data"], report["models"]["model"]
    # Five clips say four words each; in the silent one two words are transcribed.
    assert (data["utterances"], data["words"], data["empty_references"]) == (6, 20, 1)
    assert (data["speakers"], data["skipped"]) == (2, [])
    wer = found["wer"]
    assert (wer["substitutions"], wer["deletions"], wer["insertions"]) == (3 + 4, 4, 2 + 16)
    assert (wer["errors"], wer["total"], wer["hits"]) == (29, 20, 9)
    assert wer["value"] == pytest.approx(29 / 20)
    low, high = wer["interval"]
    assert 0 <= low < wer["value"] < high
    assert found["cer"]["total"] == sum(len(f"clip of {s} seconds") for s in SECONDS if s != 2)
    assert (found["empty_outputs"], found["repetition_loops"]) == (1, 1)
    assert found["rtf"] > 0
    assert report["comparison"] is None


def test_rows_by_length_and_by_speaker(model: FakeModel, run: Run) -> None:
    model.texts = texts((6, "clip of six seconds"))
    report = report_of(run("--json"))
    by_length = {row["group"]: row for row in report["by_length"]}
    assert {name: row["utterances"] for name, row in by_length.items()} == {
        "under 5 s": 3,
        "5 to 10 s": 1,
        "10 to 20 s": 1,
        "30 s or more": 1,
    }
    assert list(by_length) == ["under 5 s", "5 to 10 s", "10 to 20 s", "30 s or more"]
    assert by_length["5 to 10 s"]["model"]["wer"] == {"value": 0.25, "interval": [0.25, 0.25]}
    speakers = {row["group"]: row for row in report["by_speaker"]}
    assert {name: row["words"] for name, row in speakers.items()} == {"a": 12, "b": 8}
    assert speakers["a"]["model"]["wer"]["value"] == pytest.approx(1 / 12, abs=1e-6)
    for rows in (report["by_length"], report["by_speaker"]):
        assert sum(row["seconds"] for row in rows) == pytest.approx(sum(SECONDS))


def test_a_baseline_is_compared(
    model: FakeModel, run: Run, models: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = FakeModel(texts((1, "a b c d"), (12, "clip of ten seconds"), (2, "")))
    better = FakeModel(texts((12, "clip of ten seconds"), (2, "")))

    def transcribe(samples: Any, loaded: Any, **options: Any) -> list[Transcript]:
        return (worse if loaded.config.n_text_layer == 1 else better)(samples, loaded)

    monkeypatch.setattr(inference, "transcribe_clips", transcribe)
    report = report_of(run("--json", baseline=models[1]))
    assert report["models"]["model"]["model"] == str(models[0])
    assert report["models"]["baseline"]["model"] == str(models[1])
    assert report["models"]["model"]["fingerprint"] != report["models"]["baseline"]["fingerprint"]
    words = report["comparison"]["wer"]
    assert words["retention"]["value"] == pytest.approx(1 / 5)
    assert words["accuracy_ratio"]["value"] == pytest.approx(15 / 19, abs=1e-6)
    assert words["difference"]["value"] == pytest.approx(4 / 20)
    # Whatever clips are drawn, the student errs wherever the teacher does.
    assert words["retention"]["interval"][1] <= 1.0
    assert words["difference"]["interval"][0] >= 0.0
    assert report["by_length"][0]["baseline"]["wer"]["value"] == 0.0
    table = run(baseline=models[1]).stdout
    assert "relative error rate (baseline / model)  0.200" in table


def test_a_model_retains_all_of_itself(run: Run, models: tuple[Path, Path]) -> None:
    report = report_of(run("--json", "--normalizer", "none", baseline=models[0], limit=3))
    for unit in ("wer", "cer"):
        assert report["comparison"][unit]["retention"] == {"value": 1.0, "interval": [1.0, 1.0]}
        assert report["comparison"][unit]["difference"] == {"value": 0.0, "interval": [0.0, 0.0]}


def test_normalizers_differ(model: FakeModel, run: Run) -> None:
    model.texts = texts((1, "clip of one seconds"), (2, "[silence]"))
    found = {
        name: report_of(run("--json", normalizer=name))["models"]["model"]["wer"]["errors"]
        for name in ("none", "basic", "whisper-english", "bambara")
    }
    # Without any: "Clip" and "seconds!" five times over, "one", and the brackets.
    assert found == {"none": 2 * 5 + 1 + 1, "basic": 1, "whisper-english": 0, "bambara": 1 + 1}


# What is written, and in which form.

ESTIMATE = {"value", "interval"}
EDITS = {"errors", "total", "hits", "substitutions", "deletions", "insertions"}
GROUP = {
    "group": None,
    "utterances": None,
    "seconds": None,
    "words": None,
    "model": {"wer": ESTIMATE, "cer": ESTIMATE},
    "baseline": {"wer": ESTIMATE, "cer": ESTIMATE},
}
COMPARED = {"retention": ESTIMATE, "accuracy_ratio": ESTIMATE, "difference": ESTIMATE}
OPTIONS = {
    "language",
    "without_timestamps",
    "condition_on_previous_text",
    "fallback",
    "batch_size",
}
ROLE = {
    "model": None,
    "fingerprint": None,
    "options": OPTIONS | {"dtype", "device", "mlx", "baldwhisper_mlx"},
    "wer": ESTIMATE | EDITS,
    "cer": ESTIMATE | EDITS,
    "empty_outputs": None,
    "repetition_loops": None,
    "seconds": None,
    "rtf": None,
}
REPORT = {
    "format": None,
    "settings": OPTIONS
    | {"data", "split", "text_column", "audio_column", "speaker_column", "limit"}
    | {"normalizer", "fingerprints"},
    "data": {
        "utterances",
        "seconds",
        "words",
        "characters",
        "speakers",
        "empty_references",
        "skipped",
    },
    "bootstrap": {"samples", "level", "seed"},
    "models": {"model": ROLE, "baseline": ROLE},
    "comparison": {"wer": COMPARED, "cer": COMPARED},
    "by_length": [GROUP],
    "by_speaker": [GROUP],
}
TRANSCRIBED = {
    "hypothesis": None,
    "normalized_hypothesis": None,
    "words": EDITS,
    "characters": EDITS,
    "is_empty": None,
    "is_loop": None,
    "seconds": None,
    "alignment": None,
}
UTTERANCE = {
    "file": None,
    "speaker": None,
    "duration": None,
    "reference": None,
    "normalized_reference": None,
    "model": TRANSCRIBED,
    "baseline": TRANSCRIBED,
}


def assert_shape(value: Any, shape: Any, where: str = "report") -> None:
    if isinstance(shape, list):
        assert value, where
        for one in value:
            assert_shape(one, shape[0], f"{where}[]")
    elif isinstance(shape, set | dict):
        assert isinstance(value, dict), where
        assert set(value) == set(shape), where
        for key in shape if isinstance(shape, dict) else ():
            assert_shape(value[key], shape[key], f"{where}.{key}")


def assert_estimates(value: Any) -> None:
    """Every estimate in a report is a number between its bounds, or says None."""
    if isinstance(value, dict):
        if "interval" in value:
            low, high = value["interval"]
            numbers = [one for one in (low, value["value"], high) if one is not None]
            assert numbers == sorted(numbers)
        for one in value.values():
            assert_estimates(one)
    elif isinstance(value, list):
        for one in value:
            assert_estimates(one)


def test_the_report_has_the_form_it_is_documented_to_have(
    run: Run, models: tuple[Path, Path], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    report = report_of(run("--json", baseline=models[1], output=output))
    assert_shape(report, REPORT)
    assert_estimates(report)
    assert json.loads((output / "report.json").read_text()) == report
    rows = lines(output / "utterances.jsonl")
    assert len(rows) == len(SECONDS)
    for row in rows:
        assert_shape(row, UTTERANCE, "utterance")
        kinds = [kind for kind, _, _ in row["model"]["alignment"]]
        assert row["model"]["words"]["errors"] == len(kinds) - kinds.count("=")
    assert sorted(path.name for path in output.iterdir()) == [
        "hypotheses.jsonl",
        "report.json",
        "utterances.jsonl",
    ]


def test_the_page_names_every_field() -> None:
    page = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")

    def names(shape: Any) -> set[str]:
        if isinstance(shape, list):
            return names(shape[0])
        below = shape.values() if isinstance(shape, dict) else ()
        return set(shape or ()).union(*map(names, below))

    missing = {name for name in names(REPORT) | names(UTTERANCE) if f"`{name}`" not in page}
    assert missing == set()


def test_the_table(model: FakeModel, run: Run) -> None:
    model.texts = texts((1, "clip off one second"), (2, "thank you"), (6, ""))
    result = run("--show-errors", "2")
    assert result.exit_code == 0
    assert result.stderr == ""
    text = result.stdout
    for part in (
        "6 utterances, 2 speakers, 0.02 h, 20 words; 1 without speech",
        "normalizer  basic",
        "model  45.00  [",
        "under 5 s",
        "by speaker",
    ):
        assert part in text
    errors = text[text.index("clips/2.wav") :]
    # The worst first; of two only the first, as was asked for.
    assert errors.splitlines() == [
        "clips/2.wav (6.0 s, speaker a)",
        "model: 4 of 4 words wrong, empty output",
        "REF: clip of 6 seconds",
        "HYP: **** ** * *******",
        "     D    D  D D",
        "",
        "clips/0.wav (1.0 s, speaker a)",
        "model: 3 of 4 words wrong",
        "REF: clip of  1   seconds",
        "HYP: clip off one second",
        "          S   S   S",
    ]
    worst = report_of(run("--show-errors", "1", "--json"))["worst"]
    assert [one["file"] for one in worst] == ["clips/2.wav"]
    assert worst[0]["model"]["alignment"][0] == ["D", "clip", None]


# Resuming, and never mixing runs.


def test_an_interrupted_run_resumes(
    run: Run, models: tuple[Path, Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, whole = tmp_path / "killed", tmp_path / "whole"
    code = f"""
import os, signal
from baldwhisper_mlx.cli.main import main
from baldwhisper_mlx.evaluation import hypotheses, inference
transcribe, left = inference.transcribe_clips, [3]
def killed(*args, **options):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    return transcribe(*args, **options)
inference.transcribe_clips = killed
import sys
sys.argv = ["baldwhisper", "evaluate", "--model", {str(models[0])!r}, "--data", {str(data)!r},
            "--language", "en", "--output", {str(output)!r}]
main()
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert sorted(path.name for path in output.iterdir()) == ["hypotheses.jsonl"]
    kept = (output / "hypotheses.jsonl").read_bytes()
    assert kept.count(b"\n") == 1 + 3
    with (output / "hypotheses.jsonl").open("ab") as file:
        file.write(b'{"run": "torn in the middle')

    calls = 0

    def counted(*args: Any, **options: Any) -> list[Transcript]:
        nonlocal calls
        calls += 1
        return batched.transcribe_clips(*args, **options)

    monkeypatch.setattr(inference, "transcribe_clips", counted)
    result = run("--json", output=output)
    assert "3 clips already transcribed" in result.stderr
    assert calls == len(SECONDS) - 3
    assert (output / "hypotheses.jsonl").read_bytes().startswith(kept)
    assert len(lines(output / "hypotheses.jsonl")) == 1 + len(SECONDS)
    again = run("--json", output=output)
    assert calls == len(SECONDS) - 3
    assert again.stdout == result.stdout
    assert without_times(report_of(run("--json", output=whole))) == without_times(report_of(result))


@pytest.mark.parametrize(
    "change",
    [
        ("--without-timestamps",),
        ("--fallback",),
        ("--no-condition-on-previous-text",),
        ("--batch-size", "2"),
        ("--language", "fr"),
    ],
    ids=lambda change: change[0],
)
def test_other_options_transcribe_anew(
    model: FakeModel, run: Run, tmp_path: Path, change: tuple[str, ...]
) -> None:
    assert run(output=tmp_path).exit_code == 0
    refused = run(*change, output=tmp_path)
    assert refused.exit_code == 1
    assert "report.json: a report on other models, data or options" in refused.stderr
    assert len(model.batches) == len(SECONDS)
    done = run(*change, "--force", output=tmp_path)
    assert "already transcribed" not in done.stderr
    assert sum(model.batches) == 2 * len(SECONDS)
    # And the first ones are still there.
    again = run("--force", output=tmp_path)
    assert f"{len(SECONDS)} clips already transcribed" in again.stderr


def test_another_model_transcribes_anew(
    model: FakeModel, run: Run, models: tuple[Path, Path], tmp_path: Path
) -> None:
    run(output=tmp_path)
    result = run("--force", model=models[1], output=tmp_path)
    assert "already transcribed" not in result.stderr
    assert sum(model.batches) == 2 * len(SECONDS)
    renamed = tmp_path / "renamed"
    renamed.symlink_to(models[0])
    result = run("--force", model=renamed, output=tmp_path)
    assert f"renamed: {len(SECONDS)} clips already transcribed" in result.stderr


def test_another_normalizer_or_baseline_transcribes_nothing_twice(
    model: FakeModel, run: Run, models: tuple[Path, Path], tmp_path: Path
) -> None:
    run(output=tmp_path)
    run("--force", output=tmp_path, normalizer="none")
    assert len(model.batches) == len(SECONDS)
    run("--force", output=tmp_path, baseline=models[1])
    assert len(model.batches) == 2 * len(SECONDS)


def test_changed_audio_is_transcribed_anew(model: FakeModel, run: Run, tmp_path: Path) -> None:
    speech, output = tmp_path / "speech", tmp_path / "out"
    speech.mkdir()
    rows = [{"file_name": f"{i}.wav", "text": "clip of 1 seconds"} for i in range(3)]
    write_rows(speech / "metadata.jsonl", rows)
    for i in range(3):
        soundfile.write(speech / f"{i}.wav", tone() * (i + 1) / 4, RATE)
    run(data=speech, output=output)
    assert len(model.batches) == 3
    soundfile.write(speech / "1.wav", tone(2), RATE)
    # The same audio under another name is the same audio.
    os.replace(speech / "0.wav", speech / "9.wav")
    write_rows(speech / "metadata.jsonl", [{**rows[0], "file_name": "9.wav"}, *rows[1:]])
    report = report_of(run("--json", data=speech, output=output))
    assert len(model.batches) == 4
    assert report["data"]["seconds"] == 4


def test_a_damaged_file_of_hypotheses_is_refused(
    model: FakeModel, run: Run, tmp_path: Path
) -> None:
    run(output=tmp_path)
    path = tmp_path / "hypotheses.jsonl"
    whole = path.read_text()
    for damage in ("{}\n", "no JSON\n", '{"run": "unknown", "audio": "x"}\n', "[1]\n"):
        path.write_text(damage + whole)
        result = run(output=tmp_path)
        assert result.exit_code == 1
        assert "hypotheses.jsonl: line 1 is " in result.stderr
        assert "move the file away to start over" in result.stderr


OLD_HYPOTHESES = (
    '{"run": "7fa06469c82ad859", "model": "student", "fingerprint": "0123456789abcdef", "options": '
    '{"language": "en", "without_timestamps": false, "condition_on_previous_text": true, '
    '"fallback": false, "batch_size": 1, "dtype": "float32", "device": "cpu", "mlx": "0.32.4", '
    '"baldwhisper_mlx": "0.1.0"}}\n'
    '{"run": "7fa06469c82ad859", "audio": "00ff", "file": "0.wav", "text": "clip", '
    '"language": "en", "duration": 1.0, "seconds": 0.5}\n'
)
"""As earlier versions wrote it."""


def test_the_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "hypotheses.jsonl"
    path.write_text(OLD_HYPOTHESES)
    versions = {"dtype": "float32", "device": "cpu", "mlx": "0.32.4", "baldwhisper_mlx": "0.1.0"}
    options = inference.InferenceSettings(language="en").to_dict() | versions
    same = hypotheses.Run("renamed", "0123456789abcdef", options)
    (hypothesis,) = hypotheses.Hypotheses(path).of(same).values()
    assert (hypothesis.audio, hypothesis.text, hypothesis.seconds) == ("00ff", "clip", 0.5)
    assert hypotheses.Hypotheses(path).of(replace(same, options=options | {"language": "fr"})) == {}
    # and what is written today has the same keys
    written = hypotheses.Hypotheses(tmp_path / "new.jsonl")
    written.add(hypotheses.Run("student", same.fingerprint, options), [hypothesis])
    assert (tmp_path / "new.jsonl").read_text() == OLD_HYPOTHESES


def test_beam_search_is_asked_for_and_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[int | None] = []

    def watched(samples: Any, loaded: Any, **named: Any) -> list[Transcript]:
        asked.append(named["options"].attempts[0].beam_size)
        return batched.transcribe_clips(samples, loaded, **named)

    monkeypatch.setattr(inference, "transcribe_clips", watched)
    greedy = report_of(run("--json", output=tmp_path))
    assert set(asked) == {None}
    asked.clear()
    report = report_of(run("--json", "--beam-size", "3", "--force", output=tmp_path))
    assert set(asked) == {3}  # hypotheses of greedy decoding are not taken for those of beam search
    assert report["settings"]["beam_size"] == 3
    assert report["models"]["model"]["options"]["beam_size"] == 3
    assert "beam_size" not in greedy["settings"]
    asked.clear()
    assert report_of(run("--json", "--force", output=tmp_path))["settings"] == greedy["settings"]
    assert asked == []


def test_clips_are_transcribed_in_batches(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []

    def counted(samples: Any, loaded: Any, **options: Any) -> list[Transcript]:
        batches.append(len(samples))
        return batched.transcribe_clips(samples, loaded, **options)

    monkeypatch.setattr(inference, "transcribe_clips", counted)
    alone = report_of(run("--json"))
    assert batches == [1] * len(SECONDS)
    batches.clear()
    together = report_of(run("--json", "--batch-size", "4"))
    assert batches == [4, 2]
    for report in (alone, together):
        for settings in (report["settings"], report["models"]["model"]["options"]):
            del settings["batch_size"]
    assert without_times(alone) == without_times(together)


# Data.


def test_lists_and_columns(model: FakeModel, run: Run, data: Path, tmp_path: Path) -> None:
    path = data / "list.csv"
    path.write_text("path,sentence,who\nclips/0.wav,clip of 1 second,x\nclips/4.wav,clip,y\n")
    columns = {"text-column": "sentence", "speaker-column": "who"}
    report = report_of(run("--json", data=path, **columns))
    assert (report["data"]["utterances"], report["data"]["speakers"]) == (2, 2)
    assert report["models"]["model"]["wer"]["errors"] == 1 + 3
    assert report_of(run("--json", limit=2))["data"]["utterances"] == 2


def test_a_dataset_of_the_hub(
    model: FakeModel, run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    content = [{"bytes": (data / f"clips/{i}.wav").read_bytes(), "path": None} for i in range(3)]
    columns = {"sound": content, "text": ["clip of 1 seconds", "", "x"], "speaker_id": [1, 1, 2]}
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict(columns).to_parquet(tmp_path / "set" / "test-00000.parquet")
    result = run("--json", data=tmp_path / "set", **{"audio-column": "sound", "limit": 2})
    assert report_of(result)["data"]["utterances"] == 2
    output = tmp_path / "out"
    run(data=tmp_path / "set", output=output, **{"audio-column": "sound"})
    assert lines(output / "utterances.jsonl")[2]["file"] == f"{tmp_path / 'set'}, row 3"
    model.batches.clear()
    run(data=tmp_path / "set", output=output, **{"audio-column": "sound"})
    assert model.batches == []
    for limit in ({}, {"limit": 2}):
        stored, streamed = (
            run("--json", *how, data=tmp_path / "set", **{"audio-column": "sound"} | limit)
            for how in ([], ["--streaming"])
        )
        assert without_times(report_of(stored)) == without_times(report_of(streamed))


@pytest.mark.parametrize("output", [False, True])
def test_bad_audio_stops_the_run_or_is_left_out(
    model: FakeModel, run: Run, models: tuple[Path, Path], data: Path, tmp_path: Path, output: bool
) -> None:
    (tmp_path / "bad.wav").write_bytes(b"no audio at all")
    rows = [
        {"file_name": str(data / "clips/0.wav"), "text": "clip of 1 seconds"},
        {"file_name": "bad.wav", "text": "lost"},
    ]
    write_rows(tmp_path / "metadata.jsonl", rows)
    folder = {"output": tmp_path / "out"} if output else {}
    stopped = run(data=tmp_path, **folder)
    assert stopped.exit_code == 1
    assert "bad.wav" in stopped.stderr
    write_rows(tmp_path / "metadata.jsonl", [*rows, {"file_name": "gone.wav", "text": "lost"}])
    stopped = run(data=tmp_path, **folder)
    assert "1 of 3 clips not there, such as gone.wav; use --skip-bad" in stopped.stderr
    report = report_of(run("--json", "--skip-bad", data=tmp_path, baseline=models[1], **folder))
    assert report["data"]["utterances"] == 1
    assert [one["file"] for one in report["data"]["skipped"]] == ["bad.wav", "gone.wav"]
    assert "no such file" in report["data"]["skipped"][1]["reason"].lower()
    assert "2 rows that cannot be used" in run("--skip-bad", data=tmp_path).stdout


# What is refused, before anything is transcribed.


def refused(result: Result) -> str:
    assert result.exit_code == 1, result.stdout
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    return result.stderr


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], {}, "no clips in it"),
        (
            [{"file_name": "a.wav", "words": "x"}],
            {},
            "no column text, sentence, transcription, transcript or the like; it has file_name, wo",
        ),
        (
            [{"file_name": "a.wav", "text": "x"}],
            {"speaker-column": "who"},
            "no column 'who'; it has file_name, text",
        ),
        ([{"file_name": "a.wav", "text": None}], {}, "row 1: without text"),
        ([{"text": "x"}], {}, "no column 'audio', file_name, path, audio_filepath or similar"),
        ([{"text": "x", "path": None}], {}, "row 1: without audio"),
        ([{"file_name": "a.wav", "text": "x"}], {}, "1 of 1 clips not there, such as a.wav"),
    ],
)
def test_bad_rows(
    model: FakeModel,
    run: Run,
    tmp_path: Path,
    rows: list[dict[str, Any]],
    options: dict[str, str],
    message: str,
) -> None:
    write_rows(tmp_path / "metadata.jsonl", rows)
    assert message in refused(run(data=tmp_path, **options))
    assert model.batches == []


def test_nothing_there(run: Run, tmp_path: Path) -> None:
    assert "no such folder" in refused(run(data=tmp_path / "nowhere"))
    assert "no metadata.jsonl or metadata.csv" in refused(run(data=tmp_path))
    assert "no such folder" in refused(run(model=tmp_path / "no-model"))
    assert "no such folder" in refused(run(baseline=tmp_path / "no-model"))


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        ("jiwer", {}, 'jiwer: pip install "baldwhisper-mlx[evaluate]"'),
        ("bambara_normalizer", {"normalizer": "bambara"}, "pip install bambara-normalizer"),
        ("datasets", {"data": "owner/set"}, "pip install datasets"),
    ],
)
def test_missing_packages_are_named(
    run: Run, module: str, options: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert message in refused(run(**options))


def test_the_output_folder_has_to_be_one(model: FakeModel, run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is a file, not a folder" in refused(run(output=tmp_path / "file"))
    (tmp_path / "report.json").write_text("not a report")
    assert "a report on other models" in refused(run(output=tmp_path))
    assert (tmp_path / "report.json").read_text() == "not a report"
    assert model.batches == []


def test_unknown_languages_and_wrong_options(run: Run) -> None:
    assert "klingon" in refused(run(language="klingon"))
    for wrong in (("--batch-size", "0"), ("--normalizer", "french"), ("--show-errors", "-1")):
        assert run(*wrong).exit_code == 2
    assert CliRunner().invoke(cli, ["evaluate"]).exit_code == 2


def test_a_model_that_computes_nonsense_names_the_clip(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(*_: Any, **__: Any) -> list[Transcript]:
        raise FloatingPointError("the model produced NaN")

    monkeypatch.setattr(inference, "transcribe_clips", overflow)
    assert "clips/0.wav: the model produced NaN" in refused(run())


def test_skip_bad_leaves_out_every_kind_of_bad_row(
    model: FakeModel, run: Run, data: Path, tmp_path: Path
) -> None:
    good = {"file_name": str(data / "clips/0.wav"), "text": "clip of 1 seconds"}
    write_rows(tmp_path / "metadata.jsonl", [good, {"file_name": "a.wav"}, {"text": "x"}, good])
    with (tmp_path / "metadata.jsonl").open("a", encoding="utf-8") as file:
        file.write("no json\n")
    assert "row 2: without text; --skip-bad leaves such rows out" in refused(run(data=tmp_path))
    report = report_of(run("--json", "--skip-bad", data=tmp_path))
    assert report["data"]["utterances"] == 2
    found = [(one["file"].rpartition(", ")[2], one["reason"]) for one in report["data"]["skipped"]]
    assert [file.partition(" (")[0] for file, _ in found] == ["row 2", "row 3", "row 5"]
    reasons = [reason.rpartition(": ")[2] for _, reason in found]
    assert reasons == ["without text", "without audio", "not JSON"]
    said = run("--skip-bad", data=tmp_path).stderr.splitlines()
    assert said[0] == f"skipped: {tmp_path}, row 2: without text"
    assert [line.rpartition(": ")[2] for line in said] == reasons


def test_the_column_of_the_text_is_found_and_said(
    model: FakeModel, run: Run, data: Path, tmp_path: Path
) -> None:
    row = {"file_name": str(data / "clips/0.wav"), "sentence": "clip of 1 seconds"}
    write_rows(tmp_path / "metadata.jsonl", [row])
    found = run("--json", data=tmp_path)
    assert report_of(found)["settings"]["text_column"] == "sentence"
    assert "text from the column 'sentence'" in found.stderr
