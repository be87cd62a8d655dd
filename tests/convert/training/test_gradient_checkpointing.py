"""Gradient checkpointing: less is kept for the backward pass, and the gradients are the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training.log import read_log
from tests.support import tiny_runs
from tests.support.tiny_prepared import tiny_student


def gradients(recompute: bool, dropout: float, *, trace: bool = False) -> dict[str, Tensor]:
    model = tiny_student().train()
    model.set_gradient_checkpointing(recompute)
    model.set_dropout(dropout)
    loss(model, trace=trace).backward()
    return {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def loss(model: Whisper, *, trace: bool) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    mel = torch.randn(2, model.dims.n_mels, 40, generator=generator)
    tokens = torch.randint(0, model.dims.n_vocab, (2, 6), generator=generator)
    torch.manual_seed(1)  # of the dropout
    encoder = model.encoder
    states = encoder.trace(encoder.embed(mel)).state if trace else encoder(mel)
    return model.logits(model.decoder(tokens, states)).square().mean()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("trace", [True, False])
def test_the_gradients_are_the_same(dropout: float, trace: bool) -> None:
    expected = gradients(False, dropout, trace=trace)
    found = gradients(True, dropout, trace=trace)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert torch.equal(gradient, found[name]), name


def kept_bytes(forward: Callable[[], Tensor]) -> int:
    """Bytes of all tensors that a forward pass keeps for the backward pass, each once."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    assert result.requires_grad
    return sum(kept.values())


def test_less_is_kept() -> None:
    def kept(recompute: bool) -> int:
        model = tiny_student().train()
        model.set_gradient_checkpointing(recompute)
        mel = torch.randn(2, model.dims.n_mels, 400)
        return kept_bytes(lambda: model.encoder(mel))

    assert kept(True) < 0.5 * kept(False)


def test_an_evaluation_computes_nothing_twice() -> None:
    model = tiny_student().eval()
    model.set_gradient_checkpointing(True)
    calls = []
    model.encoder.blocks[0].mlp.register_forward_hook(lambda *_: calls.append(1))  # type: ignore[union-attr, operator]
    loss(model, trace=False).backward()
    assert calls == [1]


def test_a_training_takes_the_same_steps(
    tmp_path: Path, data: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_runs.lean(monkeypatch.setattr)
    settings = {"epochs": 1.0, "dropout": 0.1}
    plain, _ = tiny_runs.run(tmp_path / "a", data, **settings)  # type: ignore[arg-type]
    again, _ = tiny_runs.run(tmp_path / "b", data, gradient_checkpointing=True, **settings)  # type: ignore[arg-type]
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    rows = [read_log(tmp_path / name / "log.jsonl") for name in "ab"]
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]
