"""LoRA: only adapters are trained, the result is a plain model, and a resume is exact."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from baldwhisper_convert.data.prepared import Prepared
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.pipeline.recipe import StageRecipe
from baldwhisper_convert.pipeline.settings import build, override
from baldwhisper_convert.training.loop import train
from baldwhisper_convert.training.lora import add_lora
from baldwhisper_convert.training.objectives import Transcription
from baldwhisper_convert.training.settings import LoraSettings, TrainingSettings
from tests.support import tiny_runs
from tests.support.tiny_prepared import tiny_prompts, tiny_student

LORA = LoraSettings(rank=2, alpha=4.0)


def settings(**changes: Any) -> TrainingSettings:
    return TrainingSettings(**(tiny_runs.PLAIN | {"lora": LORA, "epochs": 1.5} | changes))


def run(
    folder: Path, data: Prepared, how: TrainingSettings, stop_after: int | None = None
) -> dict[str, torch.Tensor]:
    """Trains a tiny student; stops it by an error at a read of the data, as a kill would."""
    student = tiny_student()
    merge = add_lora(student, how)

    def stop(reads: int) -> None:
        if reads == stop_after:
            raise KeyboardInterrupt

    train(student, Transcription(), tiny_runs.Watched(data, stop), tiny_prompts(), how, folder)  # type: ignore[arg-type]
    merge()
    return student.canonical_state()


@pytest.fixture(autouse=True)
def _lean(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_runs.lean(monkeypatch.setattr)


def test_adapters_change_nothing_at_first() -> None:
    plain, adapted = tiny_student(), tiny_student()
    tokens = torch.arange(6)[None]
    states = torch.randn(1, 10, plain.dims.n_audio_state)
    merge = add_lora(adapted, settings())
    assert any(".lora_A." in name for name, _ in adapted.named_parameters())
    assert torch.equal(adapted.decoder(tokens, states).state, plain.decoder(tokens, states).state)
    merge()
    mine, other = adapted.canonical_state(), plain.canonical_state()
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[name], other[name]) for name in other)


def test_only_the_targets_change(tmp_path: Path, data: Prepared) -> None:
    """`freeze` is the encoder by default; biases, norms and the embedding stay as they were."""
    start = tiny_student().canonical_state()
    found = run(tmp_path, data, settings())
    assert found.keys() == start.keys()
    changed = {name for name in start if not torch.equal(found[name], start[name])}
    expected = {
        name
        for name in start
        if name.startswith("decoder.") and name.endswith((".query.weight", ".value.weight"))
    }
    assert changed == expected
    for name in changed:
        assert torch.linalg.matrix_rank(found[name] - start[name], rtol=1e-3) <= LORA.rank


def test_the_merged_model_is_the_trained_one(tmp_path: Path, data: Prepared) -> None:
    student = tiny_student()
    how = settings()
    merge = add_lora(student, how)
    train(student, Transcription(), data, tiny_prompts(), how, tmp_path)
    tokens, states = torch.arange(6)[None], torch.randn(1, 10, student.dims.n_audio_state)
    before = student.decoder(tokens, states).state
    merge()
    plain = Whisper(student.dims, tiny_student().decoder.token_embedding.form).eval()
    plain.load_state_dict(student.canonical_state())
    torch.testing.assert_close(plain.decoder(tokens, states).state, before)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_resume_is_exact(
    tmp_path: Path, data: Prepared, monkeypatch: pytest.MonkeyPatch, ema: float
) -> None:
    tiny_runs.tick(monkeypatch.setattr)
    how = settings(ema=ema, checkpoint_minutes=tiny_runs.STEPS_BETWEEN, dropout=0.1)
    whole = run(tmp_path / "whole", data, how)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", data, how, stop_after=18)
    assert (tmp_path / "cut/checkpoint").is_dir()
    resumed = run(tmp_path / "cut", data, how)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    again = run(tmp_path / "cut", data, how)  # the run is finished
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_nothing_to_adapt() -> None:
    with pytest.raises(ValueError, match=r"no linear layer is called '\*.keys'; a valid name is"):
        add_lora(tiny_student(), settings(lora=LoraSettings(targets=("*.keys",))))
    with pytest.raises(ValueError, match="`freeze` names every layer"):
        add_lora(tiny_student(), settings(freeze=("*",)))


def test_a_missing_package_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'baldwhisper-mlx\[lora\]'"):
        LoraSettings()


def test_in_recipes_and_on_the_command_line() -> None:
    raw = {"stage": "finetune", "data": ["x"], "training": {"lora": {"rank": 8}}}
    stage = build(StageRecipe, raw, "recipe")
    assert stage.training is not None
    assert stage.training.lora == LoraSettings(rank=8)
    assert stage.settings["training"]["lora"]["rank"] == 8
    plain = dataclasses.replace(stage, training=TrainingSettings())
    assert "lora" not in plain.settings["training"]
    set_by_option = override(plain, ["training.lora={rank = 8}"])
    assert set_by_option.training == dataclasses.replace(plain.training, lora=LoraSettings(rank=8))
    with pytest.raises(ValueError, match="rank must be at least 1"):
        LoraSettings(rank=0)
