"""Training settings, the learning rate's course, and which parameters learn."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import nn

from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training.settings import TrainingSettings, matches, parameter_groups, rate
from tests.support.tiny_prepared import tiny_student

shapes = st.builds(
    TrainingSettings,
    schedule=st.sampled_from(["cosine", "linear", "constant"]),
    warmup=st.floats(0, 0.9),
    late_start=st.floats(0, 0.9),
)


@pytest.fixture
def student() -> Whisper:
    return tiny_student(rank=8, separate=True, mean=True, dense_rows=10)


def names_of(model: Whisper, groups: list[dict[str, Any]], **wanted: Any) -> set[str]:
    """Names of the parameters in the groups that have the wanted values."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]
        for group in groups
        if all(group[key] == value for key, value in wanted.items())
        for parameter in group["params"]
        if id(parameter) in names
    }


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"epochs": math.nan},
        {"batch_size": 0},
        {"accumulate": -1},
        {"learning_rate": 0},
        {"clip": 0},
        {"checkpoint_minutes": 0},
        {"warmup": 1},
        {"dropout": 1.0},
        {"ema": 1},
        {"ema": -0.1},
        {"late_start": 1.5},
        {"weight_decay": -1},
        {"evaluate_every": -1},
        {"patience": -2},
        {"schedule": "square"},
        {"mixed_precision": "fp8"},
    ],
    ids=lambda change: ",".join(f"{k}={v}" for k, v in change.items()),
)
def test_a_value_out_of_range_is_named(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        TrainingSettings(**change)


def test_lists_of_patterns_become_tuples() -> None:
    lists: Any = {"freeze": ["encoder.*"], "late": ["decoder.ln.*"]}
    found = TrainingSettings(**lists)
    assert (found.freeze, found.late) == (("encoder.*",), ("decoder.ln.*",))


def test_patterns() -> None:
    name = "decoder.blocks.1.cross_attn.key.weight"
    assert matches(name, ["encoder.*", "*.cross_attn.key.*"])
    assert not matches(name, ["encoder.*", "decoder.blocks.0.*", "decoder.blocks"])
    assert not matches(name, [])


@hypothesis_settings(max_examples=100, deadline=None)
@given(shapes, st.integers(1, 300), st.booleans())
def test_the_rate_stays_between_0_and_1(settings: TrainingSettings, steps: int, late: bool) -> None:
    assert all(0 <= rate(step, steps, settings, late=late) <= 1 for step in range(steps + 1))


@hypothesis_settings(max_examples=100, deadline=None)
@given(shapes, st.integers(1, 300))
def test_the_rate_falls_after_the_warm_up(settings: TrainingSettings, steps: int) -> None:
    rates = [rate(step, steps, settings) for step in range(steps)]
    top = max(1, math.ceil(settings.warmup * steps)) - 1
    assert rates[0] > 0
    assert all(a >= b for a, b in pairwise(rates[top:]))


@hypothesis_settings(max_examples=100, deadline=None)
@given(st.floats(0, 0.9), st.integers(1, 300))
def test_warm_up_is_linear(warmup: float, steps: int) -> None:
    settings = TrainingSettings(schedule="constant", warmup=warmup)
    top = max(1, math.ceil(warmup * steps))
    rates = [rate(step, steps, settings) for step in range(steps)]
    assert rates == pytest.approx([min(1, (step + 1) / top) for step in range(steps)])


@pytest.mark.parametrize(("schedule", "end"), [("cosine", 0.0003), ("linear", 0.01)])
def test_the_rate_ends_near_0(schedule: Any, end: float) -> None:
    settings = TrainingSettings(schedule=schedule, warmup=0.1)
    assert rate(99, 100, settings) == pytest.approx(end, rel=0.2)
    assert rate(100, 100, settings) == pytest.approx(0, abs=1e-12)
    assert rate(50, 100, settings) == pytest.approx(0.5)


@hypothesis_settings(max_examples=100, deadline=None)
@given(shapes, st.integers(1, 300))
def test_late_parameters_wait_and_then_join(settings: TrainingSettings, steps: int) -> None:
    start = math.ceil(settings.late_start * steps)
    warm = start + max(1, math.ceil(settings.warmup * steps))
    for step in range(steps):
        late, other = rate(step, steps, settings, late=True), rate(step, steps, settings)
        assert (late == 0) == (step < start)
        assert late == other if step >= warm else late <= other


def test_frozen_parameters_get_no_gradient(student: Whisper) -> None:
    settings = TrainingSettings(freeze=("encoder.*", "*.cross_attn.key.*", "*.factors"))
    groups = parameter_groups(student, nn.Module(), settings)
    frozen = {name for name, p in student.named_parameters() if not p.requires_grad}
    assert all(matches(name, settings.freeze) for name in frozen)
    assert "decoder.token_embedding.factors" in frozen
    assert "decoder.blocks.1.cross_attn.key.weight" in frozen
    assert names_of(student, groups) == {name for name, _ in student.named_parameters()} - frozen
    assert sum(len(group["params"]) for group in groups) == len(names_of(student, groups))


def test_a_parameter_frozen_before_learns_again(student: Whisper) -> None:
    student.requires_grad_(False)
    parameter_groups(student, nn.Module(), TrainingSettings(freeze=("decoder.ln.*",)))
    frozen = {name for name, p in student.named_parameters() if not p.requires_grad}
    assert frozen == {"decoder.ln.weight", "decoder.ln.bias"}


def test_weight_decay_is_for_matrices(student: Whisper) -> None:
    settings = TrainingSettings(weight_decay=0.3, freeze=())
    groups = parameter_groups(student, nn.Module(), settings)
    shapes_of = {name: parameter.ndim for name, parameter in student.named_parameters()}
    assert names_of(student, groups, weight_decay=0.3) == {n for n, k in shapes_of.items() if k > 1}
    assert names_of(student, groups, weight_decay=0.0) == {n for n, k in shapes_of.items() if k < 2}
    assert "decoder.token_embedding.mean" in names_of(student, groups, weight_decay=0.0)


def test_late_parameters_are_grouped_apart(student: Whisper) -> None:
    settings = TrainingSettings(late=("decoder.token_embedding.*", "encoder.*"))
    groups = parameter_groups(student, nn.Module(), settings)
    late = names_of(student, groups, late=True)
    assert late == {
        f"decoder.token_embedding.{name}"
        for name in ("factors", "input_projection", "output_projection", "mean", "dense_rows")
    }
    assert not late & names_of(student, groups, late=False)


def test_parameters_of_the_objective_learn_without_decay(student: Whisper) -> None:
    objective = nn.Module()
    objective.scale = nn.Parameter(torch.ones(2, 2))
    objective.fixed = nn.Parameter(torch.ones(2), requires_grad=False)
    groups = parameter_groups(student, objective, TrainingSettings())
    (group,) = [g for g in groups if any(p is objective.scale for p in g["params"])]
    assert group["weight_decay"] == 0
    assert not group["late"]
    assert not any(p is objective.fixed for g in groups for p in g["params"])


@pytest.mark.parametrize("field", ["freeze", "late"])
def test_a_pattern_that_fits_nothing_is_an_error(student: Whisper, field: str) -> None:
    settings = TrainingSettings(**{field: ("encoder.*", "decoder.layers.*")})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no parameter is called 'decoder\.layers\.\*'"):
        parameter_groups(student, nn.Module(), settings)


def test_everything_frozen_is_an_error(student: Whisper) -> None:
    objective = nn.Module()
    objective.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match="nothing to train"):
        parameter_groups(student, objective, TrainingSettings(freeze=("*",)))
