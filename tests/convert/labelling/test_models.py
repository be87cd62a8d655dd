"""The runtime and torch write the same labels with the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from baldwhisper_convert.labelling import models
from baldwhisper_convert.model.greedy import mean_logprobs
from baldwhisper_convert.model.whisper import Whisper
from tests.support.tiny_speech import sound, tiny_prompts, tiny_teacher


def test_folders_run_in_the_runtime_and_checkpoints_in_torch(
    mlx_folder: Path, hf_folder: Path
) -> None:
    clips = [sound(2.0, 1), sound(1.2, 2), sound(2.5, 3)]
    runtime = models.load(str(mlx_folder), "English")
    other = models.load(str(hf_folder), "en")
    assert type(runtime).__name__ == "_Runtime"
    assert type(other).__name__ == "_Torch"
    for ours, theirs in zip(runtime.label(clips), other.label(clips), strict=True):
        assert ours.text == theirs.text
        assert ours.finished == theirs.finished
        if ours.finished:
            assert ours.avg_logprob == pytest.approx(theirs.avg_logprob, abs=1e-3)


def test_mean_logprobs_by_hand() -> None:
    """Rows of different lengths, each against a decoder pass of its own."""
    model, prompts = Whisper.from_checkpoint(tiny_teacher()), tiny_prompts()
    audio = torch.randn(2, 1500, 16, generator=torch.Generator().manual_seed(0))
    rows = [[7, 8, 9], [10]]
    means = mean_logprobs(model, audio, rows, prompts)
    start = prompts.sot_sequence(timestamps=False)
    never = list(prompts.tokenizer.suppressed_tokens)
    for i, row in enumerate(rows):
        body = [*row, prompts.end]
        with torch.no_grad():
            tokens = torch.tensor([[*start, *row]])
            states = model.decoder(tokens, audio[i : i + 1]).state[0, len(start) - 1 :]
            logits = model.decoder.token_embedding.as_linear(states)
        logits[:, never] = -torch.inf
        logits[0, list(prompts.tokenizer.blank_tokens)] = -torch.inf
        scores = logits.log_softmax(-1)
        expected = sum(float(scores[k, token]) for k, token in enumerate(body)) / len(body)
        assert means[i] == pytest.approx(expected, abs=1e-5)


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        models.load(str(tmp_path / "gone"), "en")
