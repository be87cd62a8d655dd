"""The runtime and torch write the same labels with the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from baldwhisper_convert.export.hugging_face import export_hf
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_convert.labelling import models
from baldwhisper_convert.model.greedy import confidence
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_mlx.audio.load import load_audio
from tests.support.tiny import tiny_checkpoint, tiny_dims
from tests.support.tiny_speech import tiny_prompts, tiny_teacher

SAMPLE = Path(__file__).parents[3] / "examples" / "sample.wav"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A model folder and a Hugging Face one of the same random weights, with a short context."""
    dims = tiny_dims(n_audio_layer=1, n_text_layer=1, n_text_ctx=40)
    checkpoint = tiny_checkpoint(dims, alignment_heads=None)
    exported = export_mlx(checkpoint, tmp_path / "exported", dtype="float32")
    return exported, export_hf(checkpoint, tmp_path / "hf", dtype="float32")


def test_folders_run_in_the_runtime_and_checkpoints_in_torch(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_NO_SPEECH", 9.0)  # random weights find no speech anywhere
    speech = load_audio(SAMPLE)
    clips = [speech[16000:44000], speech[48000:72000]]
    runtime, other = (models.load(str(folder), "English") for folder in folders)
    assert type(runtime).__name__ == "_Runtime"
    assert type(other).__name__ == "_Torch"
    for ours, theirs in zip(runtime.label(clips), other.label(clips), strict=True):
        assert ours.text == theirs.text
        assert ours.text
        assert ours.finished == theirs.finished
        assert ours.avg_logprob == pytest.approx(theirs.avg_logprob, abs=1e-3)


def test_silence_has_no_text_in_either(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "_NO_SPEECH", 0.0)  # what random weights say is improbable, too
    clip = np.zeros(16000, np.float32)
    for folder in folders:
        assert [one.text for one in models.load(str(folder), "en").label([clip])] == [""]


def test_confidence_by_hand() -> None:
    """Rows of different lengths, each against a decoder pass of its own."""
    model, prompts = Whisper.from_checkpoint(tiny_teacher()), tiny_prompts()
    audio = torch.randn(2, 1500, 16, generator=torch.Generator().manual_seed(0))
    rows = [[7, 8, 9], [10]]
    found = confidence(model, audio, rows, prompts)
    start = prompts.sot_sequence(timestamps=False)
    never = list(prompts.tokenizer.suppressed_tokens)
    for i, row in enumerate(rows):
        body = [*row, prompts.end]
        with torch.no_grad():
            tokens = torch.tensor([[*start, *row]])
            states = model.decoder(tokens, audio[i : i + 1]).state[0, len(start) - 1 :]
            logits = model.decoder.token_embedding.as_linear(states)
            first = model.decoder(torch.tensor([start[:1]]), audio[i : i + 1]).state[0, 0]
            silence = model.decoder.token_embedding.as_linear(first).softmax(-1)
        logits[:, never] = -torch.inf
        logits[0, list(prompts.tokenizer.blank_tokens)] = -torch.inf
        scores = logits.log_softmax(-1)
        expected = sum(float(scores[k, token]) for k, token in enumerate(body)) / len(body)
        no_speech = float(silence[prompts.tokenizer.no_speech])
        assert found[i] == pytest.approx((expected, no_speech), abs=1e-5)


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        models.load(str(tmp_path / "gone"), "en")
