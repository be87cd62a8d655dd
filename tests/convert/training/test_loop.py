"""The training loop: what it learns, what it keeps, and what it refuses."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from baldwhisper_convert.data.batches import Batch
from baldwhisper_convert.data.prepared import SILENCE, Prepared
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training.log import TrainingLog
from baldwhisper_convert.training.loop import train
from baldwhisper_convert.training.objectives import (
    Distillation,
    LossSettings,
    Terms,
    Transcription,
)
from baldwhisper_convert.training.settings import TrainingSettings, rate
from tests.support import tiny_runs
from tests.support.tiny_prepared import (
    GROUPS,
    tiny_prepared,
    tiny_prompts,
    tiny_student,
    tiny_teacher,
)
from tests.support.tiny_runs import (
    PLAIN,
    STEPS_BETWEEN,
    Watched,
    different,
    lean,
    losses,
    run,
    same,
    tick,
)


@pytest.fixture(autouse=True)
def _lean(monkeypatch: pytest.MonkeyPatch) -> None:
    lean(monkeypatch.setattr)


def test_a_student_learns_what_it_is_shown(tmp_path: Path) -> None:
    few = tiny_prepared(tmp_path / "data", 6)
    _, results = run(tmp_path, few, batch_size=6, epochs=25)
    rows = losses(tmp_path)
    assert results["steps"] == len(rows) == 25
    assert rows[-1]["kl"] < 0.4 * rows[0]["kl"]
    assert rows[-1]["hidden"] < 0.7 * rows[0]["hidden"]
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert rows[-1]["agreement"] > rows[0]["agreement"] + 0.2
    for row in rows:
        assert row["loss"] == pytest.approx(row["ce"] + row["kl"] + row["hidden"], rel=1e-4)


def test_the_log_counts_steps_and_epochs_and_shows_the_rate(tmp_path: Path, data: Prepared) -> None:
    run(tmp_path, data, epochs=1.5)
    rows = losses(tmp_path)
    assert [(row["step"], row["epoch"]) for row in rows] == [
        (1, 0), (2, 0), (3, 0), (4, 0), (5, 1), (6, 1),
    ]  # fmt: skip
    settings = TrainingSettings(epochs=1.5, **PLAIN)
    expected = [settings.learning_rate * rate(step, 6, settings) for step in range(6)]
    assert [row["lr"] for row in rows] == pytest.approx(expected, rel=1e-5)


def test_only_what_may_learn_moves(tmp_path: Path, data: Prepared) -> None:
    start = tiny_student().canonical_state()
    end, _ = run(tmp_path, data, epochs=0.5, freeze=("encoder.*", "*.attn.*"))
    moved = different(start, {name: end[name] for name in start})
    assert moved == {n for n in start if not n.startswith("encoder.") and ".attn." not in n}


def test_late_parameters_start_late(tmp_path: Path, data: Prepared) -> None:
    seen: list[set[str]] = []
    start = tiny_student().canonical_state()

    def evaluate(model: Whisper) -> dict[str, float]:
        seen.append(different(start, model.canonical_state()))
        return {"score": 0.0}

    late = ("decoder.token_embedding.*", "decoder.blocks.0.*")
    run(tmp_path, data, epochs=1.5, late=late, late_start=0.5, evaluate_every=1, evaluate=evaluate)
    waiting = [any("token_embedding" in n or "blocks.0." in n for n in names) for names in seen]
    assert waiting == [False] * 3 + [True] * 3
    assert all("decoder.blocks.1.mlp.0.weight" in names for names in seen)


def first_gradients(
    folder: Path, data: Prepared, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Gradients of the first step, before they are clipped, and its line in the log."""
    found: list[Tensor | None] = []
    original = Accelerator.clip_grad_norm_

    def clip(self: Accelerator, parameters: Any, *rest: Any) -> Any:
        parameters = list(parameters)
        found.extend(p.grad.clone() for p in parameters if p.grad is not None)
        return original(self, parameters, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Accelerator, "clip_grad_norm_", clip)
        run(folder, data, epochs=0.01, **settings)
    return {str(i): gradient for i, gradient in enumerate(found)}, losses(folder)[0]


@pytest.mark.parametrize("accumulate", [2, 8])
def test_accumulated_batches_are_one_batch(
    tmp_path: Path, data: Prepared, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    once, row = first_gradients(tmp_path / "1", data, monkeypatch, batch_size=8)
    parts, parts_row = first_gradients(
        tmp_path / "2", data, monkeypatch, batch_size=8, accumulate=accumulate
    )
    assert len(once) > 40
    torch.testing.assert_close(parts, once, rtol=1e-4, atol=1e-6)
    assert parts_row == pytest.approx(row, rel=1e-4)


def test_the_best_weights_are_kept(tmp_path: Path, data: Prepared) -> None:
    scores = iter([3.0, 1.0, 2.0, 1.0])
    seen: list[dict[str, Tensor]] = []

    def evaluate(model: Whisper) -> dict[str, float]:
        assert not model.training
        seen.append(model.canonical_state())
        return {"score": next(scores), "wer": 0.5}

    end, results = run(tmp_path, data, epochs=2, evaluate_every=2, evaluate=evaluate)
    assert len(seen) == 4
    assert same(seen[1], {name: end[name] for name in seen[1]})
    assert {k: v for k, v in results.items() if k != "seconds"} == {
        "steps": 8,
        "score": 1.0,
        "wer": 0.5,
        "best_step": 4,
    }
    evaluations = [row for row in losses(tmp_path) if "dev" in row]
    scores_logged = [(row["step"], row["dev"]["score"]) for row in evaluations]
    assert scores_logged == [(2, 3), (4, 1), (6, 2), (8, 1)]


def test_patience_runs_out(tmp_path: Path, data: Prepared) -> None:
    scores = iter([3.0, 2.0, 2.5, 2.0, 1.0])
    _, results = run(
        tmp_path, data, epochs=3, evaluate_every=2, patience=2,
        evaluate=lambda _: {"score": next(scores)},
    )  # fmt: skip
    assert (results["steps"], results["best_step"]) == (8, 4)


def test_without_evaluate_every_there_is_one_evaluation_at_the_end(
    tmp_path: Path, data: Prepared
) -> None:
    _, results = run(tmp_path, data, epochs=1, evaluate=lambda _: {"score": 7.0})
    assert [row["step"] for row in losses(tmp_path) if "dev" in row] == [4]
    assert results["score"] == 7


def test_a_score_that_is_no_number_is_never_best(tmp_path: Path, data: Prepared) -> None:
    end, results = run(
        tmp_path / "nan", data, epochs=1, evaluate_every=1, evaluate=lambda _: {"score": math.nan}
    )
    plain, _ = run(tmp_path / "plain", data, epochs=1)
    assert same(end, plain)
    assert "score" not in results


def test_evaluating_changes_nothing(tmp_path: Path, data: Prepared) -> None:
    plain, _ = run(tmp_path / "plain", data, epochs=2, dropout=0.2, ema=0.5)
    last: list[dict[str, Tensor]] = []

    def evaluate(model: Whisper) -> dict[str, float]:
        torch.rand(5)
        last.append(model.canonical_state())
        return {"score": -len(last)}

    run(
        tmp_path / "evaluated", data, epochs=2, dropout=0.2, ema=0.5, evaluate_every=1,
        evaluate=evaluate,
    )  # fmt: skip
    assert same(last[-1], {name: plain[name] for name in last[-1]})
    steps = [row for row in losses(tmp_path / "evaluated") if "loss" in row]
    assert steps == losses(tmp_path / "plain")


def test_the_average_of_the_weights_is_kept(tmp_path: Path, data: Prepared) -> None:
    seen: list[dict[str, Tensor]] = []

    def evaluate(model: Whisper) -> dict[str, float]:
        seen.append(model.canonical_state())
        return {"score": float(-len(seen))}

    name = "decoder.blocks.0.mlp.0.weight"
    run(tmp_path / "plain", data, epochs=1, evaluate_every=1, evaluate=evaluate)
    weights = [state[name] for state in seen]
    average = tiny_student().canonical_state()[name]
    for step, weight in enumerate(weights):
        decay = min(0.3, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
    end, _ = run(tmp_path / "ema", data, epochs=1, ema=0.3)
    torch.testing.assert_close(end[name], average)
    assert not torch.allclose(end[name], weights[-1])


def test_dropout_acts_in_training_only_and_is_switched_off(tmp_path: Path, data: Prepared) -> None:
    student = tiny_student()
    objective = Distillation(tiny_teacher(), GROUPS, LossSettings())
    settings = TrainingSettings(**(PLAIN | {"dropout": 0.3, "epochs": 0.5}))
    train(student, objective, data, tiny_prompts(), settings, tmp_path / "a")
    assert not student.training
    assert all(block.dropout.p == 0 for block in student.decoder.blocks)
    run(tmp_path / "b", data, epochs=0.5, loss=LossSettings())
    assert losses(tmp_path / "a")[0]["kl"] != losses(tmp_path / "b")[0]["kl"]


def test_the_seed_decides(tmp_path: Path, data: Prepared) -> None:
    ends = [
        run(tmp_path / str(i), data, epochs=0.5, dropout=0.1, seed=seed)[0]
        for i, seed in enumerate([1, 1, 2])
    ]
    assert same(ends[0], ends[1])
    assert not same(ends[0], ends[2])


def test_bfloat16_runs_near_float32_and_leaves_float32_weights(
    tmp_path: Path, data: Prepared
) -> None:
    run(tmp_path / "no", data, epochs=1)
    end, _ = run(tmp_path / "bf16", data, epochs=1, mixed_precision="bf16")
    pairs = list(zip(losses(tmp_path / "no"), losses(tmp_path / "bf16"), strict=True))
    assert all(b["kl"] == pytest.approx(a["kl"], rel=0.05, abs=0.02) for a, b in pairs)
    assert any(b["kl"] != a["kl"] for a, b in pairs)
    assert {tensor.dtype for tensor in end.values()} == {torch.float32}
    # And back again, in the same process.
    run(tmp_path / "again", data, epochs=1)
    assert losses(tmp_path / "again") == losses(tmp_path / "no")


class Types(nn.Module):
    """Notes the type that a product comes out in, for every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.dtype] = []

    def forward(self, model: Whisper, batch: Batch) -> Terms:
        weight = model.decoder.ln.weight[None]
        self.seen.append((weight @ weight.T).dtype)
        return Terms({"norm2": weight.square().sum()}, int(batch.mask.sum()))


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("no", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_every_accumulated_batch_is_computed_in_the_precision(
    precision: str, dtype: torch.dtype, tmp_path: Path, data: Prepared
) -> None:
    objective = Types()
    raw = PLAIN | {"epochs": 0.5, "accumulate": 2, "mixed_precision": precision}
    settings = TrainingSettings(**raw)
    train(tiny_student(), objective, data, tiny_prompts(), settings, tmp_path)
    assert len(objective.seen) == 2 * len(losses(tmp_path))
    assert set(objective.seen) == {dtype}


def test_float16_resumes_with_its_scale_of_the_loss(
    tmp_path: Path, data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"epochs": 2, "mixed_precision": "fp16"}
    end, _ = run(tmp_path / "whole", data, **settings)
    assert {tensor.dtype for tensor in end.values()} == {torch.float32}

    def stop(reads: int) -> None:
        if reads > 4 * 4:
            raise KeyboardInterrupt

    tick(monkeypatch.setattr)
    scales = []
    kept = torch.amp.GradScaler.load_state_dict

    def load(self: torch.amp.GradScaler, state: dict[str, Any]) -> None:
        scales.append(state["scale"])
        kept(self, state)

    monkeypatch.setattr(torch.amp.GradScaler, "load_state_dict", load)
    settings["checkpoint_minutes"] = STEPS_BETWEEN
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", Watched(data, stop), **settings)
    again, _ = run(tmp_path / "killed", data, **settings)
    assert scales
    assert same(again, end)


def test_a_batch_that_cannot_be_divided_is_an_error(tmp_path: Path, data: Prepared) -> None:
    with pytest.raises(ValueError, match="batch_size 4 is not a multiple of 3"):
        run(tmp_path, data, accumulate=3)


def test_processes_that_do_not_know_of_each_other_are_an_error(
    tmp_path: Path, data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"started 2 processes.*ACCELERATE_USE_CPU=1"):
        run(tmp_path, data)


def test_too_few_windows_are_an_error(tmp_path: Path) -> None:
    for count in (0, 1):
        few = tiny_prepared(tmp_path / f"data{count}", count)
        with pytest.raises(ValueError, match=f"{count} windows are too few"):
            run(tmp_path / "run", few, accumulate=2)


def test_less_than_a_batch_is_a_batch(tmp_path: Path) -> None:
    few = tiny_prepared(tmp_path / "data", 3)
    _, results = run(tmp_path / "run", few, batch_size=8, epochs=2)
    assert results["steps"] == 2


def test_an_encoder_does_not_learn_from_its_states(tmp_path: Path, data: Prepared) -> None:
    with pytest.raises(ValueError, match=r"freeze `encoder\.\*`, or prepare"):
        run(tmp_path, data, freeze=())


def test_an_encoder_learns_from_log_mel(tmp_path: Path) -> None:
    mel = tiny_prepared(tmp_path / "data", 4, mel=True)
    start = tiny_student().canonical_state()
    end, _ = run(tmp_path / "run", mel, epochs=1, freeze=("*.mlp_ln.*",))
    moved = different(start, {name: end[name] for name in start})
    frozen = {n for n in start if ".mlp_ln." in n or n == "encoder.positional_embedding"}
    assert moved == start.keys() - frozen


def test_any_objective_will_do(tmp_path: Path, data: Prepared) -> None:
    class Small(nn.Module):
        """Pulls the final norm's weight to 0."""

        def forward(self, model: Whisper, batch: Batch) -> Terms:
            positions = int(batch.mask.sum())
            return Terms({"norm2": model.decoder.ln.weight.square().sum() * positions}, positions)

    settings = TrainingSettings(**(PLAIN | {"epochs": 5, "freeze": ("encoder.*", "*.blocks.*")}))
    train(tiny_student(), Small(), data, tiny_prompts(), settings, tmp_path)
    found = [row["loss"] for row in losses(tmp_path)]
    assert all(a > b for a, b in pairwise(found))


def test_silence_is_learned_without_a_teacher(tmp_path: Path) -> None:
    silent = tiny_prepared(tmp_path / "data", 6, mel=True, silence=1)
    assert {window.kind for window in silent.windows} == {SILENCE}
    settings = TrainingSettings(**(PLAIN | {"epochs": 6, "freeze": (), "batch_size": 6}))
    train(tiny_student(), Transcription(), silent, tiny_prompts(), settings, tmp_path / "run")
    rows = losses(tmp_path / "run")
    assert 0 < rows[-1]["ce"] < rows[0]["ce"]


def test_an_interrupted_training_closes_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs: list[TrainingLog] = []
    released = TrainingLog.release
    monkeypatch.setattr(TrainingLog, "release", lambda self: (logs.append(self), released(self))[1])

    def interrupt(reads: int) -> None:
        if reads == 9:
            raise KeyboardInterrupt

    data = tiny_runs.Watched(tiny_prepared(tmp_path / "data"), interrupt)
    with pytest.raises(KeyboardInterrupt):
        tiny_runs.run(tmp_path / "run", data)
    assert [log._file.closed for log in logs] == [True]
