"""The stand-ins for MLX's functions on a Linux CPU, against MLX's own and double precision."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from threading import Thread

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx import nn

from baldwhisper_mlx.model.cache import KVCache
from baldwhisper_mlx.model.whisper import CrossAttention, EncoderBlock
from baldwhisper_mlx.ops import cpu_tiles, functions
from baldwhisper_mlx.ops.functions import attention, gelu, logsumexp, mlx_only

ON_LINUX_CPU = sys.platform == "linux" and mx.default_device().type == mx.DeviceType.cpu
pytestmark = pytest.mark.skipif(not ON_LINUX_CPU, reason="elsewhere these are MLX's own")


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """Lets arrays of some thousand numbers be computed the other way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(functions, "SMALL", 2**11)
        yield


def normal(*shape: int, seed: int = 0, spread: float = 1.0) -> mx.array:
    return spread * mx.random.normal(shape, key=mx.random.key(seed))


def test_exp_is_exact_to_one_part_in_ten_thousand() -> None:
    x = np.linspace(-10, 0, 10_001, dtype=np.float32)
    found = np.array(functions._exp(mx.array(x) * functions._SCALE))
    wanted = np.exp(x.astype(np.float64))
    assert np.abs(found / wanted - 1).max() < 3e-3
    assert np.abs(found - wanted).max() < 5e-5


@pytest.mark.parametrize("x", [-80.0, -100.0, -1e30, -np.inf])
def test_exp_of_the_lowest_is_tiny_but_normal(x: float) -> None:
    found = functions._exp(mx.array([x]) * functions._SCALE).item()
    assert np.finfo(np.float32).tiny < found < 1e-30


def test_nan_is_not_hidden() -> None:
    x = np.zeros((1, functions.SMALL), np.float32)
    x[0, 7] = np.nan
    assert np.isnan(logsumexp(mx.array(x)).item())
    big = mx.full((1, 8, 400, 64), np.nan)
    assert np.isnan(np.array(attention(big, big, big, scale=1.0))).all()
    assert np.isnan(np.array(gelu(mx.full((functions.BIG,), np.nan)))).all()


@pytest.mark.parametrize("spread", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("queries", [1, 3])
def test_attention_of_a_few_tokens_to_long_audio(queries: int, spread: float) -> None:
    q = normal(2, 8, queries, 64, spread=spread)
    k, v = normal(2, 8, 1500, 64, seed=1, spread=spread), normal(2, 8, 1500, 64, seed=2)
    with mlx_only():
        wanted = np.array(attention(q, k, v, scale=0.125))
    found = np.array(attention(q, k, v, scale=0.125))
    assert not np.array_equal(found, wanted)  # it is another way of computing
    assert np.abs(found - wanted).max() < 5e-4


def test_attention_looks_only_where_the_mask_lets_it() -> None:
    q, k, v = normal(2, 8, 1, 64), normal(2, 8, 1500, 64, seed=1), normal(2, 8, 1500, 64, seed=2)
    mask = (mx.arange(1500) < mx.array([[900], [1500]]))[:, None, None]
    found = attention(q, k, v, scale=0.125, mask=mask)
    alone = attention(q[:1], k[:1, :, :900], v[:1, :, :900], scale=0.125)
    assert mx.allclose(found[:1], alone, atol=1e-4)
    with mlx_only():
        assert mx.allclose(found, attention(q, k, v, scale=0.125, mask=mask), atol=5e-4)


@pytest.mark.parametrize("masked", [False, True])
def test_beams_attend_without_an_evaluation(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many clips there are: the decoding loop must not wait for attention."""
    q = normal(2, 8, functions.FEW, 64)
    k, v = normal(2, 8, 1500, 64, seed=1), normal(2, 8, 1500, 64, seed=2)
    assert 2 * 8 * functions.FEW * 1500 >= functions.BIG
    mask = None
    if masked:  # a mask for each beam, as of a tree of tokens
        mask = (mx.arange(1500) % 7 <= mx.arange(functions.FEW)[:, None])[None, None]
    with mlx_only():
        wanted = attention(q, k, v, scale=0.125, mask=mask)
        mx.eval(wanted)
    monkeypatch.setattr(mx, "eval", lambda *_: pytest.fail("something was evaluated"))
    found = attention(q, k, v, scale=0.125, mask=mask)
    monkeypatch.undo()
    assert mx.allclose(found, wanted, atol=5e-4)


@pytest.mark.parametrize("spread", [0.1, 3.0])
def test_attention_of_audio_to_itself(spread: float) -> None:
    q, k, v = (normal(2, 4, 300, 64, seed=seed, spread=spread) for seed in range(3))
    before = np.array(q), np.array(k), np.array(v)
    with mlx_only():
        wanted = attention(q, k, v, scale=0.125)
        mx.eval(wanted)
    assert functions.BIG <= 4 * 300 * 300 * 2
    assert mx.allclose(attention(q, k, v, scale=0.125), wanted, atol=1e-5)
    for kept, array in zip(before, (q, k, v), strict=True):
        assert np.array_equal(kept, np.array(array))


def test_attention_of_clips_of_different_lengths_to_themselves() -> None:
    """Several clips, several tiles of a head, rows that are not contiguous, and a mask."""
    q, k, v = mx.split(normal(3, 700, 3 * 4 * 16).reshape(3, 700, 12, 16).swapaxes(1, 2), 3, axis=1)
    mask = (mx.arange(700) < mx.array([[700], [300], [1]]))[:, None, None]
    with mlx_only():
        wanted = attention(q, k, v, scale=0.25, mask=mask)
        mx.eval(wanted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_tiles, "CHUNK", 2**16)
        found = attention(q, k, v, scale=0.25, mask=mask)
    assert found.shape == wanted.shape
    assert mx.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("chunk", [2**14, 2**19])
def test_a_block_of_the_encoder_by_tiles(masked: bool, chunk: int) -> None:
    block, x = EncoderBlock(256, 4), normal(2 * 600, 256, spread=2.0)
    for seed, norm in enumerate((block.attn_ln, block.mlp_ln)):
        norm.weight, norm.bias = normal(256, seed=seed), normal(256, seed=seed + 2)
    mask = (mx.arange(600) < mx.array([[600], [250]]))[:, None, None] if masked else None
    with mlx_only():
        wanted = block(x, 2, mask)
        mx.eval(wanted)
    assert x.size >= functions.BIG
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_tiles, "CHUNK", chunk)
        found = block(x, 2, mask)
    assert np.abs(np.array(found) - np.array(wanted)).max() < 2e-5
    assert mx.array_equal(x, normal(2 * 600, 256, spread=2.0))


def test_a_block_with_constants_by_tiles() -> None:
    """The padded audio context: more keys than positions, some of which count several times."""
    block, x = EncoderBlock(256, 4), normal(2 * 600, 256, spread=2.0)
    constants = normal(1, 4, 50, 64, seed=5), normal(1, 4, 50, 64, seed=6)
    bias = mx.concatenate([mx.zeros(600), mx.full(50, 2.0)])[None, None, None]
    with mlx_only():
        wanted = block(x, 2, bias, constants)
        mx.eval(wanted)
    assert np.abs(np.array(block(x, 2, bias, constants)) - np.array(wanted)).max() < 2e-5
    assert np.abs(np.array(block(x, 2, None)) - np.array(wanted)).max() > 1e-3


def test_a_quantized_block_is_left_to_mlx() -> None:
    block, x = EncoderBlock(256, 4), normal(1200, 256)
    block.attn.out = nn.QuantizedLinear.from_linear(block.attn.out, bits=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_tiles, "encoder_block", None)
        assert block(x, 2, None).shape == x.shape


def test_keys_of_the_audio_lie_side_by_side_and_are_the_same() -> None:
    layer, audio = CrossAttention(64, 4), normal(2, 30, 64)
    layer.kv.bias = normal(128, seed=1)
    turned, plain = KVCache(40), KVCache(40)
    layer.project(audio, turned)
    with mlx_only():
        layer.project(audio, plain)
    for found, wanted in zip(turned.state(), plain.state(), strict=True):
        assert found.shape == wanted.shape == (2, 4, 30, 16)
        assert mx.allclose(found, wanted, atol=1e-5)
        assert np.asarray(found).strides[2:] == (4, 4 * 30)  # bytes


def test_an_error_of_one_core_is_raised() -> None:
    def work(job: int) -> None:
        if job == 3:
            raise ValueError("job 3")

    with pytest.raises(ValueError, match="job 3"):
        cpu_tiles.on_all_cores(work, range(5))


def test_callers_at_once_leave_the_blas_as_it_was() -> None:
    def threads() -> list[int]:
        return [library["num_threads"] for library in cpu_tiles._blas().info()]

    before, matrix = threads(), np.ones((300, 300), np.float32)
    callers = [
        Thread(target=cpu_tiles.on_all_cores, args=(lambda _: matrix @ matrix, range(50)))
        for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert threads() == before


def test_causal_attention_is_left_to_mlx() -> None:
    q = normal(1, 8, 300, 64)
    with mlx_only():
        wanted = attention(q, q, q, scale=0.125, mask="causal")
    assert mx.array_equal(attention(q, q, q, scale=0.125, mask="causal"), wanted)


def test_gelu_is_exact_to_a_millionth() -> None:
    from math import erf

    x = np.linspace(-12, 12, functions.BIG, dtype=np.float32)
    found = np.array(gelu(mx.array(x)))
    some = slice(None, None, 97)
    wanted = [a * (1 + erf(a / 2**0.5)) / 2 for a in x[some].astype(np.float64)]
    assert np.abs(found[some] - wanted).max() < 2e-6


def test_gelu_keeps_shape_and_argument() -> None:
    x = normal(3, functions.BIG // 512, 512)
    y = gelu(x.swapaxes(0, 1))  # not contiguous
    with mlx_only():
        assert mx.allclose(y, gelu(x).swapaxes(0, 1), atol=2e-6)
    assert mx.array_equal(x, normal(3, functions.BIG // 512, 512))


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 30), st.integers(0, 2100))
def test_logsumexp_of_logits(seed: int, spread: float, masked: int) -> None:
    rng = np.random.default_rng(seed)
    x = (spread * rng.standard_normal((2, 2500))).astype(np.float32)
    x[:, rng.permutation(2500)[:masked]] = -np.inf
    wanted = np.log(np.exp(x.astype(np.float64) - x.max(1, keepdims=True)).sum(1, keepdims=True))
    found = np.array(logsumexp(mx.array(x))) - x.max(1, keepdims=True)
    assert np.abs(found - wanted).max() < 1e-3


def test_logsumexp_of_nothing_is_less_than_anything() -> None:
    found = logsumexp(mx.full((1, functions.SMALL), -mx.inf)).item()
    assert found < -1e29
    assert np.isfinite(found)


def test_only_float32_is_stood_in_for() -> None:
    x = normal(1, 8, 300, 64).astype(mx.float16)
    with mlx_only():
        wanted = attention(x, x, x, scale=0.125)
    assert mx.array_equal(attention(x, x, x, scale=0.125), wanted)
    y = normal(functions.BIG).astype(mx.float16)
    assert gelu(y).dtype == mx.float16
