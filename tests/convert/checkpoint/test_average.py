"""The average of models: what it holds, and which models have none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_convert.checkpoint.average import average
from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.cli.main import main
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_convert.readers.read import read_checkpoint
from tests.support.tiny import FORMS, factorized_state, tiny_checkpoint, tiny_dims


def changed(checkpoint: Checkpoint, seed: int, **fields: Any) -> Checkpoint:
    """A fine-tuning of a model, made up."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: t + 0.1 * torch.randn(t.shape, generator=generator) if t.is_floating_point() else t
        for name, t in checkpoint.state.items()
    }
    return replace(checkpoint, state=state, source=f"tuned {seed}", **fields)


def form(name: str) -> Checkpoint:
    embedding = FORMS[name]
    dims = tiny_dims()
    if embedding is None:
        return tiny_checkpoint(dims)
    return tiny_checkpoint(dims, state=factorized_state(dims, **embedding))


@pytest.mark.parametrize("name", FORMS)
def test_every_weight_is_the_mean(name: str) -> None:
    one, two = (changed(form(name), seed) for seed in (1, 2))
    mean = average([one, two], [3.0, 1.0])
    assert mean.source == "tuned 1 + tuned 2"
    for key, tensor in mean.state.items():
        assert tensor.dtype == one.state[key].dtype
        torch.testing.assert_close(tensor, torch.lerp(one.state[key], two.state[key], 0.25)
                                   if tensor.is_floating_point() else one.state[key])  # fmt: skip


TUNED = [changed(tiny_checkpoint(), seed) for seed in range(3)]


@settings(deadline=None, max_examples=20)
@given(
    shares=st.lists(st.floats(0.01, 100), min_size=2, max_size=3),
    factor=st.floats(0.1, 10),
)
def test_only_the_ratio_of_shares_counts(shares: list[float], factor: float) -> None:
    models = TUNED[: len(shares)]
    first = average(models, shares).state
    again = average(models, [factor * share for share in shares]).state
    same = average([models[0]] * len(shares), shares).state
    for key, tensor in first.items():
        torch.testing.assert_close(tensor, again[key])
        torch.testing.assert_close(same[key], models[0].state[key])


def test_it_knows_the_languages_of_all() -> None:
    lingala, french = (changed(TUNED[0], 1, languages=(code,)) for code in ("ln", "fr"))
    assert average([lingala, french], [1, 1]).languages == ("ln", "fr")
    assert average([lingala, TUNED[1]], [1, 1]).languages is None
    dynamic = replace(lingala, audio_context="dynamic", audio_context_margin=25)
    mean = average([dynamic, french], [1, 1])
    assert (mean.audio_context, mean.audio_context_margin) == ("dynamic", 25)


def test_models_of_other_forms_have_none() -> None:
    shallower = tiny_checkpoint(tiny_dims(n_text_layer=2), alignment_heads=None)
    tied = form("tied")
    ids = tied.state["decoder.token_embedding.dense_ids"].flip(0)
    moved = replace(tied, state=tied.state | {"decoder.token_embedding.dense_ids": ids})
    for models, message in (
        ([TUNED[0], shallower], "other layers, sizes or factors"),
        ([TUNED[0], tied], "other layers, sizes or factors"),
        ([tied, moved], "other dense rows"),
        ([tied], "two or more"),
    ):
        with pytest.raises(ValueError, match=message):
            average(models, [1.0] * len(models))


def test_the_command(tmp_path: Path) -> None:
    paths = [export_mlx(one, tmp_path / str(i), dtype="float32") for i, one in enumerate(TUNED)]
    output = tmp_path / "mean"
    arguments = ["average", f"{paths[0]}:0.5", f"{paths[1]}:0.25", f"{paths[2]}:0.25", str(output)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    expected = average(TUNED, [2, 1, 1]).state
    for key, tensor in read_checkpoint(output).state.items():
        torch.testing.assert_close(tensor, expected[key])
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 1
    assert "--force" in again.output
    # It names its sources without their folders, and replaces none of them.
    card = (output / "README.md").read_text(encoding="utf-8")
    assert "from `0 + 1 + 2`" in card
    assert "base_model" not in card
    assert str(tmp_path) not in card
    own = CliRunner().invoke(main, [*arguments[:-1], str(paths[1]), "--force"])
    assert own.exit_code == 1
    assert "contains the source" in own.output
    alone = CliRunner().invoke(main, ["average", str(paths[0]), str(tmp_path / "alone")])
    assert alone.exit_code == 1
    assert "two or more models" in alone.output
    assert not (tmp_path / "alone").exists()
