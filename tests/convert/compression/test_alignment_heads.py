"""Which heads follow the audio: scores, choice, the config, the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from baldwhisper_convert.cli.main import main
from baldwhisper_convert.compression.alignment_heads import (
    attention_to_audio,
    choose_heads,
    forward_share,
    score_heads,
    write_heads,
)
from baldwhisper_convert.data.speech import sample
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_mlx.config import ModelConfig
from tests.support.tiny_prepared import teacher_checkpoint, tiny_prepared, tiny_prompts


def diagonal(n: int, length: int, places: np.ndarray) -> np.ndarray:
    """Attention that lies at one place for each token."""
    attention = np.full((n, length), 1e-4, np.float32)
    attention[np.arange(n), places] = 1
    return attention / attention.sum(1, keepdims=True)


def test_heads_that_go_forward_score_highest() -> None:
    n, length = 12, 200
    forward = np.linspace(5, 190, n).astype(int)
    rng = np.random.default_rng(0)
    steady = forward_share(diagonal(n, length, forward))
    assert steady > 0.85
    others = {
        "back and forth": forward[rng.permutation(n)],
        "one place": np.full(n, 77),
        "backward": forward[::-1],
    }
    for name, places in others.items():
        assert forward_share(diagonal(n, length, places)) < 0.5 * steady, name
    uniform = np.full((n, length), 1 / length, np.float32)
    assert forward_share(uniform) < 0.2


@pytest.mark.parametrize("mel", [False, True])
def test_attention_is_the_models(tmp_path: Path, mel: bool) -> None:
    """Multiplied with the values it gives what the model computes."""
    data = tiny_prepared(tmp_path / "data", 5, mel=mel, silence=0)
    model = Whisper.from_checkpoint(teacher_checkpoint())
    (batch,) = sample(data, tiny_prompts(), 5, timestamps=1.0)
    seen = []
    block = model.decoder.blocks[1]
    hook = block.cross_attn.out.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    with torch.no_grad():
        attention = torch.stack(list(attention_to_audio(model, batch)))
        states, _ = batch.encode(model)
        values = model.decoder.project_audio(states)[1][1]
    hook.remove()
    dims = model.dims
    assert attention.shape[:3] == (dims.n_text_layer, len(batch.tokens), dims.n_text_head)
    expected = (attention[1] @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(expected, seen[0], atol=1e-5, rtol=1e-4)
    for row, length in enumerate(batch.lengths):
        assert float(attention[:, row, :, :, int(length) :].sum()) == 0


def test_every_head_is_scored(tmp_path: Path) -> None:
    data = tiny_prepared(tmp_path / "data", 10, silence=0)
    model = Whisper.from_checkpoint(teacher_checkpoint())
    batches = sample(data, tiny_prompts(), 10, timestamps=1.0)
    scores = score_heads(model, batches, tiny_prompts().end)
    dims = model.dims
    assert set(scores) == set(np.ndindex(dims.n_text_layer, dims.n_text_head))
    assert all(0 <= score <= 1 + 1e-5 for score in scores.values())
    silent = tiny_prepared(tmp_path / "silent", 3, silence=1)
    with pytest.raises(ValueError, match="no window"):
        score_heads(model, [*sample(silent, tiny_prompts(), 3)], tiny_prompts().end)


def test_choice() -> None:
    scores = {(0, 0): 0.9, (0, 1): 0.1, (1, 0): 0.6, (1, 1): 0.5, (2, 0): 0.89}
    assert choose_heads(scores, 2, 0.0) == ((0, 0), (2, 0))
    assert choose_heads(scores, 9, 0.6) == ((0, 0), (1, 0), (2, 0))
    assert choose_heads(scores, 1, 1.0) == ((0, 0),)


def test_the_command_writes_the_config(tmp_path: Path) -> None:
    tiny_prepared(tmp_path / "data", 8, silence=0)
    model = export_mlx(teacher_checkpoint(), tmp_path / "model", dtype="float32")
    before = ModelConfig.from_file(model / "config.json")
    arguments = ["align", str(model), "--data", str(tmp_path / "data"), "--most", "2"]
    shown = CliRunner().invoke(main, [*arguments, "--print-only"])
    assert shown.exit_code == 0, shown.output
    assert ModelConfig.from_file(model / "config.json") == before
    result = CliRunner().invoke(main, arguments)
    assert result.output == shown.output
    assert result.output.count("\n") == 4
    config = ModelConfig.from_file(model / "config.json")
    assert 1 <= len(config.alignment_heads) <= 2
    for layer, head in config.alignment_heads:
        assert f"> layer {layer}, head {head}: " in result.output
    assert {p.name for p in model.iterdir()} >= {"config.json", "model.safetensors"}
    with pytest.raises(ValueError, match="alignment_heads"):
        write_heads(model, [(99, 0)])
    assert json.loads((model / "config.json").read_text())["alignment_heads"] == [
        list(pair) for pair in config.alignment_heads
    ]
