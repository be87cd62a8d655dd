"""Everything as on a GPU, but computed by the CPU: float16, MLX's own functions, compiled rules,
quantized matrices as they are stored. Beside it, what the CPU does by its own ways.

Our code asks `mx.default_device` where the ways part; here that function names a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

import baldwhisper_mlx
from baldwhisper_mlx.checkpoint.calibrate import write_padding
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.decoding.options import DecodingOptions
from baldwhisper_mlx.model.embedding import QuantizedMatrix
from baldwhisper_mlx.ops import cpu_tiles, functions, turns
from baldwhisper_mlx.quantization_config import Quantization
from tests.runtime.conftest import tiny_config, write_model
from tests.runtime.model.test_quantize import FACTORIZED, write_quantized

FORMS = ("dense", "factorized", "quantized")
SPEECH = np.random.default_rng(1).normal(0, 0.1, 16_000 * 4).astype(np.float32)
"""Seconds long enough for the padded context."""


@contextmanager
def on_a_gpu() -> Iterator[None]:
    """Our code finds a GPU; MLX computes on the CPU all the same."""
    with pytest.MonkeyPatch.context() as patch:
        device = SimpleNamespace(type=mx.DeviceType.gpu)
        patch.setattr(mx, "default_device", lambda: device)
        patch.setattr(turns, "_new_stream", lambda: mx.new_thread_unsafe_stream(mx.cpu))
        for name in ("encoder_block", "attend", "gelu_of_all"):
            patch.setattr(cpu_tiles, name, _never)
        yield


def _never(*_: Any) -> None:
    raise AssertionError("a way of the CPU was taken")


@pytest.fixture(scope="module", params=FORMS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of one form, stored in float32, with the constants of its padding."""
    folder: Path = tmp_path_factory.mktemp("gpu") / request.param
    form = {} if request.param == "dense" else FACTORIZED
    if request.param == "quantized":
        write_quantized(folder, Quantization(bits=8, group_size=32), form)
    else:
        write_model(folder, tiny_config(**form))
    write_padding(folder, [SPEECH])
    return folder


def pair(folder: Path, **options: Any) -> tuple[LoadedModel, LoadedModel]:
    """The model as on a GPU, and as on a CPU; both in float32, so that tokens can be compared."""
    with on_a_gpu():
        gpu = load_model(folder, dtype="float32", **options)
    return gpu, load_model(folder, **options)


def test_what_a_gpu_keeps(folder: Path) -> None:
    gpu, cpu = pair(folder)
    kinds = [
        any(isinstance(module, QuantizedMatrix) for _, module in model.model.named_modules())
        for model in (gpu, cpu)
    ]
    packed = [
        any(value.dtype == mx.uint32 for _, value in tree_flatten(model.model.parameters()))
        for model in (gpu, cpu)
    ]
    assert packed == [folder.name == "quantized", False]
    assert kinds == packed


FEATURES: dict[str, dict[str, Any]] = {
    "segments": {"language": "en", "temperature": 0.0},
    "plain": {"language": "en", "temperature": 0.0, "without_timestamps": True},
    "language": {"temperature": 0.0},
    "words": {"language": "en", "temperature": 0.0, "word_timestamps": True},
    "fallback": {"language": "en", "compression_ratio_threshold": 0.1},
    "prompt": {"language": "en", "temperature": 0.0, "initial_prompt": "abc"},
    "batches": {"language": "en", "temperature": 0.0, "batch_size": 2},
    "beams": {"language": "en", "temperature": 0.0, "beam_size": 3, "word_timestamps": True},
    "beams in batches": {"language": "en", "temperature": 0.0, "beam_size": 2, "batch_size": 2},
    "samples": {"language": "en", "temperature": 0.5, "best_of": 3},
}


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("context", ["full", "padded"])
def test_every_feature_gives_what_the_cpu_gives(folder: Path, context: str, feature: str) -> None:
    gpu, cpu = pair(folder, audio_context=context)
    samples = np.tile(SPEECH, 9) if "batches" in feature else SPEECH  # 36 s: two stretches
    options = FEATURES[feature]
    with on_a_gpu():
        found = baldwhisper_mlx.transcribe(samples, gpu, **options)
    expected = baldwhisper_mlx.transcribe(samples, cpu, **options)
    assert found.language == expected.language
    tokens = [[s.tokens for s in transcript.segments] for transcript in (found, expected)]
    assert tokens[0] == tokens[1]
    for ours, theirs in zip(found.segments, expected.segments, strict=True):
        assert ours.temperature == theirs.temperature
        assert ours.avg_logprob == pytest.approx(theirs.avg_logprob, abs=1e-2)
        times = [[t for w in s.words or () for t in (w.start, w.end)] for s in (ours, theirs)]
        assert times[0] == pytest.approx(times[1], abs=0.021)


def test_languages(folder: Path) -> None:
    gpu, cpu = pair(folder)
    with on_a_gpu():
        found = baldwhisper_mlx.detect_language(SPEECH, gpu)
    assert found == pytest.approx(baldwhisper_mlx.detect_language(SPEECH, cpu), abs=1e-4)


@pytest.mark.parametrize("context", ["full", "padded"])
def test_half_precision(folder: Path, context: Any) -> None:
    """What a GPU computes in: every array is float16, and near to float32."""
    with on_a_gpu():
        half = load_model(folder, dtype="float16", audio_context=context)
        found = _first_logits(half)
        if context == "padded":  # 30 s would take long: a CPU is slow in 16 bits
            words = baldwhisper_mlx.transcribe(
                SPEECH, half, language="en", temperature=0.0, word_timestamps=True
            )
            assert words.duration == 4.0
    expected = _first_logits(load_model(folder, audio_context=context))
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
    for name, value in tree_flatten(half.model.parameters()):
        floating = mx.issubdtype(value.dtype, mx.floating)
        assert not floating or value.dtype == mx.float16, name


def _first_logits(loaded: LoadedModel) -> np.ndarray:
    mel = mx.random.normal((1, 3000, 80), key=mx.random.key(3))
    cache = loaded.model.make_cache()
    loaded.model.encode(mel, [400], cache)
    states = loaded.model.decoder(mx.array([[1, 2, 3]]), cache)
    assert states.dtype == loaded.model.decoder.ln.weight.dtype
    return np.array(loaded.model.logits(states))


def test_the_rules_are_compiled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[Callable[..., Any]] = []
    compile_ = mx.compile

    def note(function: Callable[..., Any], *args: Any, **options: Any) -> Callable[..., Any]:
        compiled.append(function)
        return compile_(function, *args, **options)

    monkeypatch.setattr(mx, "compile", note)
    gpu, cpu = pair(folder)
    for loaded, count in ((cpu, 0), (gpu, 1)):
        compiled.clear()
        with on_a_gpu() if loaded is gpu else pytest.MonkeyPatch.context():
            loaded.decoder.encode(mx.zeros((2, 3000, 80)), [3000, 1000])
            prompt = loaded.tokenizer.sot_sequence("en", "transcribe", timestamps=True)
            for seed in (0, 0):  # the same options again
                options = DecodingOptions(forced_length=6, seed=seed)
                assert len(loaded.decoder.decode(prompt, options)[1].tokens) == 6
        assert len(compiled) == count
        with on_a_gpu() if loaded is gpu else pytest.MonkeyPatch.context():
            for _ in range(2):
                loaded.decoder.decode(prompt, DecodingOptions(forced_length=6, beam_size=2))
        assert len(compiled) == 3 * count  # the rules, and the step of the search


def test_a_large_score_does_not_overflow_in_half_precision() -> None:
    q = mx.full((1, 2, 1, 64), 40.0, mx.float16)
    k = mx.full((1, 2, 1500, 64), 40.0, mx.float16)
    with on_a_gpu():
        y = functions.attention(q, k, mx.ones_like(k), scale=0.125)
    np.testing.assert_allclose(np.array(y.astype(mx.float32)), 1, atol=1e-2)
