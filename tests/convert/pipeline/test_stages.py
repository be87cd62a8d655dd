"""What single stages take from the data they are given."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from baldwhisper_convert.compression.factorize import FactorizeSettings
from baldwhisper_convert.data.prepared import SPEECH, Prepared
from baldwhisper_convert.data.speech import open_speech, sample
from baldwhisper_convert.data.texts import read_lines, text_fingerprint
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.pipeline.model import Model
from baldwhisper_convert.pipeline.recipe import StageRecipe
from baldwhisper_convert.pipeline.stages import describe, plan_manifest, run_factorize
from baldwhisper_convert.pipeline.training_stages import run_distill, run_finetune
from baldwhisper_convert.training.evaluation import Evaluator
from baldwhisper_convert.training.objectives import LossSettings, Transcription
from baldwhisper_convert.training.settings import LoraSettings, TrainingSettings
from tests.support.tiny_prepared import teacher_checkpoint, tiny_prepared

RARE = 7  # a byte token that no window has by itself


def edit_windows(folder: Path, change: Any) -> None:
    path = folder / "windows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(change(row)) + "\n" for row in rows))


def test_factorize_counts_the_tokens_of_windows_it_does_not_calibrate_on(tmp_path: Path) -> None:
    def repeat(row: dict[str, Any]) -> dict[str, Any]:
        first = row["number"] == 0
        return row | {"tokens": row["tokens"] if first else [RARE] * 40}

    tiny_prepared(tmp_path / "speech", 12, silence=0)
    edit_windows(tmp_path / "speech", repeat)
    speech = open_speech([str(tmp_path / "speech")])
    model = Model.of(teacher_checkpoint())
    settings = FactorizeSettings(rank=8, dense_rows=1)
    (student, metrics) = run_factorize(model, settings, speech, speech, count=1)
    assert metrics["calibration_positions"] < 40
    assert student.checkpoint.state["decoder.token_embedding.dense_ids"].tolist() == [RARE]


def test_factorize_counts_the_tokens_of_texts(tmp_path: Path) -> None:
    tiny_prepared(tmp_path / "speech", 12, silence=0)
    text = tmp_path / "text.jsonl"
    text.write_text(json.dumps({"text": "z" * 2000}) + "\n", "utf-8")
    model = Model.of(teacher_checkpoint())
    settings = FactorizeSettings(rank=8, dense_rows=1)
    kept = []
    for texts in ((), (text,)):
        speech = open_speech([str(tmp_path / "speech")], texts)
        student, _ = run_factorize(model, settings, speech, speech, count=1)
        kept += student.checkpoint.state["decoder.token_embedding.dense_ids"].tolist()
    prompts = Prompts.of(teacher_checkpoint(), speech.windows.language)
    assert kept[1] in prompts.tokenizer.encode("zzzz")
    assert kept[0] not in prompts.tokenizer.encode("zzzz")
    assert speech.fingerprints["text.jsonl"] == text_fingerprint(text)


def test_a_share_of_the_start_is_in_the_result(tmp_path: Path) -> None:
    tiny_prepared(tmp_path / "speech", 12, silence=0)
    speech = open_speech([str(tmp_path / "speech")])
    start = teacher_checkpoint()
    found = {}
    for share in (0.0, 0.25):
        settings = TrainingSettings(epochs=1, batch_size=4, learning_rate=1e-2, start_share=share)
        model, metrics = run_finetune(
            Model.of(start), settings, speech, speech, tmp_path / f"run {share}"
        )
        found[share] = model.checkpoint.state, metrics
    (trained, end), (mixed, mixed_end) = found[0.0], found[0.25]
    changed = 0
    for name, weight in mixed.items():
        expected = 0.25 * start.state[name].float() + 0.75 * trained[name].float()
        torch.testing.assert_close(weight.float(), expected)
        changed += not torch.equal(weight, trained[name])
    assert changed > 10
    assert mixed_end["ce"] != end["ce"]  # measured on what is saved


def test_adapters_are_part_of_the_weights_of_the_result(tmp_path: Path) -> None:
    """What was evaluated is what is saved, a plain model; half of the start may be added to it."""
    tiny_prepared(tmp_path / "speech", 12, silence=0)
    speech = open_speech([str(tmp_path / "speech")])
    start = teacher_checkpoint()
    lora = LoraSettings(rank=2, targets=("decoder.*.query",))
    found = []
    for share in (0.0, 0.5):
        settings = TrainingSettings(
            epochs=1, batch_size=4, learning_rate=1e-1, lora=lora, start_share=share
        )
        model, metrics = run_finetune(
            Model.of(start), settings, speech, speech, tmp_path / f"run {share}"
        )
        found.append(model.checkpoint.state)
        evaluator = Evaluator(
            speech.windows, Prompts.of(start, speech.windows.language), Transcription()
        )
        measured = evaluator(Whisper.from_checkpoint(model.checkpoint))
        assert measured["ce"] == pytest.approx(metrics["ce"], rel=1e-4)
    trained, mixed = found
    assert trained.keys() == start.state.keys()
    changed = {name for name in trained if not torch.equal(trained[name], start.state[name])}
    assert changed
    assert all(name.startswith("decoder.") and ".query." in name for name in changed)
    for name in changed:
        expected = 0.5 * (start.state[name] + trained[name])
        torch.testing.assert_close(mixed[name], expected)


def test_the_languages_of_the_data_are_recorded(tmp_path: Path) -> None:
    names = {}
    for language in ("fr", "ln"):
        tiny_prepared(tmp_path / language, 4, silence=0, language=language)
        names[language] = str(tmp_path / language)
    speech = open_speech(list(names.values()))
    start = dataclasses.replace(teacher_checkpoint(), languages=("en",))
    settings = TrainingSettings(epochs=1, batch_size=4)
    model, metrics = run_finetune(Model.of(start), settings, speech, speech, tmp_path / "run")
    assert model.checkpoint.languages == ("en", "fr", "ln")
    assert {"wer", "wer_fr", "wer_ln"} <= metrics.keys()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"txt": "y"}\n', 'line 2 has no "text"'),
        ("a.jsonl", b'{"text": 3}\n', 'line 1 has no "text"'),
        ("a.jsonl", b"[1]\n", 'line 1 has no "text"'),
        ("a.jsonl", b"{\n", 'line 1 has no "text"'),
        ("a.txt", b"\xff\xfe\n", "not UTF-8"),
    ],
)
def test_bad_texts_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(read_lines(path))


def test_texts_are_lines_without_the_empty_ones(tmp_path: Path) -> None:
    plain, rows = tmp_path / "a.txt", tmp_path / "a.jsonl"
    plain.write_text("one \n\n two\n", "utf-8")
    rows.write_text('{"text": "one "}\n\n{"text": " two", "source": "x"}\n', "utf-8")
    assert list(read_lines(plain)) == list(read_lines(rows)) == ["one", "two"]


def test_a_factorized_student_is_factorized_again_only_with_a_teacher(tmp_path: Path) -> None:
    tiny_prepared(tmp_path / "speech", 12, silence=0)
    speech = open_speech([str(tmp_path / "speech")])
    teacher = teacher_checkpoint()
    few, more = (FactorizeSettings(rank=8, dense_rows=rows) for rows in (1, 5))
    student, _ = run_factorize(Model.of(teacher), few, speech, speech)
    with pytest.raises(ValueError, match="give the teacher"):
        run_factorize(student, more, speech, speech)
    again, _ = run_factorize(student, more, speech, speech, teacher=teacher)
    assert again.checkpoint.embedding.dense_rows == 5

    stage = StageRecipe(stage="factorize", factorize=more, data=("speech",))
    for model, taught in ((student, True), (Model.of(teacher), False)):
        manifest = plan_manifest(stage, model, teacher, speech, None)
        assert (manifest.teacher is not None) == taught


def test_samples_are_spread_and_have_timestamps_only_if_asked(tmp_path: Path) -> None:
    data = tiny_prepared(tmp_path / "speech", 40)
    spoken = sum(window.kind == SPEECH for window in Prepared(tmp_path / "speech").windows)
    prompts = Prompts.of(teacher_checkpoint(), data.language)
    begin = prompts.tokenizer.timestamp_begin

    def with_times(share: float) -> int:
        batches = sample(data, prompts, 100, timestamps=share)
        assert sum(len(batch.tokens) for batch in batches) == spoken
        return sum(bool((row >= begin).any()) for batch in batches for row in batch.tokens)

    assert with_times(0.0) == 0
    assert 0 < with_times(0.5) < spoken
    assert with_times(1.0) == spoken


def test_folders_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    """So that a stage whose second data has changed is not taken for done."""
    for number, name in enumerate(("one/set", "two/set", "three/set"), start=3):
        tiny_prepared(tmp_path / name, number, silence=0)
    data = [str(tmp_path / name) for name in ("one/set", "two/set:0.5", "one/set")]
    speech, dev = open_speech(data), open_speech([str(tmp_path / "three/set")])
    one, two, three = (
        Prepared(tmp_path / name).fingerprint for name in ("one/set", "two/set", "three/set")
    )
    assert speech.fingerprints == {"set": one, "set (2)": two}
    stage = StageRecipe(stage="finetune", data=tuple(data), training=TrainingSettings())
    model = Model.of(teacher_checkpoint())
    manifest = plan_manifest(stage, model, None, speech, dev)
    assert manifest.data == {"set": one, "set (2)": two, "set (3)": three}
    same = plan_manifest(stage, model, None, dev, dev)
    assert same.data == {"set": three}


@pytest.mark.parametrize(
    ("settings", "with_dev", "message"),
    [
        ({"patience": 2, "evaluate_every": 1}, False, "evaluate_every needs development data"),
        ({"patience": 2}, False, "patience needs development data"),
        ({"patience": 2}, True, "patience needs evaluate_every"),
    ],
)
def test_settings_of_evaluations_that_would_do_nothing_are_refused(
    settings: dict[str, Any], with_dev: bool, message: str, tmp_path: Path
) -> None:
    tiny_prepared(tmp_path / "speech", 4, silence=0)
    speech = open_speech([str(tmp_path / "speech")])
    training = TrainingSettings(epochs=1, batch_size=2, **settings)
    with pytest.raises(ValueError, match=message):
        run_finetune(
            Model.of(teacher_checkpoint()), training, speech, speech if with_dev else None,
            tmp_path / "run",
        )  # fmt: skip


def test_an_early_end_is_said(tmp_path: Path) -> None:
    tiny_prepared(tmp_path / "speech", 4, silence=0)
    speech = open_speech([str(tmp_path / "speech")])
    training = TrainingSettings(
        epochs=50, batch_size=4, learning_rate=1e-9, evaluate_every=1, patience=2
    )
    _, metrics = run_finetune(
        Model.of(teacher_checkpoint()), training, speech, speech, tmp_path / "run"
    )
    assert metrics["steps"] < 50
    assert "ended_early 2 evaluations without a better result" in describe(metrics)


def test_a_training_of_the_encoder_that_had_ended_is_mixed_with_its_start(tmp_path: Path) -> None:
    """After an interruption between the training and its stage, which froze nothing again."""
    tiny_prepared(tmp_path / "speech", 8, mel=True)
    speech = open_speech([str(tmp_path / "speech")])
    training = TrainingSettings(
        epochs=1, batch_size=4, freeze=("decoder.*",), start_share=0.5, evaluate_every=1
    )
    loss = LossSettings(ce=0.0, kl=0.0, encoder=1.0)
    start = Model.of(teacher_checkpoint())
    first, again = (
        run_distill(start, teacher_checkpoint(), training, loss, speech, speech, tmp_path / "run")[
            0
        ].checkpoint.state
        for _ in range(2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
