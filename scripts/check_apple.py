"""Shows on a Mac what docs/apple.md says about Metal, a section for each line of its table.

    python scripts/check_apple.py            # all sections
    python scripts/check_apple.py overflow   # some of them

Each section prints what it found and `ok` or `FAILED`; the exit code is 1 if one failed. It also
runs on a CPU, where it shows that the code is right and nothing about Metal.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

import baldwhisper_mlx  # before MLX, which gets a fast BLAS on Linux then

# isort: split
import mlx.core as mx
import numpy as np

from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.config import Dtype
from baldwhisper_mlx.model.embedding import FactorizedEmbedding
from baldwhisper_mlx.ops.functions import attention
from baldwhisper_mlx.quantization_config import BITS

Section = Callable[[], tuple[bool, str]]


def overflow() -> tuple[bool, str]:
    """Float16 scores beyond 65504: the fused attention accumulates in float32."""
    q = mx.full((1, 8, 1, 64), 40.0, mx.float16)
    k = mx.full((1, 8, 1500, 64), 40.0, mx.float16)  # 64 * 40 * 40 = 102400
    y = attention(q, k, mx.ones((1, 8, 1500, 64), mx.float16), scale=0.125)
    return bool(mx.isfinite(y).all().item()), f"attention of large scores: {y[0, 0, 0, 0].item()}"


def fused_heads() -> tuple[bool, str]:
    """The fused kernels exist for heads of 64 numbers, which all of OpenAI's checkpoints have."""
    q, k = mx.random.normal((1, 8, 1500, 64)), mx.random.normal((1, 8, 1600, 64))
    bias = mx.zeros((1, 1, 1, 1600))
    y = attention(q, k, k, scale=0.125, mask=bias)
    scores = mx.softmax((q * 0.125) @ k.swapaxes(-1, -2) + bias, axis=-1)
    error = _largest(y - scores @ k)
    return error < 1e-2, f"fused and plain attention differ by {error:.1e}"


def put_along_axis() -> tuple[bool, str]:
    """Dense rows replace logits by int32 ids in every row of a batch."""
    embedding = FactorizedEmbedding(1000, 64, 8, dense_rows=100)
    embedding.dense_ids = mx.array(np.random.default_rng(0).permutation(1000)[:100].astype("i4"))
    embedding.dense_rows = mx.random.normal((100, 64)).astype(mx.float16)
    hidden = mx.random.normal((5, 64)).astype(mx.float16)
    logits = embedding.as_linear(hidden)
    error = _largest(logits[:, embedding.dense_ids] - hidden @ embedding.dense_rows.T)
    return error < 1e-2, f"logits at the dense ids differ by {error:.1e}"


def quantized() -> tuple[bool, str]:
    """Products for every number of bits and group size that a folder may have."""
    worst = 0.0
    for bits in BITS:
        for group_size in (32, 64, 128):
            weight, x = mx.random.normal((256, 256)), mx.random.normal((3, 256))
            parts = mx.quantize(weight, group_size=group_size, bits=bits)
            y = mx.quantized_matmul(x, *parts, group_size=group_size, bits=bits)
            exact = x @ mx.dequantize(*parts, group_size=group_size, bits=bits).T
            worst = max(worst, _largest(y - exact))
    return worst < 0.1, f"largest difference {worst:.1e}"


def compiled_shapes() -> tuple[bool, str]:
    """The rules are compiled once for each batch size, not once for each step."""
    loaded = load_model()
    times = []
    for _ in range(3):
        began = time.perf_counter()
        baldwhisper_mlx.transcribe(_noise(), loaded, temperature=0.0)
        times.append(time.perf_counter() - began)
    text = ", ".join(f"{seconds:.2f} s" for seconds in times)
    return times[2] < 1.5 * times[1], f"first and later calls: {text}"


def threads() -> tuple[bool, str]:
    """A model that one thread has loaded works on others; one at a time."""
    loaded, results = load_model(), []

    def call() -> None:
        results.append(baldwhisper_mlx.transcribe(_noise(), loaded, temperature=0.0).text)

    for _ in range(2):
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    call()
    return len(results) == 3 and len(set(results)) == 1, f"{len(results)} of 3 calls, same text"


def memory() -> tuple[bool, str]:
    """Freed buffers are given back between windows, and nobody's limits are changed."""
    limit = mx.set_cache_limit(2**34)
    loaded: LoadedModel = load_model()
    baldwhisper_mlx.transcribe(np.tile(_noise(), 61), loaded, temperature=0.0)
    kept, found = mx.get_cache_memory(), mx.set_cache_limit(limit)
    return found == 2**34 and kept < 2**27, f"{kept / 1e6:.0f} MB kept, limit unchanged"


def indices() -> tuple[bool, str]:
    """No array has 2^31 numbers, and no id is wider than 32 bits."""
    loaded = load_model()
    embedding = loaded.model.decoder.token_embedding
    dtype = getattr(embedding, "dense_ids", mx.zeros((1,), mx.int32)).dtype
    largest = 16 * 8 * 1500 * 1600  # scores of a batch of 16, if they were not fused
    return dtype == mx.int32 and largest < 2**31, f"ids are {dtype}, at most {largest} numbers"


def first_use() -> tuple[bool, str]:
    """Kernels are loaded when they are used first: the first window takes longer."""
    loaded = load_model()
    times = []
    for _ in range(4):
        began = time.perf_counter()
        with loaded.in_use():
            loaded.decoder.encode(mx.zeros((1, 3000, loaded.config.n_mels)), [3000])
            mx.eval([layer.cross_attn.state() for layer in loaded.decoder._cache])
        times.append(time.perf_counter() - began)
    return times[-1] <= times[0], f"encoding: first {times[0]:.3f} s, then {times[-1]:.3f} s"


def half_precision() -> tuple[bool, str]:
    """The bundled model in float16 gives the text that it gives in float32."""
    texts = []
    dtypes: tuple[Dtype, ...] = ("float16", "float32")
    for dtype in dtypes:
        loaded = load_model(dtype=dtype)
        texts.append(baldwhisper_mlx.transcribe(_noise(), loaded, temperature=0.0).text)
    return texts[0] == texts[1], f"{texts[0]!r} and {texts[1]!r}"


SECTIONS: dict[str, Section] = {
    section.__name__: section
    for section in (
        overflow, fused_heads, put_along_axis, quantized, compiled_shapes, threads, memory,
        indices, first_use, half_precision,
    )
}  # fmt: skip


def _largest(x: mx.array) -> float:
    return float(np.abs(np.array(x.astype(mx.float32))).max())


def _noise() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.05, 16_000).astype(np.float32)


def main() -> None:
    """Runs the sections that are named on the command line, or all."""
    print(f"MLX on the {mx.default_device().type.name}")
    names = sys.argv[1:] or list(SECTIONS)
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        sys.exit(f"no section {unknown[0]}; there are {', '.join(SECTIONS)}")
    failed = 0
    for name in names:
        good, text = SECTIONS[name]()
        failed += not good
        print(f"{name}: {text}: {'ok' if good else 'FAILED'}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
