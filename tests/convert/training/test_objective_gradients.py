"""What distillation computes once for teacher and student, and where its gradients arrive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from baldwhisper_convert.data.batches import Batch
from baldwhisper_convert.data.prepared import Prepared
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training import sharing
from baldwhisper_convert.training.objectives import Distillation
from tests.support.tiny_objectives import ALL, batch_of, grown, learn, number, only
from tests.support.tiny_prepared import GROUPS, tiny_prepared, tiny_student


@pytest.fixture(scope="module")
def mel_data(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return tiny_prepared(tmp_path_factory.mktemp("mel") / "data", 4, mel=True)


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """Five windows of encoder states."""
    return batch_of(tiny_prepared(tmp_path_factory.mktemp("states") / "data", 5))


@pytest.fixture
def projected(monkeypatch: pytest.MonkeyPatch, student: Whisper) -> list[list[int]]:
    """The student's layers whose keys and values were computed, call by call."""
    calls: list[list[int]] = []
    original = student.decoder.project_audio

    def project_audio(audio: Tensor, layers: Sequence[int] | None = None) -> Any:
        calls.append(list(range(2)) if layers is None else list(layers))
        return original(audio, layers)

    monkeypatch.setattr(student.decoder, "project_audio", project_audio)
    return calls


def freeze_cross_attention(student: Whisper) -> None:
    for name, parameter in student.named_parameters():
        frozen = "cross_attn.key" in name or "cross_attn.value" in name
        parameter.requires_grad_(not frozen and not name.startswith("encoder."))


def no_sharing(objective: Distillation, monkeypatch: pytest.MonkeyPatch) -> None:
    objective._known.clear()
    monkeypatch.setattr(sharing, "_twin", lambda *_: None)


def gradients(student: Whisper) -> dict[str, Tensor]:
    found = {n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None}
    student.zero_grad()
    return found


def test_shared_keys_and_values_change_nothing(
    teacher: Whisper,
    student: Whisper,
    batch: Batch,
    projected: list[list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    freeze_cross_attention(student)
    objective = Distillation(teacher, GROUPS, ALL)
    shared, shared_gradients = learn(objective, student, batch), gradients(student)
    no_sharing(objective, monkeypatch)
    computed, computed_gradients = learn(objective, student, batch), gradients(student)
    assert projected == [[], [0, 1]]
    for name, value in shared.losses.items():
        torch.testing.assert_close(value, computed.losses[name])
    torch.testing.assert_close(shared_gradients, computed_gradients)


@pytest.mark.parametrize("change", ["trainable", "different"])
def test_keys_and_values_that_may_differ_are_computed(
    teacher: Whisper, student: Whisper, batch: Batch, projected: list[list[int]], change: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    freeze_cross_attention(student)
    weight = student.decoder.blocks[1].cross_attn.value.weight
    if change == "trainable":
        weight.requires_grad_()
    else:
        weight.data += 0.3
    objective = Distillation(teacher, GROUPS, ALL)
    found = learn(objective, student, batch)
    assert projected == [[1]]
    assert (weight.grad is not None) == (change == "trainable")
    no_sharing(objective, monkeypatch)
    for name, value in objective(student, batch).losses.items():
        torch.testing.assert_close(value, found.losses[name])


def test_a_trainable_encoder_gets_gradients(
    teacher: Whisper, student: Whisper, mel_data: Prepared
) -> None:
    objective = Distillation(teacher, GROUPS, ALL)
    learn(objective, student, batch_of(mel_data, range(4)))
    names = {name for name, _ in student.named_parameters()}
    assert grown(student) == names
    # Also through keys and values whose own weights are frozen.
    student.zero_grad()
    freeze_cross_attention(student)
    student.encoder.requires_grad_()
    learn(objective, student, batch_of(mel_data, range(4)))
    assert grown(student) == {n for n, p in student.named_parameters() if p.requires_grad} < names


def test_a_frozen_encoder_gets_none_and_is_run_once(
    teacher: Whisper, student: Whisper, mel_data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batch_of(mel_data, range(4))
    objective = Distillation(teacher, GROUPS, ALL)
    trained = learn(objective, student, batch)
    student.zero_grad()
    student.encoder.requires_grad_(False)

    def forward(*_: Any) -> None:
        raise AssertionError("the student's encoder was run")

    monkeypatch.setattr(student.encoder, "forward", forward)
    frozen = learn(objective, student, batch)
    assert all(name.startswith("decoder.") for name in grown(student))
    for name, value in frozen.losses.items():
        torch.testing.assert_close(value, trained.losses[name])


def test_a_frozen_encoder_of_its_own_is_used(
    teacher: Whisper, student: Whisper, mel_data: Prepared
) -> None:
    # An encoder that an earlier stage trained, and this one freezes.
    student.encoder.ln_post.weight.data += 0.5
    batch, objective = batch_of(mel_data, range(4)), Distillation(teacher, GROUPS, ALL)
    trained = objective(student, batch)
    freeze_cross_attention(student)
    assert not any(p.requires_grad for p in student.encoder.parameters())
    frozen = objective(student, batch)
    for name, value in frozen.losses.items():
        torch.testing.assert_close(value, trained.losses[name])
    # It is not the teacher's.
    student.encoder.load_state_dict(teacher.encoder.state_dict())
    assert number(objective(student, batch).losses["kl"]) != pytest.approx(
        number(frozen.losses["kl"]), rel=1e-3
    )


def test_prepared_states_are_of_the_teachers_encoder(
    teacher: Whisper, student: Whisper, batch: Batch
) -> None:
    student.encoder.ln_post.weight.data += 0.5
    with pytest.raises(ValueError, match="another encoder; prepare the data with"):
        Distillation(teacher, GROUPS, ALL)(student, batch)


FORMS = {
    "tied": {"rank": 8},
    "untied": {"rank": 8, "separate": True},
    "hybrid": {"rank": 8, "separate": True, "mean": True, "dense_rows": 300},
}


def embedding_gradients(
    teacher: Whisper, batch: Batch, form: dict[str, Any], **weights: float
) -> dict[str, Tensor]:
    """Gradients of a factorized student's embedding; its blocks pass none on."""
    student = tiny_student(**form)
    student.requires_grad_(False)
    student.decoder.token_embedding.requires_grad_()
    # Without the way through the blocks, a term reaches only the use it is about.
    student.decoder.ln.weight.requires_grad_(False)
    objective = Distillation(teacher, GROUPS, only(**weights))
    learn(objective, student, batch)
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in student.decoder.token_embedding.named_parameters()
    }


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_embedding_term_teaches_the_tokens_that_occur(
    teacher: Whisper, batch: Batch, form: dict[str, Any]
) -> None:
    found = embedding_gradients(teacher, batch, form, embedding=1.0)
    occur = set(batch.tokens[batch.mask].tolist())
    student = tiny_student(**form)
    dense = set()
    if "dense_rows" in found:
        ids = student.decoder.token_embedding.dense_ids.tolist()
        dense = {token for token in occur if token in ids}
        taught = found["dense_rows"].any(-1).nonzero()[:, 0].tolist()
        assert {ids[row] for row in taught} == dense
    assert dense or "dense_rows" not in found
    assert set(found["factors"].any(-1).nonzero()[:, 0].tolist()) == occur - dense
    assert bool(found["input_projection"].any())
    if "output_projection" in found:
        assert not bool(found["output_projection"].any())


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("term", ["projection", "kl", "ce"])
def test_output_terms_teach_every_row(
    teacher: Whisper, batch: Batch, form: dict[str, Any], term: str
) -> None:
    found = embedding_gradients(teacher, batch, form, **{term: 1.0})
    expected = torch.ones(len(found["factors"]), dtype=torch.bool)
    if "dense_rows" in found:
        ids = tiny_student(**form).decoder.token_embedding.dense_ids
        expected[ids] = False
        assert bool(found["dense_rows"].any(-1).all())
    assert torch.equal(found["factors"].any(-1), expected)
    assert all(bool(gradient.any()) for gradient in found.values())


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_tied_factors_get_the_gradients_of_both_uses(
    teacher: Whisper, batch: Batch, form: dict[str, Any]
) -> None:
    both = embedding_gradients(teacher, batch, form, embedding=0.7, projection=0.3)
    parts = [
        embedding_gradients(teacher, batch, form, embedding=0.7),
        embedding_gradients(teacher, batch, form, projection=0.3),
    ]
    for name, gradient in both.items():
        torch.testing.assert_close(gradient, parts[0][name] + parts[1][name])
    assert not torch.allclose(parts[0]["factors"], both["factors"])
