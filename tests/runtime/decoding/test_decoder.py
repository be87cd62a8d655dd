"""The decode loop against its naive twin, on random models of every embedding form."""

from __future__ import annotations

import dataclasses
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.decoding import decoder, generation
from baldwhisper_mlx.decoding.options import DecodingOptions
from baldwhisper_mlx.decoding.token_tree import TokenTree
from tests.runtime.conftest import tiny_config, write_model
from tests.support.naive import naive_decode, naive_logprobs

FORMS: dict[str, dict[str, Any]] = {
    "dense": {},
    "factorized": {
        "embedding_rank": 8,
        "embedding_projections": "separate",
        "embedding_mean": True,
        "embedding_dense_rows": 40,
    },
    "trimmed": {"audio_context": "trimmed"},
    "dynamic": {"audio_context": "dynamic", "n_text_layer": 2},
}
N_FRAMES = [300, 130, 20]
"""Mel frames of three clips, in a window of 300, a tenth of the real one."""


@pytest.fixture(scope="module", params=FORMS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("decode") / request.param
    # Nothing in decoding depends on the length of a window, and a tenth takes a tenth of the time.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("baldwhisper_mlx.config.WINDOW_POSITIONS", 150)
        config = tiny_config(n_audio_ctx=150, **FORMS[request.param])
        return load_model(write_model(folder, config), dtype="float32")


@pytest.fixture(scope="module")
def mel() -> mx.array:
    """Three clips (3, 300, 80) of different lengths, zeros after each."""
    mel = np.random.default_rng(2).standard_normal((3, 300, 80)).astype(np.float32)
    for row, n in enumerate(N_FRAMES):
        mel[row, n:] = 0
    return mx.array(mel)


def prompt_of(loaded: LoadedModel, *, timestamps: bool, previous: tuple[int, ...]) -> list[int]:
    tokenizer = loaded.tokenizer
    history = [tokenizer.sot_prev, *previous] if previous else []
    return [*history, *tokenizer.sot_sequence("en", "transcribe", timestamps=timestamps)]


@pytest.mark.parametrize("previous", [(), (70, 71, 72, 73)])
@pytest.mark.parametrize("timestamps", [True, False])
def test_cached_and_batched_is_naive(
    loaded: LoadedModel, mel: mx.array, timestamps: bool, previous: tuple[int, ...]
) -> None:
    prompt = prompt_of(loaded, timestamps=timestamps, previous=previous)
    options = DecodingOptions(timestamps=timestamps)
    loaded.decoder.encode(mel, N_FRAMES)
    results = loaded.decoder.decode(prompt, options)
    for row, result in enumerate(results):
        tokens, average, no_speech = naive_decode(
            loaded.model, loaded.decoder.vocabulary, mel[row], N_FRAMES[row], prompt, options
        )
        assert result.tokens == tokens
        assert result.avg_logprob == pytest.approx(average, abs=1e-3)
        assert result.no_speech_prob == pytest.approx(no_speech, rel=1e-3)


@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize(
    "changes",
    [
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 3},
        {"prefix": (70, 71, 72)},
        {"prefix": (70,), "no_repeat_ngram_size": 2, "repetition_penalty": 2.0},
    ],
    ids=str,
)
def test_penalties_and_prefix_are_naive(
    loaded: LoadedModel, mel: mx.array, timestamps: bool, changes: dict[str, Any]
) -> None:
    prompt = prompt_of(loaded, timestamps=timestamps, previous=(70, 71, 72, 73))
    loaded.decoder.encode(mel, N_FRAMES)
    options = DecodingOptions(timestamps=timestamps, max_tokens=24, **changes)
    if timestamps and options.prefix:
        prefix = (loaded.tokenizer.timestamp_begin, *options.prefix)
        options = dataclasses.replace(options, prefix=prefix)
    results = loaded.decoder.decode(prompt, options)
    plain = loaded.decoder.decode(prompt, DecodingOptions(timestamps=timestamps, max_tokens=24))
    assert [result.tokens for result in results] != [result.tokens for result in plain]
    for row, result in enumerate(results[:2]):
        tokens, average, no_speech = naive_decode(
            loaded.model, loaded.decoder.vocabulary, mel[row], N_FRAMES[row], prompt, options
        )
        assert result.tokens == tokens
        assert result.avg_logprob == pytest.approx(average, abs=1e-3)
        assert result.no_speech_prob == pytest.approx(no_speech, rel=1e-3)


def test_what_a_model_writes_is_what_it_writes_after_its_own_beginning(
    loaded: LoadedModel, mel: mx.array
) -> None:
    """Also its times and probabilities: a prefix is part of the output."""
    loaded.decoder.encode(mel[:1], N_FRAMES[:1])
    prompt = prompt_of(loaded, timestamps=True, previous=())
    (whole,) = loaded.decoder.decode(prompt, align_frames=[300])
    begun = DecodingOptions(prefix=tuple(whole.tokens[:5]))
    (rest,) = loaded.decoder.decode(prompt, begun, align_frames=[300])
    assert len(whole.tokens) > 8
    assert rest.tokens[: len(whole.tokens)] == whole.tokens[: len(rest.tokens)]
    assert whole.alignment is not None
    assert rest.alignment is not None
    n = min(len(whole.tokens), len(rest.tokens))
    if len(whole.tokens) == len(rest.tokens):
        np.testing.assert_allclose(rest.alignment.starts, whole.alignment.starts, atol=0.021)
    # Given tokens have the model's own probability, before any rule.
    np.testing.assert_allclose(
        rest.alignment.probabilities[5:n], whole.alignment.probabilities[5:n], atol=1e-4
    )
    for given, chosen in zip(
        rest.alignment.probabilities[:5], whole.alignment.probabilities, strict=False
    ):
        assert np.isnan(given) == np.isnan(chosen)
        assert np.isnan(given) or 0 < given <= chosen + 1e-6


def test_sets_of_options_are_not_kept_for_ever(loaded: LoadedModel, mel: mx.array) -> None:
    loaded.decoder.encode(mel[:1], N_FRAMES[:1])
    prompt = prompt_of(loaded, timestamps=True, previous=())
    for token in range(65, 65 + generation.MOST_RULES + 3):
        loaded.decoder.decode(prompt, DecodingOptions(max_tokens=1, prefix=(token,)))
    assert len(loaded.decoder._generate._rules) <= generation.MOST_RULES


def test_prefixes_share_rules_without_timestamps(loaded: LoadedModel, mel: mx.array) -> None:
    """Live drafts have another prefix and another length each time."""
    prompt = prompt_of(loaded, timestamps=False, previous=())
    rules = loaded.decoder._generate._rules
    rules.clear()
    loaded.decoder.encode(mel[:1], N_FRAMES[:1])
    for prefix in ((70,), (70, 71), (72, 73, 74)):
        options = DecodingOptions(timestamps=False, prefix=prefix, max_tokens=3 + len(prefix))
        (result,) = loaded.decoder.decode(prompt, options)
        expected, *_ = naive_decode(
            loaded.model, loaded.decoder.vocabulary, mel[0], N_FRAMES[0], prompt, options
        )
        assert result.tokens == expected
        assert len(rules) == 1
    loaded.decoder.decode(prompt, DecodingOptions(timestamps=False))
    assert len(rules) == 2  # without a prefix the first token has rules of its own


def test_a_batch_is_its_clips_one_by_one(loaded: LoadedModel, mel: mx.array) -> None:
    prompt = prompt_of(loaded, timestamps=True, previous=())
    loaded.decoder.encode(mel, N_FRAMES)
    together = loaded.decoder.decode(prompt)
    for row in (2, 0, 1):  # another batch size, so other buffers, then reused ones
        loaded.decoder.encode(mel[row : row + 1], N_FRAMES[row : row + 1])
        alone = loaded.decoder.decode(prompt)[0]
        assert alone.tokens == together[row].tokens
        assert alone.avg_logprob == pytest.approx(together[row].avg_logprob, abs=1e-4)


def test_rows_may_have_prompts_of_their_own(loaded: LoadedModel, mel: mx.array) -> None:
    tokenizer = loaded.tokenizer
    prompts = [tokenizer.sot_sequence(code, "transcribe", timestamps=True) for code in ("en", "fr")]
    loaded.decoder.encode(mel[:2], N_FRAMES[:2])
    together = loaded.decoder.decode(prompts)
    for row, prompt in enumerate(prompts):
        assert loaded.decoder.decode(prompt)[row].tokens == together[row].tokens


@pytest.mark.parametrize("check_every", [1, 3, 50])
def test_when_the_host_looks_changes_nothing(
    loaded: LoadedModel, mel: mx.array, check_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded.decoder.encode(mel, N_FRAMES)
    prompt = prompt_of(loaded, timestamps=False, previous=())
    options = DecodingOptions(timestamps=False)
    expected = loaded.decoder.decode(prompt, options)
    monkeypatch.setattr(generation, "CHECK_EVERY", check_every)
    assert loaded.decoder.decode(prompt, options) == expected


def test_early_rows_end_the_loop(
    loaded: LoadedModel, mel: mx.array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With end of text forced by a bias, a few steps run, not half the context."""
    loaded.decoder.encode(mel, N_FRAMES)
    steps = 0
    feed = TokenTree.feed

    def counted(self: TokenTree, *arguments: mx.array) -> mx.array:
        nonlocal steps
        steps += 1
        ends = mx.arange(loaded.config.n_vocab) == loaded.tokenizer.eot
        return feed(self, *arguments) + 1e4 * ends

    monkeypatch.setattr(TokenTree, "feed", counted)
    options = DecodingOptions(timestamps=False)
    prompt = prompt_of(loaded, timestamps=False, previous=())
    results = loaded.decoder.decode(prompt, options)
    assert [len(result.tokens) for result in results] == [1, 1, 1]
    assert steps <= 2 * generation.CHECK_EVERY


def test_forced_length_and_the_end_of_the_context(loaded: LoadedModel, mel: mx.array) -> None:
    loaded.decoder.encode(mel[:1], [300])
    prompt = prompt_of(loaded, timestamps=True, previous=())
    forced = loaded.decoder.decode(prompt, DecodingOptions(forced_length=17))[0]
    assert len(forced.tokens) == 17
    room = loaded.config.n_text_ctx + 1 - len(prompt)
    full = loaded.decoder.decode(prompt, DecodingOptions(forced_length=1000))[0]
    assert len(full.tokens) == room
    assert full.tokens[:17] == forced.tokens


def test_sampling_is_repeatable_and_differs_between_seeds(
    loaded: LoadedModel, mel: mx.array
) -> None:
    loaded.decoder.encode(mel[:1], [300])
    prompt = prompt_of(loaded, timestamps=True, previous=())

    def tokens(seed: int) -> list[int]:
        options = DecodingOptions(temperature=1.0, seed=seed)
        return loaded.decoder.decode(prompt, options)[0].tokens

    assert tokens(1) == tokens(1)
    assert tokens(1) != tokens(2)


def test_language_probabilities(loaded: LoadedModel, mel: mx.array) -> None:
    loaded.decoder.encode(mel, N_FRAMES)
    ids = list(loaded.tokenizer.languages.values())
    probabilities = loaded.decoder.detect_language(ids)
    assert probabilities.shape == (3, len(ids))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_clips_of_a_batch_are_decoded_again_without_encoding(
    loaded: LoadedModel, mel: mx.array
) -> None:
    prompt = prompt_of(loaded, timestamps=True, previous=())
    own = []
    for row, frames in enumerate(N_FRAMES):
        loaded.decoder.encode(mel[row : row + 1], [frames])
        own += loaded.decoder.decode(prompt, align_frames=[frames])
    loaded.decoder.encode(mel, N_FRAMES)
    audio = loaded.decoder.encoded()
    together = loaded.decoder.decode(prompt, align_frames=N_FRAMES)
    for row in (2, 0, 1):
        loaded.decoder.restore(audio.clip(row))
        (again,) = loaded.decoder.decode(prompt, align_frames=[N_FRAMES[row]])
        assert again.tokens == own[row].tokens == together[row].tokens
        assert again.avg_logprob == pytest.approx(own[row].avg_logprob, abs=1e-4)
        assert again.alignment is not None
        assert own[row].alignment is not None
        np.testing.assert_allclose(again.alignment.starts, own[row].alignment.starts, atol=0.021)
    loaded.decoder.restore(audio)
    assert [r.tokens for r in loaded.decoder.decode(prompt)] == [r.tokens for r in own]


def test_misuse_is_named(loaded: LoadedModel, mel: mx.array) -> None:
    fresh = decoder.Decoder(loaded.model, loaded.decoder.vocabulary)
    with pytest.raises(ValueError, match="encode"):
        fresh.decode([loaded.tokenizer.sot])
    loaded.decoder.encode(mel[:1], [300])
    with pytest.raises(ValueError, match="context"):
        loaded.decoder.decode([loaded.tokenizer.sot] * (loaded.config.n_text_ctx + 1))
    with pytest.raises(ValueError, match="outside the vocabulary"):
        loaded.decoder.decode([loaded.tokenizer.sot], DecodingOptions(prefix=(2**31,)))
    for outside in (-1, loaded.config.n_vocab, 2**31 - 1):
        with pytest.raises(ValueError, match="outside the vocabulary"):
            loaded.decoder.decode([loaded.tokenizer.sot, outside])


@pytest.mark.parametrize("options", [
    DecodingOptions(timestamps=True),
    DecodingOptions(timestamps=False, temperature=0.7, best_of=3, seed=4),
    DecodingOptions(timestamps=True, beam_size=3),
    DecodingOptions(timestamps=True, repetition_penalty=1.3, no_repeat_ngram_size=2),
    DecodingOptions(timestamps=False, prefix=(70, 71)),
], ids=["greedy", "sampled", "beams", "penalties", "prefix"])  # fmt: skip
@pytest.mark.parametrize("aligned", [False, True])
def test_log_probabilities_are_those_of_the_whole_sequence(
    loaded: LoadedModel, mel: mx.array, options: DecodingOptions, aligned: bool
) -> None:
    model, decoder = loaded.model, loaded.decoder
    prompt = prompt_of(loaded, timestamps=options.timestamps, previous=(70, 71, 72))
    decoder.encode(mel, N_FRAMES)
    frames = N_FRAMES if aligned else None
    for clip, result in enumerate(decoder.decode(prompt, options, align_frames=frames)):
        wanted = naive_logprobs(
            model, decoder.vocabulary, mel[clip], N_FRAMES[clip], prompt, result.tokens, options
        )
        assert result.logprobs is not None
        assert len(result.tokens) > 5
        np.testing.assert_allclose(result.logprobs, wanted, atol=3e-4)
