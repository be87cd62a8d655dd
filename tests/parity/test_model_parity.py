"""Encoder and decoder against openai-whisper and transformers, to 1e-4 in float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from tests.support import tiny

TOKENS = [[410, 1, 99, 300, 7, 250], [410, 2, 0, 511, 8, 1000]]


@pytest.fixture(scope="module")
def mel() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 3000, 80)).astype(np.float32)


def torch_mel(mel: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(mel.swapaxes(1, 2)))


def our_logits(loaded: LoadedModel, mel: np.ndarray, tokens: list[list[int]]) -> np.ndarray:
    """Logits of all positions, the prompt in one go."""
    cache = loaded.model.make_cache()
    loaded.model.encode(mx.array(mel), [3000] * len(mel), cache)
    hidden = loaded.model.decoder(mx.array(tokens), cache)
    return np.array(loaded.model.logits(hidden))


def test_encoder(loaded: LoadedModel, openai: Any, mel: np.ndarray) -> None:
    with torch.no_grad():
        expected = openai.encoder(torch_mel(mel)).numpy()
    ours = np.array(loaded.model.encoder(mx.array(mel)))
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_decoder(loaded: LoadedModel, openai: Any, mel: np.ndarray) -> None:
    with torch.no_grad():
        audio = openai.encoder(torch_mel(mel))
        expected = openai.decoder(torch.tensor(TOKENS), audio).numpy()
    np.testing.assert_allclose(our_logits(loaded, mel, TOKENS), expected, atol=1e-4)


def test_cached_steps_equal_a_whole_pass(loaded: LoadedModel, mel: np.ndarray) -> None:
    cache = loaded.model.make_cache()
    loaded.model.encode(mx.array(mel), [3000, 3000], cache)
    steps = []
    for position in range(len(TOKENS[0])):
        token = mx.array([[row[position]] for row in TOKENS])
        steps.append(np.array(loaded.model.logits(loaded.model.decoder(token, cache))))
    together = our_logits(loaded, mel, TOKENS)
    np.testing.assert_allclose(np.concatenate(steps, axis=1), together, atol=1e-4)


@pytest.mark.parametrize("n_mels", [80, 128])
def test_transformers(tmp_path: Path, n_mels: int) -> None:
    dims = tiny.tiny_dims(n_mels=n_mels)
    model = tiny.tiny_hf_model(dims)
    folder = tiny.tiny_hf_folder(tmp_path / "hf", model)
    exported = export_mlx(read_checkpoint(folder), tmp_path / "mlx", dtype="float32")
    mel = np.random.default_rng(1).standard_normal((2, 3000, n_mels)).astype(np.float32)
    with torch.no_grad():
        output = model(input_features=torch_mel(mel), decoder_input_ids=torch.tensor(TOKENS))
    ours = our_logits(load_model(exported), mel, TOKENS)
    np.testing.assert_allclose(ours, output.logits.numpy(), atol=1e-4)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("dense_rows", [0, 30])
def test_factorized_embedding_is_its_dense_matrix(
    tmp_path: Path, mel: np.ndarray, separate: bool, mean: bool, dense_rows: int
) -> None:
    """Multiplied out, E1 E2 and its variants are a V x d matrix for each end of the decoder."""
    dims = tiny.tiny_dims()
    state = tiny.factorized_state(dims, 8, separate=separate, mean=mean, dense_rows=dense_rows)
    factorized = tiny.tiny_checkpoint(dims, state=state)
    loaded = load_model(export_mlx(factorized, tmp_path / "factorized", dtype="float32"))
    embedding = loaded.model.decoder.token_embedding
    ends = dense_ends(state)
    ids = np.arange(dims.n_vocab)
    np.testing.assert_allclose(np.array(embedding(mx.array(ids[None])))[0], ends[0], atol=1e-5)
    hidden = np.random.default_rng(3).standard_normal((2, 1, 64)).astype(np.float32)
    logits = np.array(embedding.as_linear(mx.array(hidden)))
    np.testing.assert_allclose(logits, hidden @ ends[1].T, atol=1e-4)
    if not separate:
        dense = {k: v for k, v in state.items() if "token_embedding" not in k}
        dense["decoder.token_embedding.weight"] = torch.from_numpy(ends[0])
        plain = replace(factorized, state=dense)
        twin = load_model(export_mlx(plain, tmp_path / "dense", dtype="float32"))
        np.testing.assert_allclose(
            our_logits(loaded, mel[:1], TOKENS[:1]),
            our_logits(twin, mel[:1], TOKENS[:1]),
            atol=1e-3,
        )


def dense_ends(state: dict[str, torch.Tensor]) -> list[np.ndarray]:
    """The V x d matrices that the factorized embedding stands for at its input and output."""
    part = {k.split(".")[-1]: v.numpy() for k, v in state.items() if "token_embedding" in k}
    ends = []
    for projection in ("input_projection", "output_projection"):
        matrix = part["factors"] @ part.get(projection, part["input_projection"])
        matrix = matrix + part.get("mean", 0)
        if "dense_rows" in part:
            matrix[part["dense_ids"]] = part["dense_rows"]
        ends.append(matrix.astype(np.float32))
    return ends


def test_short_contexts_against_openai_on_the_cut_input(
    checkpoint: Checkpoint, openai: Any, mel: np.ndarray, tmp_path: Path
) -> None:
    """trimmed: cross-attention sees the first positions; dynamic: so does the encoder."""
    mel = mel[:1].copy()
    mel[:, 500:] = 0  # 5 s: 250 positions and 25 of margin make 300
    for context in ("trimmed", "dynamic"):
        folder = export_mlx(checkpoint, tmp_path / context, dtype="float32", audio_context=context)
        loaded = load_model(folder)
        cache = loaded.model.make_cache()
        loaded.model.encode(mx.array(mel), [500], cache)
        ours = loaded.model.logits(loaded.model.decoder(mx.array(TOKENS[:1]), cache))
        with torch.no_grad():
            if context == "trimmed":
                audio = openai.encoder(torch_mel(mel))[:, :300]
            else:
                full, openai.encoder.positional_embedding = (
                    openai.encoder.positional_embedding,
                    openai.encoder.positional_embedding[:300],
                )
                audio = openai.encoder(torch_mel(mel[:, :600]))
                openai.encoder.positional_embedding = full
            expected = openai.decoder(torch.tensor(TOKENS[:1]), audio).numpy()
        np.testing.assert_allclose(np.array(ours), expected, atol=1e-4)
