"""Beam search token for token against openai-whisper's, with the same random weights."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.decoding.options import DecodingOptions
from tests.support import tiny

whisper_decoding = pytest.importorskip("whisper.decoding")

MODELS = (0, 1, 2)
"""Seeds of the models' weights."""
SEARCHES: dict[str, dict[str, Any]] = {
    "1 beam": {"beam_size": 1},
    "2 beams": {"beam_size": 2},
    "5 beams": {"beam_size": 5},
    "8 beams": {"beam_size": 8, "sample_len": 20},
    "patience 2": {"beam_size": 3, "patience": 2.0},
    "patience 1.5 and Wu's penalty": {"beam_size": 4, "patience": 1.5, "length_penalty": 0.6},
    "by log-probability": {"beam_size": 5, "length_penalty": 0.0},
    "long ones preferred": {"beam_size": 5, "length_penalty": 1.0},
    "little patience": {"beam_size": 5, "patience": 0.4},
    "cut off": {"beam_size": 5, "sample_len": 6},
    "prompt": {"beam_size": 5, "prompt": [70, 71, 72, 73]},
}
Pair = tuple[LoadedModel, Any]


@pytest.fixture(scope="module", params=MODELS)
def pair(
    request: pytest.FixtureRequest, on_the_cpu: None, tmp_path_factory: pytest.TempPathFactory
) -> Pair:
    """Our model and openai-whisper's, whose outputs vary and end after a few tokens."""
    from whisper.model import ModelDimensions, Whisper

    dims = tiny.tiny_dims(n_audio_layer=1)
    state = tiny.tiny_state(dims, seed=request.param)
    state["decoder.positional_embedding"] *= 10
    checkpoint = tiny.tiny_checkpoint(dims, state=state)
    eot = checkpoint.vocabulary.special_tokens["<|endoftext|>"]
    end = state["decoder.token_embedding.weight"][eot]
    state["decoder.ln.bias"] += 2 * end / (end @ end)  # 2 more on the logit of the end of text
    folder = tmp_path_factory.mktemp("beam_parity") / "model"
    theirs = Whisper(ModelDimensions(**asdict(dims)))
    theirs.load_state_dict(state)
    return load_model(export_mlx(checkpoint, folder, dtype="float32")), theirs.eval()


@pytest.fixture(scope="module")
def features(pair: Pair) -> torch.Tensor:
    """Encoder states of three clips."""
    mel = np.random.default_rng(0).standard_normal((3, 80, 3000)).astype(np.float32)
    with torch.no_grad():
        states: torch.Tensor = pair[1].encoder(torch.from_numpy(mel))
    return states


@pytest.fixture(autouse=True)
def multilingual_openai(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    monkeypatch.setattr(type(pair[1]), "is_multilingual", property(lambda _: True))
    monkeypatch.setattr(type(pair[1]), "num_languages", property(lambda _: 99))


def both(
    pair: Pair, features: torch.Tensor, *, timestamps: bool, **search: Any
) -> tuple[list[Any], list[Any]]:
    """Our results and theirs for some clips, at most 40 tokens each.

    Ours are decoded as a batch, theirs clip by clip: its beams work with one clip only.
    """
    loaded, theirs = pair
    search = {"sample_len": 40} | search
    options = whisper_decoding.DecodingOptions(
        language="en", fp16=False, without_timestamps=not timestamps, **search
    )
    expected = [whisper_decoding.decode(theirs, clip, options) for clip in features]
    previous = search.pop("prompt", [])
    mine = DecodingOptions(timestamps=timestamps, max_tokens=search.pop("sample_len"), **search)
    history = [loaded.tokenizer.sot_prev, *previous] if previous else []
    prompt = loaded.tokenizer.sot_sequence("en", "transcribe", timestamps=timestamps)
    loaded.decoder.attend_to(mx.array(features.numpy()))
    return loaded.decoder.decode([*history, *prompt], mine), expected


@pytest.mark.usefixtures("same_vocabulary")
@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("name", SEARCHES)
def test_tokens(pair: Pair, features: torch.Tensor, name: str, timestamps: bool) -> None:
    ours, expected = both(pair, features, timestamps=timestamps, **SEARCHES[name])
    for mine, theirs in zip(ours, expected, strict=True):
        assert mine.tokens == theirs.tokens
        assert mine.avg_logprob == pytest.approx(theirs.avg_logprob, abs=1e-4)
        assert mine.no_speech_prob == pytest.approx(theirs.no_speech_prob, rel=1e-3)


@pytest.mark.usefixtures("same_vocabulary")
def test_the_models_are_worth_a_comparison(pair: Pair, features: torch.Tensor) -> None:
    """Some outputs end by themselves, and beams find others than greedy decoding."""
    greedy, beams = (
        [
            result.tokens
            for timestamps in (True, False)
            for result in both(pair, features, timestamps=timestamps, beam_size=size)[0]
        ]
        for size in (None, 5)
    )
    assert any(len(tokens) < 40 for tokens in beams)
    assert greedy != beams
