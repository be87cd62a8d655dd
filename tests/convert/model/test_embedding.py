"""The tied embedding: its dense equivalent, and gradients from both of its uses."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from baldwhisper_convert.checkpoint.state import EMBEDDING, EmbeddingForm
from baldwhisper_convert.model.embedding import TokenEmbedding
from tests.support.tiny import factorized_state, tiny_dims, tiny_state

DIMS = tiny_dims(n_audio_state=16, n_text_state=16)
CHOICES = [
    {"separate": separate, "mean": mean, "dense_rows": rows}
    for separate, mean, rows in itertools.product([False, True], [False, True], [0, 20])
]


def state_of(options: dict[str, Any] | None, seed: int = 1) -> dict[str, Tensor]:
    state = tiny_state(DIMS) if options is None else factorized_state(DIMS, 8, **options)
    prefix = f"{EMBEDDING}."
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def loaded(state: dict[str, Tensor]) -> TokenEmbedding:
    form = EmbeddingForm.of({f"{EMBEDDING}.{name}": t for name, t in state.items()})
    embedding = TokenEmbedding(DIMS, form)
    embedding.load_state_dict(state)
    return embedding


def ends(state: dict[str, Tensor]) -> list[Tensor]:
    """The V x d matrices that a state stands for at the decoder's input and output."""
    found = []
    for name in ("input_projection", "output_projection"):
        matrix = state["factors"] @ state.get(name, state["input_projection"])
        matrix = matrix + state.get("mean", torch.zeros(16))
        if "dense_rows" in state:
            matrix[state["dense_ids"]] = state["dense_rows"]
        found.append(matrix)
    return found


ids = pytest.mark.parametrize("options", CHOICES, ids=lambda o: "-".join(k for k in o if o[k]))


@torch.no_grad()
@ids
def test_equals_the_dense_product(options: dict[str, Any]) -> None:
    state = state_of(options)
    embedding, (rows, columns) = loaded(state), ends(state)
    hidden = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))
    tokens = torch.arange(DIMS.n_vocab)
    torch.testing.assert_close(embedding(tokens), rows, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(embedding(tokens[None, :6])[0], rows[:6], atol=1e-5, rtol=1e-5)
    logits = embedding.as_linear(hidden)
    torch.testing.assert_close(logits, hidden @ columns.T, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_dense() -> None:
    weight = state_of(None)["weight"]
    embedding = loaded({"weight": weight})
    tokens, hidden = torch.tensor([[3, 1]]), torch.randn(1, 2, 16)
    assert torch.equal(embedding(tokens)[0], weight[[3, 1]])
    torch.testing.assert_close(embedding.as_linear(hidden), hidden @ weight.T)


def gradients(embedding: TokenEmbedding, *uses: str) -> dict[str, Tensor]:
    """Of a loss over the input, the output, or both; zeros where there is none."""
    embedding.zero_grad()
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randperm(DIMS.n_vocab, generator=generator)[None]
    hidden = torch.randn(2, 5, 16, generator=generator)
    loss = torch.zeros(())
    if "input" in uses:
        loss = loss + embedding(tokens).square().sum()
    if "output" in uses:
        loss = loss + embedding.as_linear(hidden).square().mean()
    loss.backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in embedding.named_parameters()
    }


@ids
def test_gradients_flow_to_both_uses(options: dict[str, Any]) -> None:
    embedding = loaded(state_of(options))
    there, back, both = (
        gradients(embedding, *uses) for uses in (["input"], ["output"], ["input", "output"])
    )
    one_sided = {"input_projection": "input", "output_projection": "output"}
    for name, gradient in both.items():
        torch.testing.assert_close(there[name] + back[name], gradient, atol=1e-5, rtol=1e-4)
        side = one_sided.get(name) if options["separate"] else None
        assert bool(there[name].any()) == (side != "output")
        assert bool(back[name].any()) == (side != "input")


def test_gradients_of_the_dense_matrix_flow_to_both_uses() -> None:
    embedding = loaded(state_of(None))
    there, back, both = (
        gradients(embedding, *uses)["weight"]
        for uses in (["input"], ["output"], ["input", "output"])
    )
    assert there.any()
    assert back.any()
    torch.testing.assert_close(there + back, both)


def test_factors_of_dense_rows_get_no_gradient() -> None:
    state = state_of({"dense_rows": 20})
    found = gradients(loaded(state), "input", "output")["factors"]
    dense = torch.zeros(DIMS.n_vocab, dtype=torch.bool)
    dense[state["dense_ids"]] = True
    assert not found[dense].any()
    assert found[~dense].any(dim=1).all()


@torch.no_grad()
def test_dense_rows_follow_their_ids() -> None:
    """When other ids are loaded, in a copy, and in a model that nothing was loaded into."""
    state = state_of({"dense_rows": 20})
    embedding = loaded(state)
    other = state | {"dense_ids": (state["dense_ids"] + 1) % DIMS.n_vocab}
    embedding.load_state_dict(other)
    for one in (embedding, copy.deepcopy(embedding)):
        assert torch.equal(one(other["dense_ids"]), state["dense_rows"])
    fresh = TokenEmbedding(DIMS, embedding.form)
    for parameter in fresh.parameters():
        parameter.copy_(torch.randn_like(parameter))
    rows = fresh(torch.arange(DIMS.n_vocab))
    assert torch.equal(rows[:20], fresh.get_parameter("dense_rows"))
    hidden = torch.randn(1, 16)
    torch.testing.assert_close(fresh.as_linear(hidden), hidden @ rows.T, atol=1e-4, rtol=1e-4)


def test_ids_are_saved_and_the_table_is_not() -> None:
    saved = loaded(state_of({"dense_rows": 20})).state_dict()
    assert saved.keys() == {"factors", "input_projection", "dense_rows", "dense_ids"}
