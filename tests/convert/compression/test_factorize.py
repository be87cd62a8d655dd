"""The factorize stage on a tiny model: forms, measurements, and the runtime's word for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.checkpoint.state import EMBEDDING
from baldwhisper_convert.compression.calibration import calibrate
from baldwhisper_convert.compression.factorize import (
    FactorizeSettings,
    factorize,
    measurements_table,
    with_embedding_of,
)
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_mlx.checkpoint.load import load_model
from tests.support.tiny import tiny_checkpoint
from tests.support.tiny_batches import tiny_batches

WIDTH = 64


@pytest.fixture(scope="module")
def parent() -> Checkpoint:
    return tiny_checkpoint()


def factorized(parent: Checkpoint, **fields: object) -> tuple[Checkpoint, dict[str, float]]:
    settings = FactorizeSettings(**fields)  # type: ignore[arg-type]
    return factorize(parent, settings, tiny_batches(3), tiny_batches(2, seed=9))


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"init": "svd"}, {"factors", "input_projection"}),
        ({}, {"factors", "input_projection", "output_projection", "mean"}),
        ({"mean": False, "projections": "shared"}, {"factors", "input_projection"}),
        ({"init": "svd", "mean": True}, {"factors", "input_projection", "mean"}),
        ({"init": "random"}, {"factors", "input_projection"}),
        ({"init": "random", "mean": True}, {"factors", "input_projection", "mean"}),
        (
            {"projections": "shared", "dense_rows": 5},
            {"factors", "input_projection", "mean", "dense_rows", "dense_ids"},
        ),
    ],
)
def test_forms(parent: Checkpoint, fields: dict[str, object], parts: set[str]) -> None:
    student, metrics = factorized(parent, rank=8, **fields)
    own = {name for name in student.state if name.startswith(EMBEDDING)}
    assert own == {f"{EMBEDDING}.{part}" for part in parts}
    for name in student.state.keys() - own:
        assert student.state[name] is parent.state[name]
    numbers = sum(t.numel() for name, t in student.state.items() if not name.endswith("_ids"))
    assert metrics["parameters_after"] == numbers
    assert metrics["parameters_before"] - numbers == parent.state[f"{EMBEDDING}.weight"].numel() - (
        sum(student.state[name].numel() for name in own if not name.endswith("_ids"))
    )


@pytest.mark.parametrize("init", ["svd", "joint"])
def test_full_rank_changes_nothing(parent: Checkpoint, init: str) -> None:
    student, metrics = factorized(parent, rank=WIDTH, init=init)
    assert metrics["energy"] == pytest.approx(1, abs=1e-6)
    for end in ("input", "output", "both"):
        assert metrics[f"kl_{end}"] == pytest.approx(0, abs=1e-5)
        assert metrics[f"top1_{end}"] == 1.0
    tokens = torch.arange(50)[None]
    before, after = (Whisper.from_checkpoint(c).decoder.token_embedding for c in (parent, student))
    torch.testing.assert_close(after(tokens), before(tokens), rtol=1e-4, atol=1e-4)
    state = torch.randn(3, WIDTH)
    torch.testing.assert_close(
        after.as_linear(state), before.as_linear(state), rtol=1e-4, atol=1e-3
    )


def test_measurements_separate_the_ends(parent: Checkpoint) -> None:
    student, metrics = factorized(parent, rank=4)
    model, factored_model = Whisper.from_checkpoint(parent), Whisper.from_checkpoint(student)
    total, count = dict.fromkeys(("input", "output", "both"), 0.0), 0
    with torch.no_grad():
        for batch in tiny_batches(2, seed=9):
            audio, mask = batch.encode(model)
            states = {
                name: m.decoder(batch.tokens, audio, mask).state[batch.mask]
                for name, m in (("dense", model), ("factorized", factored_model))
            }
            dense, factored = model.decoder.token_embedding, factored_model.decoder.token_embedding
            p = dense.as_linear(states["dense"]).log_softmax(-1)
            for end, logits in (
                ("input", dense.as_linear(states["factorized"])),
                ("output", factored.as_linear(states["dense"])),
                ("both", factored.as_linear(states["factorized"])),
            ):
                total[end] += float((p.exp() * (p - logits.log_softmax(-1))).sum())
            count += len(p)
    for end, value in total.items():
        assert metrics[f"kl_{end}"] == pytest.approx(value / count, rel=1e-4)
    assert measurements_table(metrics).count("\n") == 2
    assert metrics["held_out_positions"] == count


def test_dense_rows_are_the_frequent_tokens_and_exact(parent: Checkpoint) -> None:
    batches = tiny_batches(3)
    student, _ = factorized(parent, rank=4, dense_rows=6)
    frequencies = calibrate(Whisper.from_checkpoint(parent), batches).frequencies
    ids = student.state[f"{EMBEDDING}.dense_ids"]
    assert ids.tolist() == sorted(frequencies.topk(6).indices.tolist())
    weight = parent.state[f"{EMBEDDING}.weight"]
    embedding = Whisper.from_checkpoint(student).decoder.token_embedding
    state = torch.randn(5, WIDTH)
    with torch.no_grad():
        assert torch.equal(embedding(ids), weight[ids])
        torch.testing.assert_close(embedding.as_linear(state)[:, ids], state @ weight[ids].T)


def test_counts_of_more_text_are_taken_into_account(parent: Checkpoint) -> None:
    counts = torch.zeros(parent.dims.n_vocab)
    counts[17] = 1e6
    settings = FactorizeSettings(rank=4, dense_rows=1)
    student, _ = factorize(parent, settings, tiny_batches(), [], counts)
    assert student.state[f"{EMBEDDING}.dense_ids"].tolist() == [17]


@pytest.mark.parametrize("init", ["svd", "joint", "random"])
def test_the_same_seed_gives_the_same_student(parent: Checkpoint, init: str) -> None:
    states = [factorized(parent, rank=6, init=init)[0].state for _ in range(2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_focus_brings_the_output_closer(parent: Checkpoint) -> None:
    """And the input stays the best there is for the shared factors."""
    found = [factorized(parent, rank=8, focus=focus)[1] for focus in (0.0, 0.3)]
    assert found[1]["kl_output"] < found[0]["kl_output"]
    shared, _ = factorized(parent, rank=8, focus=0.3, projections="shared")
    assert shared.embedding.projections == "shared"


def test_the_runtime_runs_it(parent: Checkpoint, tmp_path: Path) -> None:
    student, _ = factorized(parent, rank=8, dense_rows=20)
    export_mlx(student, tmp_path / "student", dtype="float32")
    embedding = load_model(tmp_path / "student").model.decoder.token_embedding
    ours = Whisper.from_checkpoint(student).decoder.token_embedding
    tokens, state = torch.arange(30)[None], torch.randn(1, 2, WIDTH)
    with torch.no_grad():
        for found, expected in (
            (embedding(mx.array(tokens.numpy())), ours(tokens)),
            (embedding.as_linear(mx.array(state.numpy())), ours.as_linear(state)),
        ):
            np.testing.assert_allclose(np.array(found), expected.numpy(), rtol=1e-4, atol=1e-4)


def test_a_student_is_factorized_again_from_its_teachers_embedding(parent: Checkpoint) -> None:
    student, _ = factorized(parent, rank=4, dense_rows=2)
    name = "decoder.ln.weight"
    trained = replace(student, state=student.state | {name: student.state[name] + 1})
    again, _ = factorized(with_embedding_of(trained, parent), rank=4, dense_rows=9)
    rows, ids = (again.state[f"{EMBEDDING}.dense_{part}"] for part in ("rows", "ids"))
    assert torch.equal(rows, parent.state[f"{EMBEDDING}.weight"][ids])
    assert len(ids) == 9
    assert torch.equal(again.state[name], trained.state[name])
    with pytest.raises(ValueError, match="factorized too"):
        with_embedding_of(trained, student)


def test_what_cannot_be_factorized(parent: Checkpoint) -> None:
    student, _ = factorized(parent, rank=4)
    with pytest.raises(ValueError, match="factorized already"):
        factorized(student, rank=4)
    with pytest.raises(ValueError, match=f"give 1 to {WIDTH}"):
        factorized(parent, rank=WIDTH + 1)
    with pytest.raises(ValueError, match="dense rows, but a vocabulary of"):
        factorized(parent, rank=4, dense_rows=10**6)
    with pytest.raises(ValueError, match="give some speech"):
        factorize(parent, FactorizeSettings(rank=4), [], [])


@pytest.mark.parametrize(
    "fields",
    [
        {"rank": 0},
        {"init": "zero"},
        {"focus": 0.5, "init": "random"},
        {"projections": "both"},
        {"dense_rows": -1},
        {"focus": -0.1},
        {"focus": 0.5, "init": "svd"},
    ],
)
def test_bad_settings(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(fields)))):
        FactorizeSettings(**fields)  # type: ignore[arg-type]
