"""Plans of layers and what they make of a checkpoint, against the plain formula."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.compression.layers import (
    LayerPlan,
    apply_plan,
    evenly_spaced,
    group_layers,
    keep_plan,
    merge_plan,
    random_layers,
)
from tests.support.tiny import tiny_checkpoint, tiny_dims


@pytest.fixture(scope="module")
def teacher() -> Checkpoint:
    return tiny_checkpoint(
        tiny_dims(n_text_layer=4), alignment_heads=((1, 0), (2, 3), (3, 1)), source="teacher"
    )


def layer(checkpoint: Checkpoint, number: int) -> dict[str, torch.Tensor]:
    prefix = f"decoder.blocks.{number}."
    found = {
        name.removeprefix(prefix): tensor
        for name, tensor in checkpoint.state.items()
        if name.startswith(prefix)
    }
    assert len(found) == 24
    return found


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_only_the_decoder_layers_change(teacher: Checkpoint) -> None:
    student = apply_plan(teacher, merge_plan(group_layers(4), [(0.1, 1.0)]))
    assert student.dims == replace(teacher.dims, n_text_layer=2)
    for name, tensor in student.state.items():
        if not name.startswith("decoder.blocks."):
            assert tensor is teacher.state[name]


def test_merged_parameters_follow_the_formula(teacher: Checkpoint) -> None:
    student = apply_plan(teacher, merge_plan(group_layers(4), [(0.3, 1.2), (2.0, 0.5)]))
    for new, (alpha, beta) in enumerate([(0.3, 1.2), (2.0, 0.5)]):
        lower, upper = layer(teacher, 2 * new), layer(teacher, 2 * new + 1)
        for name, found in layer(student, new).items():
            expected = (alpha * lower[name] + beta * upper[name]) / (alpha + beta)
            torch.testing.assert_close(found, expected)


def test_alpha_0_is_the_upper_layer_and_beta_0_the_lower(teacher: Checkpoint) -> None:
    groups = group_layers(4)
    upper = apply_plan(teacher, merge_plan(groups, [(0.0, 0.3)]))
    lower = apply_plan(teacher, merge_plan(groups, [(0.3, 0.0)]))
    for new in range(2):
        assert same(layer(upper, new), layer(teacher, 2 * new + 1))
        assert same(layer(lower, new), layer(teacher, 2 * new))
    assert upper.alignment_heads == ((0, 0), (1, 1))
    assert lower.alignment_heads == ((1, 3),)


@settings(max_examples=15, deadline=None)
@given(
    st.floats(0, 10), st.floats(0.01, 10), st.floats(0.01, 100), st.sampled_from([(2, 2), (1, 3)])
)
def test_only_the_ratio_of_the_weights_counts(
    alpha: float, beta: float, scale: float, sizes: tuple[int, ...]
) -> None:
    groups = group_layers(4, sizes)
    plan, scaled = (
        merge_plan(groups, [(alpha, beta)]),
        merge_plan(groups, [(scale * alpha, scale * beta)]),
    )
    for a, b in zip(plan.weights, scaled.weights, strict=True):
        assert a == pytest.approx(b)


def test_a_merged_parameter_lies_between_those_of_its_group(teacher: Checkpoint) -> None:
    student = apply_plan(teacher, merge_plan(group_layers(4, [3, 1]), [(0.5, 2.0)]))
    for name, found in layer(student, 0).items():
        group = torch.stack([layer(teacher, i)[name] for i in range(3)])
        torch.testing.assert_close(found, (0.5 * group[0] + 0.5 * group[1] + 2 * group[2]) / 3)
    assert same(layer(student, 1), layer(teacher, 3))
    assert student.alignment_heads == ((1, 1),)


def test_merged_layers_leave_the_default_alignment_heads(teacher: Checkpoint) -> None:
    assert apply_plan(teacher, merge_plan(group_layers(4), [(1, 1)])).alignment_heads is None


def test_half_precision_is_merged_in_full(teacher: Checkpoint) -> None:
    half = replace(teacher, state={name: t.half() for name, t in teacher.state.items()})
    student = apply_plan(half, merge_plan(group_layers(4), [(1.0, 1.0)]))
    name = "decoder.blocks.0.mlp.0.weight"
    pair = [half.state[f"decoder.blocks.{i}.mlp.0.weight"].float() for i in range(2)]
    assert torch.equal(student.state[name], (pair[0] + pair[1]) / 2)


@given(st.data())
def test_groups_of_kept_layers(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 12))
    kept = sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1)))
    plan = keep_plan(n, kept)
    assert plan.kept == tuple(kept)
    assert [layer for group in plan.groups for layer in group] == list(range(n))
    assert [group[-1] for group in plan.groups] == [*kept[:-1], n - 1]


def test_keeping_all_layers_changes_nothing(teacher: Checkpoint) -> None:
    student = apply_plan(teacher, keep_plan(4, range(4)))
    assert same(student.state, teacher.state)
    assert student.alignment_heads == teacher.alignment_heads


def test_kept_layers_are_copies_and_keep_their_heads(teacher: Checkpoint) -> None:
    student = apply_plan(teacher, keep_plan(4, [0, 2]))
    assert same(layer(student, 0), layer(teacher, 0))
    assert same(layer(student, 1), layer(teacher, 2))
    assert student.alignment_heads == ((1, 3),)


@given(st.integers(1, 40), st.data())
def test_evenly_spaced_and_random_layers(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    even, drawn = evenly_spaced(n, k), random_layers(n, k, seed=3)
    assert even[-1] == n - 1
    assert even[0] == (0 if k > 1 else n - 1)
    assert drawn == random_layers(n, k, seed=3)
    for layers in (even, drawn):
        assert layers == sorted(set(layers))
        assert len(layers) == k
    gaps = {b - a for a, b in pairwise(even)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_random_layers_depend_on_the_seed() -> None:
    assert len({tuple(random_layers(12, 6, seed)) for seed in range(20)}) > 10


def test_plans_name_themselves() -> None:
    assert str(keep_plan(6, [0, 3, 5])) == "keep 0,3,5"
    assert str(merge_plan(group_layers(5), [(1, 1)])) == "merge 0+1,2+3,4"


@pytest.mark.parametrize(
    ("alpha", "beta"), [(0.0, 0.0), (-1.0, 2.0), (float("nan"), 1.0), (float("inf"), 1.0)]
)
def test_bad_weights(alpha: float, beta: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        merge_plan(((0, 1),), [(alpha, beta)])


@pytest.mark.parametrize("sizes", [[2, 2, 1], [4, 0], [5], [-1, 5]])
def test_bad_groups(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="must add up to the model's 4"):
        group_layers(4, sizes)


@pytest.mark.parametrize("kept", [[], [4], [-1], [2, 1], [1, 1]])
def test_bad_layers_to_keep(kept: list[int]) -> None:
    with pytest.raises(ValueError, match="cannot keep"):
        keep_plan(4, kept)


@pytest.mark.parametrize("count", [0, 5])
def test_bad_numbers_of_layers(count: int) -> None:
    for choose in (evenly_spaced, lambda n, k: random_layers(n, k, 0)):
        with pytest.raises(ValueError, match=f"cannot keep {count} of 4 layers"):
            choose(4, count)


def test_plans_that_do_not_fit(teacher: Checkpoint) -> None:
    with pytest.raises(ValueError, match="teacher: 4 decoder layers, but the plan is for"):
        apply_plan(teacher, keep_plan(3, [0]))
    with pytest.raises(ValueError, match="teacher: 2 encoder layers, but the plan is for"):
        apply_plan(teacher, keep_plan(3, [0]), "encoder")
    with pytest.raises(ValueError, match="2 pairs of alpha and beta for 1 groups"):
        merge_plan(((0, 1),), [(1, 1), (1, 1)])
    with pytest.raises(ValueError, match="consecutive"):
        LayerPlan(((0, 2),), ((0.5, 0.5),))
    with pytest.raises(ValueError, match="do not match"):
        LayerPlan(((0, 1),), ((0.5, 0.6),))
