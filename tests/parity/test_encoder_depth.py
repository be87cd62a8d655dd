"""Three of four encoder layers: torch, the MLX export and the Hugging Face export agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
import pytest
import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.compression.layers import (
    LayerPlan,
    apply_plan,
    group_layers,
    keep_plan,
    merge_plan,
)
from baldwhisper_convert.export.hugging_face import export_hf
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from tests.support.tiny import tiny_checkpoint, tiny_dims
from tests.support.tiny_speech import sound

PLANS = {
    "kept": keep_plan(4, [0, 2, 3]),
    "merged": merge_plan(group_layers(4, [1, 2, 1]), [(0.5, 1.0)]),
}


class Exports(NamedTuple):
    checkpoint: Checkpoint
    loaded: LoadedModel
    hugging_face: Path


@pytest.fixture(scope="module", params=PLANS)
def exports(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    plan: LayerPlan = PLANS[request.param]
    teacher = tiny_checkpoint(tiny_dims(n_audio_layer=4, n_text_layer=2), alignment_heads=None)
    student = apply_plan(teacher, plan, "encoder")
    root = tmp_path_factory.mktemp(request.param)
    clips = [sound(2.5, seed) for seed in range(2)]
    folder = export_mlx(
        student, root / "mlx", dtype="float32", calibration=clips, padding_stride=16
    )
    return Exports(student, load_model(folder), export_hf(student, root / "hf", dtype="float32"))


@pytest.fixture(scope="module")
def mel() -> torch.Tensor:
    return torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_encoder_states(exports: Exports, mel: torch.Tensor) -> None:
    from transformers import WhisperModel

    expected = Whisper.from_checkpoint(exports.checkpoint).encoder(mel).numpy()
    ours = exports.loaded.model.encoder(mx.array(mel.swapaxes(1, 2).numpy()))
    assert len(exports.loaded.model.encoder.blocks) == 3
    np.testing.assert_allclose(np.array(ours), expected, atol=1e-4)
    theirs: Any = WhisperModel.from_pretrained(exports.hugging_face, local_files_only=True)
    assert len(theirs.encoder.layers) == 3
    states = theirs.eval().encoder(mel).last_hidden_state
    np.testing.assert_allclose(states.numpy(), expected, atol=1e-4)


def test_both_exports_are_read_back_as_they_were(exports: Exports) -> None:
    folders = (Path(exports.loaded.path), exports.hugging_face)
    for folder in folders:
        again = read_checkpoint(folder)
        assert again.dims == exports.checkpoint.dims
        assert again.dims.n_audio_layer == 3
        assert again.state.keys() == exports.checkpoint.state.keys()
        for name, tensor in exports.checkpoint.state.items():
            torch.testing.assert_close(again.state[name].float(), tensor, msg=name)


def test_constants_of_the_padding_are_made_for_every_layer(exports: Exports) -> None:
    model, padding = exports.loaded.model, exports.loaded.model.padding
    assert padding is not None
    assert len(padding.keys) == len(padding.values) == 3
    cache = model.make_cache()
    model.encode(mx.zeros((1, 3000, 80)), [150], cache)
    logits = model.logits(model.decoder(mx.array([[5, 6]]), cache))
    assert bool(mx.isfinite(logits).all())


def test_a_decoder_of_another_depth_is_not_confused_with_it(
    exports: Exports, tmp_path: Path
) -> None:
    """The config's two numbers of layers differ, and a wrong one is an error."""
    config = exports.loaded.config
    assert (config.n_audio_layer, config.n_text_layer) == (3, 2)
    wrong = replace(config, n_audio_layer=2)
    folder = export_mlx(exports.checkpoint, tmp_path / "model", dtype="float32")
    import json

    (folder / "config.json").write_text(json.dumps(wrong.to_dict()))
    with pytest.raises(ValueError, match=r"encoder\.blocks\.2"):
        load_model(folder)
