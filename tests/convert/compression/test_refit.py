"""Fitting a lighter encoder by least squares: what changes, what does not, and by how much."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.compression.encoder_agreement import EncoderReference
from baldwhisper_convert.compression.layers import LayerPlan, apply_plan, keep_plan, merge_plan
from baldwhisper_convert.compression.merge import MergeSettings, merge
from baldwhisper_convert.compression.refit import refit_encoder
from baldwhisper_convert.data.batches import Batch
from baldwhisper_convert.data.speech import open_speech
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.pipeline.model import Model
from baldwhisper_convert.pipeline.stages import run_merge
from tests.support.tiny import tiny_checkpoint, tiny_dims
from tests.support.tiny_batches import tiny_batches
from tests.support.tiny_encoders import encoder_teacher
from tests.support.tiny_prepared import tiny_prepared

TEACHER = tiny_checkpoint(
    tiny_dims(n_audio_state=16, n_text_state=16, n_audio_layer=4), alignment_heads=None
)
PLANS = {
    "keep 0,1,3": keep_plan(4, [0, 1, 3]),
    "keep 1,2,3": keep_plan(4, [1, 2, 3]),
    "merge 0+1,2+3": merge_plan(((0, 1), (2, 3)), [(1.0, 1.0)]),
}
RIDGE = 0.01


def speech(seed: int, n: int = 30) -> list[Batch]:
    """Windows for a few hundred positions, some of them padding."""
    return tiny_batches(n, dims=TEACHER.dims, mel=True, seed=seed)


def fit(plan: LayerPlan, batches: list[Batch], ridge: float = RIDGE) -> Checkpoint:
    teacher = Whisper.from_checkpoint(TEACHER)
    student = apply_plan(TEACHER, plan, "encoder")
    return refit_encoder(teacher, student, plan.groups, batches, ridge)


@pytest.mark.parametrize("name", PLANS)
def test_other_speech_is_encoded_closer_to_the_teacher(name: str) -> None:
    plan = PLANS[name]
    reference = EncoderReference(
        Whisper.from_checkpoint(TEACHER), speech(seed=1, n=5), has_text=False
    )
    plain = reference.compare(Whisper.from_checkpoint(apply_plan(TEACHER, plan, "encoder")))
    fitted = reference.compare(Whisper.from_checkpoint(fit(plan, speech(seed=0))))
    assert fitted.error < 0.8 * plain.error


def test_only_layers_from_the_first_changed_one_on_are_fitted() -> None:
    plan = PLANS["keep 0,1,3"]
    student, fitted = apply_plan(TEACHER, plan, "encoder"), fit(plan, speech(0, n=4))
    changed = {
        name
        for name, tensor in fitted.state.items()
        if not torch.equal(tensor, student.state[name])
    }
    assert changed == {f"encoder.blocks.2.mlp.2.{kind}" for kind in ("weight", "bias")}
    same = fit(keep_plan(4, [0, 1, 2, 3]), speech(0, n=2))
    assert all(torch.equal(tensor, TEACHER.state[name]) for name, tensor in same.state.items())


def test_a_strong_ridge_keeps_the_weights() -> None:
    plan = PLANS["keep 1,2,3"]
    start = apply_plan(TEACHER, plan, "encoder").state
    name = "encoder.blocks.0.mlp.2.weight"
    moved = [
        float((fit(plan, speech(0, n=4), ridge).state[name] - start[name]).norm())
        for ridge in (1e-3, 1.0, 1e6)
    ]
    assert moved == sorted(moved, reverse=True)
    assert moved[0] > 10 * moved[2]
    assert moved[2] < 1e-4


def test_the_solution_is_that_of_least_squares_on_the_padded_audio_too() -> None:
    """One changed layer; the positions that are padding do not count."""
    plan, batches = PLANS["keep 0,1,3"], speech(0, n=6)
    teacher = Whisper.from_checkpoint(TEACHER).encoder
    block = Whisper.from_checkpoint(apply_plan(TEACHER, plan, "encoder")).encoder.blocks[2]
    hidden, missing = [], []
    with torch.no_grad():
        for batch in batches:
            for row in range(2):
                # Embedded together, because the convolution sees a frame of what follows.
                length = int(batch.lengths[row])
                x = teacher.embed(batch.features)[row : row + 1, :length]
                layers = teacher.trace(x).layers
                y = layers[1] + block.attn(  # type: ignore[operator, union-attr]
                    block.attn_ln(layers[1]),
                    block.attn.project(block.attn_ln(layers[1])),  # type: ignore[operator, union-attr]
                )
                h = block.mlp[1](block.mlp[0](block.mlp_ln(y)))  # type: ignore[operator, index]
                hidden.append(h[0])
                missing.append((layers[3] - y)[0])
    ones = torch.ones(sum(map(len, hidden)), 1)
    inputs = torch.cat([torch.cat(hidden), ones], 1).double()
    expected = torch.linalg.lstsq(inputs, torch.cat(missing).double()).solution.float()
    fitted = fit(plan, batches, 1e-12).state
    weight, bias = (fitted[f"encoder.blocks.2.mlp.2.{kind}"] for kind in ("weight", "bias"))
    predicted = torch.cat([weight.T, bias[None]])
    torch.testing.assert_close(
        inputs.float() @ predicted, inputs.float() @ expected, atol=1e-3, rtol=1e-3
    )


def test_merge_fits_on_other_windows_than_it_measures(tmp_path: Path) -> None:
    tiny_prepared(tmp_path / "audio", 64, mel=True, silence=0, text=False)
    speech = open_speech([str(tmp_path / "audio")])
    settings = MergeSettings(part="encoder", method="keep", keep=(0, 1, 3), refit=0.1)
    model = Model.of(encoder_teacher())
    student, metrics = run_merge(model, settings, speech, tmp_path / "report", count=8)
    assert student.encoder_groups == ((0,), (1,), (2, 3))
    lengths = [window.positions for window in speech.windows.windows]
    assert metrics["positions"] < 0.5 * sum(lengths)
    assert metrics["refit_error"] < metrics["error"]
    assert "refit_kl" not in metrics


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"refit": -1.0, "part": "encoder"}, "refit must not be negative"),
        ({"refit": 0.1}, "refit is for the encoder"),
    ],
)
def test_bad_settings(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MergeSettings(**fields)  # type: ignore[arg-type]


def test_refit_needs_speech() -> None:
    settings = MergeSettings(part="encoder", refit=0.1)
    with pytest.raises(ValueError, match="refit needs speech"):
        merge(TEACHER, settings)
    with pytest.raises(ValueError, match="more windows"):
        merge(TEACHER, settings, speech(0, n=2), has_text=False, calibration=[])
