"""The PyTorch model compared with the runtime.

Encoder states, logits of every form of the embedding, greedy decoding token for token, and the
features and states that `prepare` stores.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import pytest
import soundfile
import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.data.prepare import prepare
from baldwhisper_convert.data.prepare_settings import PrepareSettings
from baldwhisper_convert.data.utterances import Utterance
from baldwhisper_convert.data.windows import WindowSettings
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_convert.model.greedy import decode_greedy
from baldwhisper_convert.model.layers import SelfCache
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_mlx.audio.features import LogMelSpectrogram
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.decoding.options import DecodingOptions
from tests.support.tiny import EMBEDDINGS, factorized_state, tiny_checkpoint, tiny_dims, tiny_state
from tests.support.tiny_speech import sound

CONTEXT = 60
DIMS = tiny_dims(n_audio_layer=1, n_text_layer=2, n_text_ctx=CONTEXT)
TOKENS = [[410, 1, 99, 300, 7, 250, 1900], [410, 2, 0, 511, 8, 1000, 3]]


class Twins(NamedTuple):
    checkpoint: Checkpoint
    ours: Whisper
    loaded: LoadedModel


@pytest.fixture(scope="module", params=EMBEDDINGS)
def twins(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Twins:
    """One random model in both programs; the sizes of two of its parts make it write texts
    that vary with the position, and end here and there."""
    options = EMBEDDINGS[request.param]
    state = tiny_state(DIMS) if options is None else factorized_state(DIMS, 16, **options)
    checkpoint = tiny_checkpoint(DIMS, state=state, alignment_heads=None)
    state["decoder.positional_embedding"] *= 10
    embedding = "weight" if options is None else "factors"
    state[f"decoder.token_embedding.{embedding}"][Prompts.of(checkpoint).end] *= 3
    folder = export_mlx(
        checkpoint, tmp_path_factory.mktemp("twins") / request.param, dtype="float32"
    )
    # Read back from the folder, as every stage does.
    ours = Whisper.from_checkpoint(read_checkpoint(folder))
    return Twins(checkpoint, ours, load_model(folder))


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_stage_folder_keeps_every_weight(twins: Twins) -> None:
    state = twins.ours.canonical_state()
    assert state.keys() == twins.checkpoint.state.keys()
    assert all(torch.equal(state[name], t) for name, t in twins.checkpoint.state.items())


@torch.no_grad()
@pytest.mark.parametrize("twins", ["dense"], indirect=True)
def test_encoder(twins: Twins) -> None:
    mel = randn(2, 80, 3000)
    theirs = np.array(twins.loaded.model.encoder(mx.array(mel.swapaxes(1, 2).numpy())))
    np.testing.assert_allclose(twins.ours.encoder(mel).numpy(), theirs, atol=1e-4)


@torch.no_grad()
def test_logits_at_once_and_step_by_step(twins: Twins) -> None:
    audio = randn(2, 40, 64)
    model = twins.loaded.model
    cache = model.make_cache()
    model.attend_to(mx.array(audio.numpy()), cache)
    theirs = np.array(model.logits(model.decoder(mx.array(TOKENS), cache)))
    tokens = torch.tensor(TOKENS)
    whole = twins.ours.logits(twins.ours.decoder(tokens, audio)).numpy()
    np.testing.assert_allclose(whole, theirs, atol=1e-4, rtol=1e-4)
    kv = twins.ours.decoder.project_audio(audio)
    caches = [SelfCache() for _ in twins.ours.decoder.blocks]
    steps = [
        twins.ours.logits(twins.ours.decoder(tokens[:, i : i + 1], kv, cache=caches)).numpy()
        for i in range(tokens.shape[1])
    ]
    np.testing.assert_allclose(np.concatenate(steps, axis=1), theirs, atol=1e-4, rtol=1e-4)


def both_decode(
    twins: Twins, audio: torch.Tensor, *, timestamps: bool, max_tokens: int | None
) -> tuple[list[list[int]], list[list[int]]]:
    """Greedy output of both programs for encoder states (B, T, d)."""
    prompts = Prompts.of(twins.checkpoint)
    ours = decode_greedy(
        twins.ours, audio, None, prompts, timestamps=timestamps, max_tokens=max_tokens
    )
    twins.loaded.decoder.attend_to(mx.array(audio.numpy()))
    results = twins.loaded.decoder.decode(
        twins.loaded.tokenizer.sot_sequence("en", "transcribe", timestamps=timestamps),
        DecodingOptions(timestamps=timestamps, max_tokens=max_tokens),
    )
    return ours, [result.tokens for result in results]


@pytest.mark.parametrize("timestamps", [False, True])
def test_greedy_decoding(twins: Twins, timestamps: bool) -> None:
    """Batches whose rows end at different times, or are cut off by the limits."""
    lengths = []
    for seed, max_tokens in enumerate([9999, 40, None]):
        audio = randn(6, 30, 64, seed=seed)
        ours, theirs = both_decode(twins, audio, timestamps=timestamps, max_tokens=max_tokens)
        assert ours == theirs
        lengths.append({len(row) for row in ours})
    assert any(len(one) > 1 for one in lengths)


@pytest.mark.parametrize("twins", ["dense"], indirect=True)
@pytest.mark.parametrize("seconds", [30.0, 12.345, 0.31])
def test_prepared_features_are_the_runtimes(twins: Twins, tmp_path: Path, seconds: float) -> None:
    """What a student trains on is what the runtime computes from the same file."""
    soundfile.write(tmp_path / "a.wav", sound(seconds), SAMPLE_RATE)
    utterance = Utterance("a", str(tmp_path / "a.wav"), "a fox")
    mel = LogMelSpectrogram(load_audio(tmp_path / "a.wav"), 80).window(0)
    states = np.array(twins.loaded.model.encoder(mel[None]))[0]
    windows = WindowSettings(single=1, silence=0, pause=0, full=1)
    expected = {"mel": np.array(mel).T, "states": states}
    for features, theirs in expected.items():
        settings = PrepareSettings(features=features, windows=windows)  # type: ignore[arg-type]
        data = prepare(twins.checkpoint, [utterance], settings, tmp_path / features)
        assert data.windows[0].positions == 1500
        np.testing.assert_allclose(data.features(0).numpy(), theirs, atol=5e-3)


@pytest.mark.parametrize("twins", ["dense"], indirect=True)
@pytest.mark.parametrize("seconds", [12.345, 0.31])
def test_prepared_states_of_a_dynamic_context_are_the_runtimes(
    twins: Twins, tmp_path: Path, seconds: float
) -> None:
    """Its encoder receives the clip and the margin, rounded up to a bucket, and no more."""
    checkpoint = replace(twins.checkpoint, audio_context="dynamic", audio_context_margin=40)
    loaded = load_model(export_mlx(checkpoint, tmp_path / "model", dtype="float32"))
    soundfile.write(tmp_path / "a.wav", sound(seconds), SAMPLE_RATE)
    mel = LogMelSpectrogram(load_audio(tmp_path / "a.wav"), 80)
    cache = loaded.model.make_cache()
    loaded.model.encode(mel.window(0)[None], [mel.n_frames], cache)
    windows = WindowSettings(single=1, silence=0, pause=0, full=0, margin=0.8)
    settings = PrepareSettings(windows=windows, audio_context="dynamic")
    utterance = Utterance("a", str(tmp_path / "a.wav"), "a fox")
    states = prepare(checkpoint, [utterance], settings, tmp_path / "data").features(0)
    with torch.no_grad():
        projected = twins.ours.decoder.project_audio(states[None])
    for layer, (keys, values) in projected.items():
        kept = cache[layer].cross_attn
        assert kept.offset == len(states)
        for ours, theirs in zip((keys, values), kept.state(), strict=True):
            np.testing.assert_allclose(ours.numpy(), np.array(theirs), atol=5e-3)
