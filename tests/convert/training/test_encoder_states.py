"""Teaching a lighter encoder by the teacher's states: the terms, and trainings without text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from baldwhisper_convert.data.prepared import Prepared
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training.evaluation import Evaluator
from baldwhisper_convert.training.losses import relative_error
from baldwhisper_convert.training.objectives import Distillation, LossSettings, Transcription
from baldwhisper_convert.training.sharing import shared_blocks
from tests.support.tiny_encoders import (
    DECODER_GROUPS,
    GROUPS,
    STATES_ONLY,
    encoder_student,
    encoder_teacher,
    objective,
    run_encoder,
)
from tests.support.tiny_objectives import batch_of, grown, learn, number
from tests.support.tiny_prepared import tiny_prepared, tiny_prompts
from tests.support.tiny_runs import STEPS_BETWEEN, Watched, lean, losses, tick


@pytest.fixture(autouse=True)
def _lean(monkeypatch: pytest.MonkeyPatch) -> None:
    lean(monkeypatch.setattr)


@pytest.fixture(scope="module")
def mel(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return tiny_prepared(tmp_path_factory.mktemp("mel") / "data", 16, mel=True)


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The same windows without text."""
    return tiny_prepared(tmp_path_factory.mktemp("audio") / "data", 16, mel=True, text=False)


@pytest.fixture
def student() -> Whisper:
    return freeze(Whisper.from_checkpoint(encoder_student()), "decoder.")


@pytest.fixture
def teacher() -> Whisper:
    return Whisper.from_checkpoint(encoder_teacher())


def freeze(model: Whisper, *prefixes: str) -> Whisper:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(prefixes))
    return model


FIRST = ("decoder.", "encoder.conv", "encoder.blocks.0.")
"""All that the student has in common with its teacher."""


@torch.no_grad()
def twin(teacher: Whisper, student: Whisper, data: Prepared, windows: int) -> dict[str, float]:
    """The sums of the terms, window by window, without padding."""
    sums = {"encoder_layers": 0.0, "encoder_states": 0.0}
    for index in range(windows):
        features = data.features(index)[None]
        outputs = []
        for model in (teacher, student):
            x = model.encoder.embed(features)
            layers = []
            for block in model.encoder.blocks:
                x = block(x)
                layers.append(x[0])
            outputs.append((layers, model.encoder(features)[0]))
        (taught, final), (own, own_final) = outputs
        for layer, last in zip(own, (0, 2, 3), strict=True):
            sums["encoder_layers"] += number(relative_error(layer, taught[last]).sum()) / 3
        sums["encoder_states"] += number(relative_error(own_final, final).sum())
    return sums


def test_terms_are_sums_over_single_windows(
    teacher: Whisper, student: Whisper, mel: Prepared
) -> None:
    batch = batch_of(mel)
    assert len({int(length) for length in batch.lengths}) > 2
    terms = objective()(student, batch)
    assert terms.losses == {}
    found = {name: number(value) for name, value in terms.audio.items()}
    assert found == pytest.approx(twin(teacher, student, mel, 5), rel=1e-4)
    assert found["encoder_states"] / batch.audio_positions > 0.01
    double = objective(LossSettings(ce=0, kl=0, encoder=2.0))(student, batch)
    for name, value in found.items():
        assert number(double.audio[name]) == pytest.approx(2 * value)


def test_an_identical_encoder_has_nothing_to_learn(teacher: Whisper, mel: Prepared) -> None:
    own = freeze(Whisper.from_checkpoint(encoder_teacher()), "decoder.")
    terms = Distillation(teacher, DECODER_GROUPS, STATES_ONLY)(own, batch_of(mel))
    assert [number(value) for value in terms.audio.values()] == [0, 0]


def test_neither_decoder_runs_if_no_term_needs_it(
    student: Whisper, audio: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the decoder ran")

    states_only = objective()
    for model in (student, states_only.teacher):
        monkeypatch.setattr(model.decoder, "forward", refuse)
        monkeypatch.setattr(model.decoder, "project_audio", refuse)
    assert not states_only.needs_text
    terms = learn_audio(states_only, student, batch_of(audio))
    assert set(terms) == {"encoder_layers", "encoder_states"}
    learned = grown(student)
    assert learned
    assert all(name.startswith("encoder.") for name in learned)


def learn_audio(taught: Distillation, student: Whisper, batch: Any) -> dict[str, torch.Tensor]:
    """The audio terms, and gradients in the student."""
    terms: dict[str, torch.Tensor] = taught(student, batch).audio
    torch.stack(list(terms.values())).sum().backward()
    return terms


def test_shared_layers_run_once_and_change_nothing(student: Whisper, mel: Prepared) -> None:
    batch = batch_of(mel)
    slow = learn_audio(objective(), student, batch)
    whole = {n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None}
    student.zero_grad()
    freeze(student, *FIRST)
    calls: list[int] = []
    for i, block in enumerate(student.encoder.blocks):
        block.register_forward_hook(lambda *_, i=i: calls.append(i))
    taught = objective()
    fast = learn_audio(taught, student, batch)
    assert calls == [1, 2]
    for name, value in slow.items():
        torch.testing.assert_close(fast[name], value)
    for name, parameter in student.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, whole[name])


def test_which_layers_are_shared(student: Whisper, teacher: Whisper) -> None:
    def shared() -> int | None:
        return shared_blocks(student.encoder, teacher.encoder)

    assert shared() is None  # the convolutions are trained
    freeze(student, "decoder.", "encoder.conv")
    assert shared() == 0
    freeze(student, *FIRST)
    assert shared() == 1
    freeze(student, "")
    assert shared() == 1  # the second one is another layer of the teacher
    student.encoder.conv2.bias.data += 1
    assert shared() is None


def test_other_terms_are_those_of_the_decoders_on_their_own_states(
    teacher: Whisper, student: Whisper, mel: Prepared
) -> None:
    batch = batch_of(mel)
    both = objective(LossSettings(kl=1.0, ce=0.3, encoder=1.0))(student, batch)
    alone = objective(LossSettings(kl=1.0, ce=0.3))(student, batch)
    assert alone.audio == {}
    assert {n: number(v) for n, v in both.losses.items()} == {
        n: number(v) for n, v in alone.losses.items()
    }
    with torch.no_grad():
        states, mask = batch.encode(teacher)
        wanted = teacher.logits(teacher.decoder(batch.tokens, states, mask))[batch.mask]
        states, mask = batch.encode(student)
        own = teacher.logits(teacher.decoder(batch.tokens, states, mask))[batch.mask]
    expected = (wanted.argmax(-1) == own.argmax(-1)).sum()
    assert both.metrics == {"agreement": int(expected)}
    learn(objective(LossSettings(kl=1.0, ce=0)), student, batch)
    assert any(name.startswith("encoder.blocks.0.") for name in grown(student))


def test_a_training_without_text_lowers_the_error(tmp_path: Path, audio: Prepared) -> None:
    taught = objective()
    evaluator = Evaluator(audio, tiny_prompts(), taught)
    before = evaluator(freeze(Whisper.from_checkpoint(encoder_student()), "decoder."))
    assert before["score"] == pytest.approx(before["encoder_layers"] + before["encoder_states"])
    student, results = run_encoder(tmp_path, audio, epochs=20, evaluate=Evaluator(
        audio, tiny_prompts(), objective()
    ))  # fmt: skip
    assert results["score"] < 0.6 * before["score"]
    assert results["encoder_states"] < 0.6 * before["encoder_states"]
    after, start = student.state_dict(), encoder_student().state
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, start[name])}
    assert moved
    assert all(name.startswith("encoder.") for name in moved)
    rows = losses(tmp_path)
    row = rows[0]
    assert row["loss"] == pytest.approx(row["encoder_layers"] + row["encoder_states"], rel=1e-4)


def test_two_batches_a_step_are_as_one(tmp_path: Path, audio: Prepared) -> None:
    for parts in (1, 2):
        run_encoder(tmp_path / str(parts), audio, epochs=2, accumulate=parts, learning_rate=1e-3)
    one, two = (losses(tmp_path / str(parts)) for parts in (1, 2))
    assert len(one) == len(two) == 8
    for a, b in zip(one, two, strict=True):
        assert b == pytest.approx(a, rel=1e-3, abs=1e-6)


def test_an_interrupted_training_resumes(
    tmp_path: Path, audio: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run_encoder(tmp_path / "whole", audio, epochs=3)
    tick(monkeypatch.setattr)

    def interrupt(reads: int) -> None:
        if reads == 22:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"epochs": 3, "checkpoint_minutes": STEPS_BETWEEN}
    with pytest.raises(KeyboardInterrupt):
        run_encoder(tmp_path / "cut", Watched(audio, interrupt), **options)
    assert (tmp_path / "cut/checkpoint").is_dir()
    resumed, _ = run_encoder(tmp_path / "cut", audio, **options)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    expected = whole.state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in resumed.state_dict().items())


def test_what_needs_text_is_refused_without_it(tmp_path: Path, audio: Prepared) -> None:
    with pytest.raises(ValueError, match='labels = "none"'):
        run_encoder(tmp_path, audio, loss=LossSettings(encoder=1.0))
    assert Transcription.needs_text
    with pytest.raises(ValueError, match="nothing to score"):
        Evaluator(audio, tiny_prompts())(Whisper.from_checkpoint(encoder_student()))


@pytest.mark.parametrize(
    ("freeze", "loss", "message"),
    [
        (("encoder.*",), LossSettings(encoder=1.0), "all of it is frozen"),
        ((), STATES_ONLY, r"teaches the decoder nothing; add decoder\.\*"),
    ],
)
def test_parameters_that_nothing_teaches_are_refused(
    tmp_path: Path, mel: Prepared, freeze: tuple[str, ...], loss: LossSettings, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run_encoder(tmp_path, mel, loss=loss, freeze=freeze)


def test_states_of_the_teacher_cannot_teach_another_encoder(tmp_path: Path) -> None:
    states = tiny_prepared(tmp_path / "states", 8)
    with pytest.raises(ValueError, match='features = "mel"'):
        run_encoder(tmp_path / "run", states)


def test_groups_must_fit_the_teacher(teacher: Whisper) -> None:
    with pytest.raises(ValueError, match=r"encoder layers replace .* teacher has 4"):
        Distillation(teacher, DECODER_GROUPS, STATES_ONLY, (*GROUPS, (4,)))


def test_groups_must_fit_the_student(teacher: Whisper, student: Whisper, mel: Prepared) -> None:
    taught = Distillation(teacher, DECODER_GROUPS, STATES_ONLY)
    with pytest.raises(ValueError, match="the student has 3 encoder layers, but its groups"):
        taught(student, batch_of(mel))
