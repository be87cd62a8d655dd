"""The merge stage: methods, measurements before training, reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.compression.layers import apply_plan, keep_plan
from baldwhisper_convert.compression.merge import MergeSettings, all_choices, choices_table, merge
from tests.support.tiny import tiny_checkpoint, tiny_dims
from tests.support.tiny_batches import tiny_batches


@pytest.fixture(scope="module")
def teacher() -> Checkpoint:
    return tiny_checkpoint(tiny_dims(n_text_layer=4), alignment_heads=((3, 0),))


@pytest.mark.parametrize(
    ("settings", "plan", "groups"),
    [
        (MergeSettings(), "merge 0+1,2+3", ((0, 1), (2, 3))),
        (MergeSettings(groups=(1, 3)), "merge 0,1+2+3", ((0,), (1, 2, 3))),
        (MergeSettings(method="upper"), "keep 1,3", ((0, 1), (2, 3))),
        (MergeSettings(method="lower"), "keep 0,2", ((0,), (1, 2, 3))),
        (MergeSettings(method="even"), "keep 0,3", ((0,), (1, 2, 3))),
        (MergeSettings(method="even", layers=3), "keep 0,1,3", ((0,), (1,), (2, 3))),
        (MergeSettings(method="random", layers=4), "keep 0,1,2,3", ((0,), (1,), (2,), (3,))),
        (MergeSettings(method="keep", keep=(1, 2)), "keep 1,2", ((0, 1), (2, 3))),
    ],
)
def test_methods(
    teacher: Checkpoint, settings: MergeSettings, plan: str, groups: tuple[tuple[int, ...], ...]
) -> None:
    assert str(settings.plan(4)) == plan
    student, found, metrics = merge(teacher, settings)
    assert found == groups
    assert student.dims.n_text_layer == len(groups)
    assert metrics == {}


def test_every_group_may_have_its_own_weights() -> None:
    settings = MergeSettings(weights=((0.0, 1.0), (1.0, 3.0)))
    assert settings.plan(4).weights == ((0.0, 1.0), (0.25, 0.75))


def test_random_layers_follow_the_seed() -> None:
    plans = {str(MergeSettings(method="random", seed=seed).plan(12)) for seed in range(10)}
    assert len(plans) > 5


def test_report(teacher: Checkpoint, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    student, _, metrics = merge(teacher, MergeSettings(), tiny_batches(), tmp_path / "report")
    assert student.dims.n_text_layer == 2
    files = {path.name: path for path in (tmp_path / "report").iterdir()}
    assert files.keys() == {
        "layer_similarity.json",
        "layer_similarity.png",
        "layer_choices.json",
    }
    assert files["layer_similarity.png"].read_bytes().startswith(b"\x89PNG")
    assert json.loads(files["layer_similarity.json"].read_text()) == metrics["similarity"]
    choices = json.loads(files["layer_choices.json"].read_text())
    assert choices == metrics["choices"]
    assert [choice["kl"] for choice in choices] == sorted(choice["kl"] for choice in choices)
    assert {"merge 0+1,2+3", "keep 1,3", "keep 0,2", "keep 0,3"} <= {c["plan"] for c in choices}
    own = next(choice for choice in choices if choice["plan"] == "merge 0+1,2+3")
    assert metrics["kl"] == own["kl"]
    assert metrics["positions"] == 2 * (7 + 6)


def test_search_keeps_the_choice_closest_to_the_teacher(teacher: Checkpoint) -> None:
    # A layer whose outputs are zero adds nothing, so leaving it out changes nothing.
    state = dict(teacher.state)
    for part in ("attn.out", "cross_attn.out", "mlp.2"):
        for kind in ("weight", "bias"):
            name = f"decoder.blocks.2.{part}.{kind}"
            state[name] = torch.zeros_like(state[name])
    idle = tiny_checkpoint(teacher.dims, state=state, alignment_heads=((3, 0),))
    settings = MergeSettings(method="search", layers=3)
    student, groups, metrics = merge(idle, settings, tiny_batches())
    assert metrics["plan"] == "keep 0,1,3"
    assert metrics["kl"] == pytest.approx(0, abs=1e-6)
    assert metrics["top1"] == 1.0
    assert groups == ((0,), (1,), (2, 3))
    assert len(metrics["choices"]) == 4
    assert metrics["choices"][1]["kl"] > 1e-3
    expected = apply_plan(idle, keep_plan(4, [0, 1, 3])).state
    assert all(torch.equal(student.state[name], expected[name]) for name in expected)
    assert choices_table(metrics).splitlines()[0].startswith("> keep 0,1,3")
    assert choices_table(metrics, most=1).endswith("and 3 worse")


@pytest.fixture(scope="module")
def encoder_teacher() -> Checkpoint:
    """Four encoder layers; the third one adds nothing, so leaving it out changes nothing."""
    dims = tiny_dims(n_audio_layer=4)
    checkpoint = tiny_checkpoint(dims, alignment_heads=((1, 0),))
    state = dict(checkpoint.state)
    for part in ("attn.out", "mlp.2"):
        for kind in ("weight", "bias"):
            name = f"encoder.blocks.2.{part}.{kind}"
            state[name] = torch.zeros_like(state[name])
    return tiny_checkpoint(dims, state=state, alignment_heads=((1, 0),))


@pytest.mark.parametrize(
    ("settings", "plan"),
    [
        ({}, "merge 0+1,2+3"),
        ({"groups": (1, 3)}, "merge 0,1+2+3"),
        ({"method": "upper"}, "keep 1,3"),
        ({"method": "lower"}, "keep 0,2"),
        ({"method": "even", "layers": 3}, "keep 0,1,3"),
        ({"method": "random", "layers": 4}, "keep 0,1,2,3"),
        ({"method": "keep", "keep": (1, 2)}, "keep 1,2"),
    ],
)
def test_methods_of_the_encoder(
    encoder_teacher: Checkpoint, settings: dict[str, Any], plan: str
) -> None:
    chosen = MergeSettings(part="encoder", **settings)
    student, groups, metrics = merge(encoder_teacher, chosen)
    expected = chosen.plan(4)
    assert (str(expected), metrics) == (plan, {})
    assert groups == expected.groups
    assert student.dims.n_audio_layer == len(groups)
    assert student.dims.n_text_layer == encoder_teacher.dims.n_text_layer
    for name, tensor in encoder_teacher.state.items():
        if not name.startswith("encoder.blocks."):
            assert torch.equal(student.state[name], tensor)
    assert student.alignment_heads == ((1, 0),)


@pytest.mark.parametrize("has_text", [True, False])
def test_search_keeps_the_encoder_layers_closest_to_the_teacher(
    encoder_teacher: Checkpoint, has_text: bool, tmp_path: Path
) -> None:
    settings = MergeSettings(part="encoder", method="search", layers=3)
    batches = tiny_batches(mel=True)
    student, groups, metrics = merge(
        encoder_teacher, settings, batches, tmp_path, has_text=has_text
    )
    assert metrics["plan"] == "keep 0,1,3"
    assert groups == ((0,), (1,), (2, 3))
    assert student.dims.n_audio_layer == 3
    assert metrics["error"] == pytest.approx(0, abs=1e-9)
    assert metrics["positions"] == 2 * (12 + 8)
    key = "kl" if has_text else "error"
    values = [choice[key] for choice in metrics["choices"]]
    assert len(values) == 4
    assert values == sorted(values)
    assert values[1] > 1e-4
    assert all(("kl" in choice) == has_text for choice in metrics["choices"])
    similarity = torch.tensor(metrics["similarity"])
    assert similarity.shape == (4, 4)
    torch.testing.assert_close(similarity.diagonal(), torch.ones(4))
    # The third layer hands on what it is given.
    assert similarity[1, 2] == pytest.approx(1)
    assert similarity[0, 3] < 0.999
    assert (tmp_path / "layer_choices.json").is_file()
    title = "> keep 0,1,3               error  0.000"
    assert choices_table(metrics).splitlines()[0].startswith(title)


@pytest.mark.parametrize(
    ("part", "mel", "message"),
    [("encoder", False, 'features = "mel"'), ("decoder", True, 'labels = "none"')],
)
def test_speech_that_a_part_cannot_be_measured_with(
    encoder_teacher: Checkpoint, part: Any, mel: bool, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        merge(encoder_teacher, MergeSettings(part=part), tiny_batches(mel=mel), has_text=False)


def test_a_search_needs_speech(teacher: Checkpoint) -> None:
    with pytest.raises(ValueError, match="needs speech"):
        merge(teacher, MergeSettings(method="search"))


def test_searches_that_would_not_end() -> None:
    assert len(all_choices(6, 3)) == 20
    with pytest.raises(ValueError, match="601080390 ways to keep 16 of 32"):
        all_choices(32, 16)
    with pytest.raises(ValueError, match="0 ways"):
        all_choices(3, 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "drop"}, "method must be one of"),
        ({"part": "head"}, "part must be one of"),
        ({"alpha": 0.0, "beta": 0.0}, "nor both 0"),
        ({"weights": ((1.0, 1.0), (0.0, 0.0))}, "nor both 0"),
        ({"alpha": -0.1}, "not be negative"),
        ({"keep": (1,)}, 'to keep with method = "keep"'),
        ({"method": "keep"}, 'to keep with method = "keep"'),
        ({"layers": -1}, "layers must be at least 1"),
    ],
)
def test_bad_settings(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MergeSettings(**fields)  # type: ignore[arg-type]


def test_settings_from_toml_lists() -> None:
    settings = MergeSettings(groups=[2, 2], weights=[[0, 1], [1, 1]])  # type: ignore[arg-type]
    assert settings == MergeSettings(groups=(2, 2), weights=((0, 1), (1, 1)))
