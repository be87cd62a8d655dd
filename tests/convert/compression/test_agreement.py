"""KL, top-1 and layer similarity of tiny models, against formulas written out."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from baldwhisper_convert.compression.agreement import Reference
from baldwhisper_convert.compression.layer_similarity import layer_similarity
from baldwhisper_convert.model.whisper import Whisper
from tests.support.tiny import tiny_checkpoint, tiny_state
from tests.support.tiny_batches import tiny_batches


@pytest.fixture(scope="module")
def teacher() -> Whisper:
    return Whisper.from_checkpoint(tiny_checkpoint())


@pytest.fixture(scope="module")
def student() -> Whisper:
    return Whisper.from_checkpoint(tiny_checkpoint(state=tiny_state(seed=1)))


@pytest.mark.parametrize("mel", [False, True])
def test_a_model_agrees_with_itself(teacher: Whisper, mel: bool) -> None:
    found = Reference(teacher, tiny_batches(mel=mel)).compare(teacher)
    assert found.kl == pytest.approx(0, abs=1e-7)
    assert found.top1 == 1.0


def test_kl_and_top1_are_what_they_say(teacher: Whisper, student: Whisper) -> None:
    batches = tiny_batches(3)
    found = Reference(teacher, batches).compare(student)
    divergences, same = [], []
    with torch.no_grad():
        for batch in batches:
            audio, mask = batch.encode(teacher)
            p, q = (
                model.logits(model.decoder(batch.tokens, audio, mask)).double().softmax(-1)
                for model in (teacher, student)
            )
            for row in range(2):
                for i in torch.nonzero(batch.mask[row])[:, 0]:
                    a, b = p[row, i].tolist(), q[row, i].tolist()
                    divergences.append(sum(x * math.log(x / y) for x, y in zip(a, b, strict=True)))
                    same.append(a.index(max(a)) == b.index(max(b)))
    assert found.kl == pytest.approx(sum(divergences) / len(divergences), rel=1e-4)
    assert found.top1 == sum(same) / len(same)


def test_another_head_makes_the_logits(teacher: Whisper, student: Whisper) -> None:
    reference = Reference(teacher, tiny_batches())
    assert reference.compare(teacher, student.decoder.token_embedding).kl > 0.01
    assert reference.compare(teacher, teacher.decoder.token_embedding).kl < 1e-6


def test_similarity_map(teacher: Whisper) -> None:
    batches = tiny_batches(2)
    found = layer_similarity(teacher, Reference(teacher, batches))
    torch.testing.assert_close(found, found.T)
    torch.testing.assert_close(found.diagonal(), torch.ones(3))
    with torch.no_grad():
        outputs = [teacher.decoder(b.tokens, *b.encode(teacher)).layers for b in batches]
    cosines = [
        F.cosine_similarity(layers[0][batch.mask], layers[2][batch.mask], dim=-1)
        for layers, batch in zip(outputs, batches, strict=True)
    ]
    torch.testing.assert_close(found[0, 2], torch.cat(cosines).mean())


def test_no_positions() -> None:
    with pytest.raises(ValueError, match="give some speech"):
        Reference(Whisper.from_checkpoint(tiny_checkpoint()), [])
