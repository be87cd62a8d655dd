"""Beam search and best-of against their naive twins, on random logits and random models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.decoding import decoder, generation
from baldwhisper_mlx.decoding.alignment import Alignment, align_all
from baldwhisper_mlx.decoding.beam import CHUNK, BeamSearch, Record, _best
from baldwhisper_mlx.decoding.logit_rules import LogitRules
from baldwhisper_mlx.decoding.options import DecodingOptions
from baldwhisper_mlx.decoding.result import Hypothesis, most_probable
from baldwhisper_mlx.quantization_config import Quantization
from tests.runtime.conftest import tiny_config, write_model
from tests.runtime.decoding.test_decoder import FORMS, N_FRAMES, prompt_of
from tests.runtime.decoding.test_logit_rules import V
from tests.runtime.model.test_quantize import FACTORIZED, write_quantized
from tests.support.naive import logsumexp, masked_logits
from tests.support.naive_beam import naive_beam_decode, naive_beam_search

searches = st.builds(
    DecodingOptions,
    beam_size=st.integers(1, 6),
    patience=st.none() | st.sampled_from([0.6, 1.0, 1.5, 3.0]),
    length_penalty=st.none() | st.floats(0, 1),
    timestamps=st.booleans(),
    max_initial_timestamp=st.none() | st.integers(0, 23),
    forced_length=st.none() | st.just(9),
    prefix=st.sampled_from([(), (40, 4), (6, 8)]),
)


class RandomLogits:
    """Logits (V,) that depend on all tokens before, so no two hypotheses have the same."""

    def __init__(self, seed: int, scale: float, ends: float) -> None:
        self.seed, self.scale, self.ends = seed, scale, ends

    def __call__(self, tokens: Sequence[int]) -> np.ndarray:
        rng = np.random.default_rng([self.seed, len(tokens), *tokens])
        logits = self.scale * rng.standard_normal(V.n_vocab)
        logits[V.eot] += self.ends
        return logits.astype(np.float32).astype(np.float64)


def search(
    clips: Sequence[RandomLogits], options: DecodingOptions, most: int, *, compiled: bool
) -> list[Hypothesis]:
    """The loop of generation.py without a model; all clips run on until the last one is done."""
    beam_search = BeamSearch(LogitRules(V, options))
    if compiled:
        beam_search.next = mx.compile(beam_search._next)
    start = mx.array(np.stack([clip(options.prefix) for clip in clips]), mx.float32)
    prefix = [mx.full((len(clips), 1), token, mx.int32) for token in options.prefix]
    record = Record(beam_search, prefix, with_history=True)
    beams = beam_search.first(start, beam_search.rules.start(len(clips)))
    record.add(beams)
    for _ in range(1, most):
        rows = np.concatenate([np.array(column) for column in record.history()], axis=1)
        width = beam_search.width
        logits = [clips[i // width](row.tolist()) for i, row in enumerate(rows)]
        beams = beam_search.next(mx.array(np.stack(logits), mx.float32), beams)
        record.add(beams)
        if beams.state.all_finished.item():
            break
    return record.chosen()


@settings(deadline=None, max_examples=150)
@given(
    options=searches,
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.3, 1.0, 3.0]),
    ends=st.sampled_from([-2.0, 0.0, 3.0]),
    most=st.integers(1, 12),
    n_clips=st.integers(1, 3),
)
def test_search_is_naive(
    options: DecodingOptions, seed: int, scale: float, ends: float, most: int, n_clips: int
) -> None:
    clips = [RandomLogits(seed + i, scale, ends) for i in range(n_clips)]
    found = search(clips, options, most, compiled=False)
    for clip, hypothesis in zip(clips, found, strict=True):
        tokens, average = naive_beam_search(clip, V, options, most)
        assert [*options.prefix, *hypothesis.tokens] == tokens
        result = hypothesis.result(options, 0.0)
        assert result.avg_logprob == pytest.approx(average, abs=1e-4)
        assert len(hypothesis.path) == len(hypothesis.cumulative) == len(hypothesis.tokens)


def test_compiled_search_is_the_same() -> None:
    clips = [RandomLogits(seed, 1.0, 0.0) for seed in (1, 2)]
    options = DecodingOptions(beam_size=4, patience=2.0)
    plain, compiled = (search(clips, options, 10, compiled=each) for each in (False, True))
    assert [each.tokens for each in plain] == [each.tokens for each in compiled]


@settings(deadline=None, max_examples=100)
@given(
    rows=st.integers(1, 3),
    n_vocab=st.sampled_from([CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 17]),
    count=st.integers(1, 9),
    allowed=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_best_of_a_row(rows: int, n_vocab: int, count: int, allowed: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((rows, n_vocab)).astype(np.float32)
    logits[rng.random((rows, n_vocab)) > allowed] = -np.inf
    ids, values = (np.array(each) for each in _best(mx.array(logits), count))
    for row, found, value in zip(logits, ids, values, strict=True):
        assert (found >= 0).all()
        assert (found < n_vocab).all()
        np.testing.assert_array_equal(np.sort(value), np.sort(row)[-count:])
        finite = np.isfinite(value)
        np.testing.assert_array_equal(row[found[finite]], value[finite])
        assert len(set(found[finite].tolist())) == finite.sum()


@pytest.fixture(scope="module", params=[*FORMS, "quantized"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("beam") / request.param
    if request.param == "quantized":
        write_quantized(folder, Quantization(bits=8, group_size=32), FACTORIZED)
        return load_model(folder, dtype="float32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("baldwhisper_mlx.config.WINDOW_POSITIONS", 150)
        config = tiny_config(n_audio_ctx=150, **FORMS[request.param])
        return load_model(write_model(folder, config), dtype="float32")


@pytest.fixture(scope="module")
def mel(loaded: LoadedModel) -> mx.array:
    """Three clips (3, 2 * n_audio_ctx, 80) of different lengths, zeros after each."""
    shape = (3, 2 * loaded.config.n_audio_ctx, 80)
    mel = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    for row, n in enumerate(N_FRAMES):
        mel[row, n:] = 0
    return mx.array(mel)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"beam_size": 3},
    "text only": {"beam_size": 5, "timestamps": False},
    "patient": {"beam_size": 2, "patience": 2.0, "length_penalty": 0.6},
    "forced": {"beam_size": 3, "forced_length": 12},
    "penalties": {"beam_size": 3, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    "prefix": {"beam_size": 3, "timestamps": False, "prefix": (70, 71, 72)},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_cached_and_batched_is_naive(loaded: LoadedModel, mel: mx.array, name: str) -> None:
    options = DecodingOptions(max_tokens=14, **OPTIONS[name])
    prompt = prompt_of(loaded, timestamps=options.timestamps, previous=(70, 71))
    loaded.decoder.encode(mel, N_FRAMES)
    results = loaded.decoder.decode(prompt, options)
    for row, result in enumerate(results):
        tokens, average = naive_beam_decode(
            loaded.model, loaded.decoder.vocabulary, mel[row], N_FRAMES[row], prompt, options
        )
        assert result.tokens == tokens
        assert result.avg_logprob == pytest.approx(average, abs=1e-3)


def test_one_beam_is_greedy(loaded: LoadedModel, mel: mx.array) -> None:
    prompt = prompt_of(loaded, timestamps=True, previous=())
    loaded.decoder.encode(mel, N_FRAMES)
    greedy = loaded.decoder.decode(prompt, align_frames=N_FRAMES)
    one = loaded.decoder.decode(prompt, DecodingOptions(beam_size=1), align_frames=N_FRAMES)
    assert [each.tokens for each in one] == [each.tokens for each in greedy]
    for mine, theirs in zip(one, greedy, strict=True):
        assert mine.avg_logprob == pytest.approx(theirs.avg_logprob, abs=1e-4)


def test_a_batch_is_its_clips_one_by_one(loaded: LoadedModel, mel: mx.array) -> None:
    """Also with little patience, where openai-whisper's clips of a batch depend on each other."""
    prompt = prompt_of(loaded, timestamps=True, previous=())
    for options in (DecodingOptions(beam_size=4), DecodingOptions(beam_size=4, patience=0.5)):
        loaded.decoder.encode(mel, N_FRAMES)
        together = loaded.decoder.decode(prompt, options)
        for row in (2, 0, 1):
            loaded.decoder.encode(mel[row : row + 1], N_FRAMES[row : row + 1])
            assert loaded.decoder.decode(prompt, options)[0].tokens == together[row].tokens


@pytest.mark.parametrize("check_every", [1, 3, 50])
def test_when_the_host_looks_changes_nothing(
    loaded: LoadedModel, mel: mx.array, check_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded.decoder.encode(mel, N_FRAMES)
    prompt = prompt_of(loaded, timestamps=False, previous=())
    options = DecodingOptions(timestamps=False, beam_size=3)
    expected = loaded.decoder.decode(prompt, options)
    monkeypatch.setattr(generation, "CHECK_EVERY", check_every)
    assert loaded.decoder.decode(prompt, options) == expected


@pytest.mark.parametrize(
    "changes",
    [{"beam_size": 4}, {"best_of": 3, "temperature": 0.7}, {"beam_size": 3, "prefix": (70, 71)}],
    ids=str,
)
def test_word_times_are_those_of_the_chosen_hypothesis(
    loaded: LoadedModel, mel: mx.array, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They come from its own attention: that of its tokens fed again as a prefix, all at once."""
    attention: list[np.ndarray] = []

    def watched(scores: list[np.ndarray], *arguments: Any, **named: Any) -> list[Alignment]:
        attention.extend(scores)
        return align_all(scores, *arguments, **named)

    monkeypatch.setattr(decoder, "align_all", watched)
    prompt = prompt_of(loaded, timestamps=False, previous=(70, 71))
    options = DecodingOptions(timestamps=False, max_tokens=12, **changes)
    loaded.decoder.encode(mel, N_FRAMES)
    results = loaded.decoder.decode(prompt, options, align_frames=N_FRAMES)
    audio = loaded.decoder.encoded()
    own = attention.copy()
    for row, (result, scores) in enumerate(zip(results, own, strict=True)):
        loaded.decoder.restore(audio.clip(row))
        attention.clear()
        again = DecodingOptions(timestamps=False, max_tokens=1, prefix=tuple(result.tokens))
        loaded.decoder.decode(prompt, again, align_frames=[N_FRAMES[row]])
        # The last token of a text that was cut off was never fed.
        n_rows = len(prompt) - prompt.index(loaded.tokenizer.sot) + len(result.tokens)
        cut_off = len(result.tokens) - len(options.prefix) == options.max_tokens
        assert scores.shape[1] == n_rows - cut_off
        np.testing.assert_allclose(scores, attention[0][:, : scores.shape[1]], atol=2e-3)
        assert result.alignment is not None
        assert len(result.alignment.starts) == len(result.tokens)


def naive_sum(
    loaded: LoadedModel, mel: mx.array, n_frames: int, prompt: list[int], tokens: Sequence[int],
    options: DecodingOptions,
) -> float:  # fmt: skip
    """Log-probability of an output and its end, token by token without a cache."""
    total, vocabulary = 0.0, loaded.decoder.vocabulary
    assert options.max_tokens
    ended = len(tokens) < options.max_tokens
    for n, token in enumerate([*tokens, vocabulary.eot] if ended else tokens):
        cache = loaded.model.make_cache()
        loaded.model.encode(mel[None], [n_frames], cache)
        hidden = loaded.model.decoder(mx.array([[*prompt, *tokens[:n]]]), cache)
        logits = np.array(loaded.model.logits(hidden[:, -1]), np.float64)[0]
        masked = masked_logits(logits, tokens[:n], vocabulary, options)
        total += float(masked[token]) - logsumexp(masked)
    return total


@pytest.mark.parametrize("length_penalty", [None, 0.0])
def test_best_of_is_the_best_sample(
    loaded: LoadedModel, mel: mx.array, length_penalty: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Samples are continuations of their own tokens, and the most probable one is returned."""
    sampled: list[list[Hypothesis]] = []

    def ranked(hypotheses: list[Hypothesis], alpha: float | None) -> Hypothesis:
        sampled.append(hypotheses)
        return most_probable(hypotheses, alpha)

    monkeypatch.setattr(generation, "most_probable", ranked)
    prompt = prompt_of(loaded, timestamps=True, previous=())
    options = DecodingOptions(
        best_of=3, temperature=1.0, max_tokens=8, length_penalty=length_penalty
    )
    loaded.decoder.encode(mel[:2], N_FRAMES[:2])
    results = loaded.decoder.decode(prompt, options)
    assert [len(each) for each in sampled] == [3, 3]
    for row, (result, hypotheses) in enumerate(zip(results, sampled, strict=True)):
        assert len({tuple(each.tokens) for each in hypotheses}) > 1
        scores = []
        for each in hypotheses:
            total = naive_sum(loaded, mel[row], N_FRAMES[row], prompt, each.tokens, options)
            assert each.sum_logprob == pytest.approx(total, abs=2e-3)
            scores.append(total / (len(each.tokens) if length_penalty is None else 1))
        best = hypotheses[int(np.argmax(scores))]
        assert result.tokens == best.tokens


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beam_size": 0}, "beam_size must be a whole number from 1 to 100, not 0"),
        ({"beam_size": 2.5}, "beam_size must be a whole number"),
        ({"best_of": 101, "temperature": 1.0}, "best_of must be a whole number"),
        ({"beam_size": 2, "temperature": 0.5}, "beam_size is for temperature 0"),
        ({"best_of": 2}, "best_of is for temperatures above 0"),
        ({"patience": 1.0}, "patience needs beam_size"),
        ({"beam_size": 2, "patience": 0.2}, "patience times beam_size"),
        ({"beam_size": 2, "patience": float("nan")}, "patience times beam_size"),
        ({"length_penalty": 1.1}, "length_penalty must be from 0 to 1"),
        ({"length_penalty": float("nan")}, "length_penalty must be from 0 to 1"),
    ],
    ids=str,
)
def test_options_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DecodingOptions(**changes)
