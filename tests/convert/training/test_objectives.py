"""The distillation objective: what is compared with what, at which positions, and what learns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from baldwhisper_convert.data.batches import IGNORED, Batch, Mix, collate
from baldwhisper_convert.data.prepared import SILENCE, Prepared
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training.loop import Learner
from baldwhisper_convert.training.losses import (
    cross_entropy,
    feature_distance,
    kl_divergence,
    relative_error,
)
from baldwhisper_convert.training.objectives import Distillation, LossSettings, Transcription
from tests.support.tiny_objectives import ALL, batch_of, grown, learn, number, only
from tests.support.tiny_prepared import (
    GROUPS,
    tiny_prepared,
    tiny_prompts,
    tiny_teacher,
)

TEACHERS_OWN = ((0,), (1,), (2,))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return tiny_prepared(tmp_path_factory.mktemp("states") / "data", 10)


@pytest.fixture
def batch(data: Prepared) -> Batch:
    """Five windows: the third may have a prompt, the last is silent."""
    assert [window.kind == SILENCE for window in data.windows[:5]] == [False] * 4 + [True]
    return batch_of(data)


def test_an_identical_student_has_nothing_to_learn(teacher: Whisper, batch: Batch) -> None:
    terms = Distillation(teacher, TEACHERS_OWN, replace(ALL, ce=0))(tiny_teacher(), batch)
    flat = terms.positions * math.log(1 + math.exp(-1))
    assert terms.positions == int(batch.mask.sum()) > 50
    assert number(terms.losses["kl"]) == pytest.approx(0, abs=1e-4)
    assert number(terms.losses["hidden"]) == 0
    assert number(terms.losses["embedding"]) == pytest.approx(0.3 * flat)
    assert number(terms.losses["projection"]) == pytest.approx(0.4 * flat)
    assert terms.metrics == {"agreement": terms.positions}


def twin(teacher: Whisper, student: Whisper, batch: Batch) -> dict[str, float]:
    """The sums of `ALL`, one window and one position at a time, without padding or masks."""
    sums = dict.fromkeys(("ce", "kl", "embedding", "projection", "hidden"), 0.0)
    for row in range(len(batch.tokens)):
        audio = batch.features[row : row + 1, : int(batch.lengths[row])]
        length = int(batch.mask[row].nonzero().max()) + 1
        tokens = batch.tokens[row : row + 1, :length]
        taught, own = teacher.decoder(tokens, audio), student.decoder(tokens, audio)
        wanted, logits = teacher.logits(taught)[0], student.logits(own)[0]
        for at in range(length):
            if not batch.mask[row, at]:
                continue
            one = slice(at, at + 1)
            target = batch.targets[row, one]
            if int(target) != IGNORED:
                sums["ce"] += 0.2 * number(cross_entropy(logits[one], target))
            sums["kl"] += number(kl_divergence(wanted[one], logits[one], 1.5))
            pair = taught.embedded[0, one], own.embedded[0, one]
            sums["embedding"] += 0.3 * number(feature_distance(*pair))
            a, b = (x[one] - x[one].mean() for x in (wanted, logits))
            sums["projection"] += 0.4 * number(feature_distance(a, b))
            for own_layer, taught_layer in ((0, 1), (1, 2)):
                error = relative_error(
                    own.layers[own_layer][0, one], taught.layers[taught_layer][0, one]
                )
                sums["hidden"] += 0.5 * number(error) / 2
    return sums


def test_terms_are_sums_over_single_positions(
    teacher: Whisper, student: Whisper, batch: Batch
) -> None:
    assert GROUPS == ((0, 1), (2,))
    found = Distillation(teacher, GROUPS, ALL)(student, batch).losses
    with torch.no_grad():
        expected = twin(teacher, student, batch)
    assert {name: number(value) for name, value in found.items()} == pytest.approx(
        expected, rel=1e-4
    )


@pytest.mark.parametrize("name", ["ce", "kl", "embedding", "projection", "hidden"])
def test_a_term_of_weight_0_is_not_there_and_others_scale(
    teacher: Whisper, student: Whisper, batch: Batch, name: str
) -> None:
    full = Distillation(teacher, GROUPS, ALL)(student, batch).losses
    less = Distillation(teacher, GROUPS, replace(ALL, **{name: 0.0}))(student, batch).losses
    assert less.keys() == full.keys() - {name}
    assert all(torch.equal(less[key], full[key]) for key in less)
    double = Distillation(teacher, GROUPS, only(**{name: 2.0}, temperature=1.5))
    torch.testing.assert_close(
        double(student, batch).losses[name], full[name] * 2 / getattr(ALL, name)
    )


def test_silence_counts_for_kl_and_not_for_ce(
    teacher: Whisper, student: Whisper, data: Any
) -> None:
    objective = Distillation(teacher, GROUPS, LossSettings())
    silent = objective(student, batch_of(data, [4]))
    assert silent.positions > 0
    assert number(silent.losses["ce"]) == 0
    assert number(silent.losses["kl"]) > 0.01
    learn(Distillation(teacher, GROUPS, only(ce=1.0)), student, batch_of(data, [4]))
    assert grown(student) == set()


def test_nothing_before_the_start_of_transcript_counts(
    teacher: Whisper, student: Whisper, data: Prepared
) -> None:
    prompted = collate(data, [2], tiny_prompts(), Mix(timestamps=0, prompts=1))
    bare = collate(data, [2], tiny_prompts(), Mix(timestamps=0, prompts=0))
    assert prompted.tokens.shape[1] > bare.tokens.shape[1]
    objective = Distillation(teacher, GROUPS, ALL)
    assert objective(student, prompted).positions == objective(student, bare).positions


@pytest.mark.parametrize(
    ("groups", "taught"),
    [(((0,), (1, 2)), (0, 2)), (((0, 1), (2,)), (1, 2)), (((0,), (1,)), (0, 1))],
)
def test_each_layer_is_taught_by_the_last_of_its_group(
    teacher: Whisper, student: Whisper, batch: Batch, groups: Any, taught: tuple[int, int]
) -> None:
    found = Distillation(teacher, groups, only(hidden=1.0))(student, batch).losses["hidden"]
    states, mask = batch.encode(teacher)
    with torch.no_grad():
        wanted = teacher.decoder(batch.tokens, states, mask).layers
        own = student.decoder(batch.tokens, states, mask).layers
    errors = [
        relative_error(a[batch.mask], wanted[i][batch.mask])
        for a, i in zip(own, taught, strict=True)
    ]
    torch.testing.assert_close(found, (errors[0] + errors[1]).sum() / 2)


def test_the_teacher_stays_as_it_is(teacher: Whisper, student: Whisper, batch: Batch) -> None:
    teacher.train()
    teacher.set_dropout(0.9)
    before = teacher.canonical_state()
    objective = Distillation(teacher, GROUPS, ALL)
    learner = Learner(student, objective).train()
    once, again = learner(batch).losses, learner(batch).losses
    assert all(torch.equal(once[name], again[name]) for name in once)
    learn(objective, student, batch)
    assert not teacher.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert [name for name, _ in objective.named_parameters()] == ["log_temperature"]
    assert student.training


def test_a_fixed_temperature_gets_no_gradient(
    teacher: Whisper, student: Whisper, batch: Batch
) -> None:
    objective = Distillation(teacher, GROUPS, LossSettings(temperature=0.2))
    learn(objective, student, batch)
    assert objective.log_temperature.grad is None
    assert float(objective.temperature) == pytest.approx(0.2)


def test_a_learned_temperature_gets_a_gradient_and_stays_in_bounds(
    teacher: Whisper, student: Whisper, batch: Batch
) -> None:
    objective = Distillation(teacher, GROUPS, LossSettings(learn_temperature=True, temperature=2.0))
    assert number(objective.temperature) == pytest.approx(2.0)
    for far, bound in ((50.0, 4.0), (-50.0, 0.5)):
        objective.log_temperature.data.fill_(far)
        objective.log_temperature.grad = None
        learn(objective, student, batch)
        assert number(objective.temperature) == pytest.approx(bound)
        # Also at the bound, or it would never leave it.
        assert float(objective.log_temperature.grad) != 0


def test_agreement_is_counted(teacher: Whisper, student: Whisper, batch: Batch) -> None:
    states, mask = batch.encode(teacher)
    choices = [
        model.logits(model.decoder(batch.tokens, states, mask)).argmax(-1)[batch.mask]
        for model in (teacher, student)
    ]
    expected = sum(a == b for a, b in zip(*(c.tolist() for c in choices), strict=True))
    found = Distillation(teacher, GROUPS, ALL)(student, batch)
    assert found.metrics == {"agreement": expected}
    assert 0 < expected < found.positions


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LossSettings(kl=-1.0), "negative"),
        (lambda: LossSettings(ce=0, kl=0), "at least one must be above 0"),
        (lambda: LossSettings(temperature=0.05), "0.1 to 10"),
        (lambda: LossSettings(temperature=5, learn_temperature=True), "0.5 to 4"),
        (lambda: Distillation(tiny_teacher(), ((0, 1), (2, 3)), ALL), "has 3"),
    ],
)
def test_settings_that_cannot_be(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_temperature_out_of_the_learned_bounds_may_be_fixed() -> None:
    assert LossSettings(temperature=0.1).temperature == 0.1
    assert LossSettings(temperature=8).temperature == 8


def test_fine_tuning_learns_that_silence_has_no_speech(student: Whisper, tmp_path: Path) -> None:
    data = tiny_prepared(tmp_path / "data", 5, mel=True)
    prompts = tiny_prompts()
    assert data.windows[4].kind == SILENCE
    batch = collate(data, [4], prompts, Mix(timestamps=0), label_silence=True)
    objective = Transcription()
    before = objective(student, batch)
    assert before.positions == int(batch.mask.sum())
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        objective(student, batch).losses["ce"].backward()
        optimizer.step()
    states, mask = batch.encode(student)
    chosen = student.logits(student.decoder(batch.tokens, states, mask))[0].argmax(-1)
    start = prompts.sot_sequence(timestamps=False)
    assert chosen[0] == prompts.tokenizer.no_speech
    assert chosen[len(start) - 1] == prompts.end
