"""The PyTorch model: parity with transformers, state, caches, masks and dropout."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.model.layers import SelfCache
from baldwhisper_convert.model.whisper import Whisper, length_mask
from tests.support.tiny import EMBEDDINGS, factorized_state, tiny_checkpoint, tiny_dims, tiny_state

DIMS = tiny_dims(n_audio_layer=1, n_text_layer=2)


def checkpoint_of(form: str) -> Checkpoint:
    options = EMBEDDINGS[form]
    state = tiny_state(DIMS) if options is None else factorized_state(DIMS, 8, **options)
    return tiny_checkpoint(DIMS, state=state, alignment_heads=None)


@pytest.fixture(scope="module", params=EMBEDDINGS)
def model(request: pytest.FixtureRequest) -> Whisper:
    return Whisper.from_checkpoint(checkpoint_of(request.param))


@pytest.fixture(scope="module")
def dense() -> Whisper:
    return Whisper.from_checkpoint(checkpoint_of("dense"))


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def random_tokens(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(DIMS.n_vocab, (batch, length), generator=generator)


@torch.no_grad()
def test_transformers(hf_model: Any, reference: Checkpoint) -> None:
    model = Whisper.from_checkpoint(reference)
    mel, tokens = randn(2, 80, 3000), random_tokens(2, 7)
    expected = hf_model(input_features=mel, decoder_input_ids=tokens, output_hidden_states=True)
    audio = model.encoder(mel)
    torch.testing.assert_close(audio, expected.encoder_last_hidden_state, atol=1e-4, rtol=1e-4)
    output = model.decoder(tokens, audio)
    torch.testing.assert_close(model.logits(output), expected.logits, atol=1e-4, rtol=1e-4)
    # theirs are the embedded tokens, each layer's output, and the last after the final norm
    hidden = expected.decoder_hidden_states
    assert len(output.layers) == model.dims.n_text_layer == len(hidden) - 1
    for ours, theirs in zip(output.layers[:-1], hidden[1:], strict=False):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(output.state, hidden[-1], atol=1e-4, rtol=1e-4)
    positions = model.decoder.positional_embedding[:7]
    torch.testing.assert_close(output.embedded + positions, hidden[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("form", EMBEDDINGS)
def test_round_trip_of_the_canonical_state(form: str) -> None:
    checkpoint = checkpoint_of(form)
    model = Whisper.from_checkpoint(checkpoint)
    assert not model.training
    state = model.canonical_state()
    assert state.keys() == checkpoint.state.keys()
    for name, tensor in state.items():
        assert tensor.dtype == checkpoint.state[name].dtype
        assert torch.equal(tensor, checkpoint.state[name]), name
    again = replace(checkpoint, state=state)  # checks it
    assert again.embedding == checkpoint.embedding
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert all(torch.equal(t, checkpoint.state[n]) for n, t in state.items())  # it was a copy


def test_half_precision_becomes_float32() -> None:
    checkpoint = checkpoint_of("dense")
    half = replace(checkpoint, state={n: t.half() for n, t in checkpoint.state.items()})
    state = Whisper.from_checkpoint(half).canonical_state()
    for name, tensor in half.state.items():
        assert torch.equal(state[name], tensor.float())


@torch.no_grad()
@pytest.mark.parametrize("prefix", [1, 4])
def test_cached_steps_equal_a_whole_pass(model: Whisper, prefix: int) -> None:
    tokens, audio = random_tokens(2, 9), randn(2, 20, 64)
    whole = model.decoder(tokens, audio)
    kv = model.decoder.project_audio(audio)
    cache = [SelfCache() for _ in model.decoder.blocks]
    steps = [model.decoder(tokens[:, :prefix], kv, cache=cache)]
    for i in range(prefix, 9):
        steps.append(model.decoder(tokens[:, i : i + 1], kv, cache=cache))
    assert [layer.length for layer in cache] == [9, 9]
    for name in ("embedded", "state"):
        joined = torch.cat([getattr(step, name) for step in steps], dim=1)
        torch.testing.assert_close(joined, getattr(whole, name), atol=1e-5, rtol=1e-5)
    for layer, expected in enumerate(whole.layers):
        joined = torch.cat([step.layers[layer] for step in steps], dim=1)
        torch.testing.assert_close(joined, expected, atol=1e-5, rtol=1e-5)
    logits = torch.cat([model.logits(step) for step in steps], dim=1)
    torch.testing.assert_close(logits, model.logits(whole), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_padding_changes_nothing(dense: Whisper) -> None:
    """Tokens after the end, and encoder positions after the end under their mask."""
    tokens, audio = random_tokens(2, 6), randn(2, 20, 64)
    lengths = torch.tensor([20, 12])
    mask = length_mask(lengths, 20)
    whole = dense.decoder(tokens, audio, mask).state
    noisy = audio.clone()
    noisy[1, 12:] = 100.0
    padded = torch.cat([tokens, random_tokens(2, 3, seed=1)], dim=1)
    found = dense.decoder(padded, noisy, mask).state[:, :6]
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)
    alone = dense.decoder(tokens[1:], audio[1:, :12]).state
    torch.testing.assert_close(alone, whole[1:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_masked_positions_do_not_change_the_encoder(dense: Whisper) -> None:
    mel = randn(2, 80, 40)
    mask = length_mask(torch.tensor([20, 12]), 20)
    whole = dense.encoder(mel, mask)
    # The convolutions of position 11 reach to frame 24.
    mel[1, :, 25:] = 5.0
    found = dense.encoder(mel, mask)
    torch.testing.assert_close(found[1, :12], whole[1, :12], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[0], whole[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(dense.encoder(mel)[1, :12], whole[1, :12], atol=1e-2)


@torch.no_grad()
def test_projected_and_plain_audio_give_the_same(dense: Whisper) -> None:
    tokens, audio = random_tokens(1, 4), randn(1, 10, 64)
    kv = dense.decoder.project_audio(audio)
    assert list(kv) == [0, 1]
    assert kv[0][0].shape == (1, 4, 10, 16)
    expected = dense.decoder(tokens, audio).state
    assert torch.equal(dense.decoder(tokens, kv).state, expected)
    one = dense.decoder.project_audio(audio, [1])
    assert list(one) == [1]
    assert torch.equal(one[1][1], kv[1][1])


@torch.no_grad()
def test_dropout_is_the_decoders_and_for_training_only() -> None:
    model = Whisper.from_checkpoint(checkpoint_of("dense"))
    tokens, audio, mel = random_tokens(2, 5), randn(2, 10, 64), randn(1, 80, 40)
    plain, encoded = model.decoder(tokens, audio).state, model.encoder(mel)
    model.set_dropout(0.5)
    assert torch.equal(model.decoder(tokens, audio).state, plain)
    model.train()
    torch.manual_seed(0)
    first, second = (model.decoder(tokens, audio).state for _ in range(2))
    assert not torch.allclose(first, plain)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(model.encoder(mel), encoded)
    model.set_dropout(0.0)
    torch.testing.assert_close(model.decoder(tokens, audio).state, plain)


def test_length_mask() -> None:
    lengths = [3, 0, 5]
    mask = length_mask(torch.tensor(lengths), 5)
    assert mask is not None
    assert mask.shape == (3, 1, 1, 5)
    assert mask[:, 0, 0].tolist() == [[i < length for i in range(5)] for length in lengths]
    assert length_mask(torch.tensor([5, 7]), 5) is None


def test_every_weight_learns(model: Whisper) -> None:
    """From log-mel to logits; but for the encoder's fixed positions, which are no parameter."""
    model.zero_grad()
    tokens = torch.arange(DIMS.n_vocab)[None, :: DIMS.n_vocab // 400]
    audio = model.encoder(randn(1, 80, 40))
    model.logits(model.decoder(tokens, audio)).square().mean().backward()
    names = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    model.zero_grad()
    assert names == set()
    assert "encoder.positional_embedding" not in dict(model.named_parameters())
