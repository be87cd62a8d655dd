"""The distance of encoders: against a slow version without padding, batches or fused losses."""

from __future__ import annotations

import pytest
import torch

from baldwhisper_convert.compression.encoder_agreement import EncoderReference
from baldwhisper_convert.compression.layers import apply_plan, keep_plan
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training.losses import kl_divergence, relative_error
from tests.support.tiny import tiny_checkpoint, tiny_dims
from tests.support.tiny_batches import tiny_batches

TEACHER = tiny_checkpoint(tiny_dims(n_audio_layer=3))
BATCHES = tiny_batches(mel=True)
for _batch in BATCHES:  # as `collate` pads them
    _batch.features[1, :, 2 * int(_batch.lengths[1]) :] = 0


def module(*kept: int) -> Whisper:
    """The teacher, or the student that keeps some encoder layers."""
    plan = keep_plan(3, kept or range(3))
    return Whisper.from_checkpoint(apply_plan(TEACHER, plan, "encoder"))


@torch.no_grad()
def test_figures_are_means_over_single_windows() -> None:
    teacher, student = module(), module(0, 2)
    errors, divergences, same, layers = [], [], [], []
    for batch in BATCHES:
        for row in range(2):
            mel = batch.features[row : row + 1, :, : 2 * int(batch.lengths[row])]
            tokens, mask = batch.tokens[row : row + 1], batch.mask[row]
            wanted, own = teacher.encoder(mel), student.encoder(mel)
            errors += relative_error(own[0], wanted[0]).tolist()
            a, b = (
                teacher.logits(teacher.decoder(tokens, states))[0][mask] for states in (wanted, own)
            )
            divergences += kl_divergence(a, b).tolist()
            same += (a.argmax(-1) == b.argmax(-1)).tolist()
            traced = teacher.encoder.trace(teacher.encoder.embed(mel)).layers
            layers.append(torch.stack([layer[0] for layer in traced]))
    reference = EncoderReference(teacher, BATCHES, has_text=True)
    found = reference.compare(student)
    assert found.error == pytest.approx(sum(errors) / len(errors), rel=1e-4)
    assert found.error > 0.01
    assert found.kl == pytest.approx(sum(divergences) / len(divergences), rel=1e-4)
    assert found.top1 == pytest.approx(sum(same) / len(same))
    outputs = torch.cat(layers, 1)
    cosines = torch.nn.functional.cosine_similarity(outputs[:, None], outputs[None], dim=-1)
    torch.testing.assert_close(reference.layer_similarity, cosines.mean(-1), atol=1e-5, rtol=1e-5)


def test_the_teacher_itself_is_at_no_distance() -> None:
    found = EncoderReference(module(), BATCHES, has_text=True).compare(module())
    assert found.error == 0
    assert found.kl == pytest.approx(0, abs=1e-6)
    assert found.top1 == 1.0


def test_without_text_there_is_no_kl_and_the_error_is_the_distance() -> None:
    student = module(0, 1)
    found = EncoderReference(module(), BATCHES, has_text=False).compare(student)
    assert (found.kl, found.top1) == (None, None)
    with_text = EncoderReference(module(), BATCHES, has_text=True).compare(student)
    assert found.distance == found.error == with_text.error
    assert with_text.distance == with_text.kl


def test_no_speech() -> None:
    with pytest.raises(ValueError, match="give some speech"):
        EncoderReference(module(), [], has_text=False)
