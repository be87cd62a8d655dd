"""The parts that encoding and a decode step are made of, each as something to evaluate.

Every part is all layers of one kind of work, on the model's own weights and at its true shapes.
They follow baldwhisper_mlx/model/whisper.py by hand; profile_model.py reports what they do not add
up to, so a part that is forgotten here shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import mlx.core as mx

from baldwhisper_mlx.bench.runtimes import random_states
from baldwhisper_mlx.decoding.logit_rules import LogitRules
from baldwhisper_mlx.decoding.options import DecodingOptions
from baldwhisper_mlx.model.heads import merge_heads, split_heads
from baldwhisper_mlx.ops import functions


class Part(NamedTuple):
    """A part of the work."""

    name: str
    kind: str
    """What limits it: product, softmax, gelu, norm, attention, rules, other."""
    make: Callable[[], Any]
    """Arrays to evaluate: the part in all layers."""
    inside: bool = False
    """Whether it is a piece of the part before it, and not to be added to it."""


def encoder_parts(model: Any, mel: Any) -> Iterator[Part]:
    """The parts of encoding log-mel (1, 3000, n_mels), in the order they run."""
    encoder = model.encoder
    mel = mel.astype(encoder.conv1.weight.dtype)
    first = encoder.conv1(mel)
    second = encoder.conv2(first)
    blocks, width = encoder.blocks, second.shape[-1]
    x = second[0]
    hidden, fused = blocks[0].mlp1(x), blocks[0].attn.qkv(x)
    heads, scale = blocks[0].attn.n_head, blocks[0].attn.scale
    q, k, v = mx.split(split_heads(fused, 1, 3 * heads), 3, axis=1)
    scores = (q * scale) @ k.swapaxes(-1, -2)
    y = encoder.ln_post(x)
    mx.eval(mel, first, second, x, y, hidden, fused, q, k, v, scores)
    n = range(len(blocks))
    yield Part("convolutions", "product", lambda: [encoder.conv1(mel), encoder.conv2(first)])
    yield Part("gelu after them", "gelu", lambda: [functions.gelu(first), functions.gelu(second)])
    yield Part("layer norms", "norm", lambda: [_norms(blocks, x), encoder.ln_post(x)])
    yield Part("query, key, value", "product", lambda: [b.attn.qkv(x) for b in blocks])
    yield Part("attention", "attention", lambda: [_attend(fused, heads, scale) for _ in n])
    if not functions.uses_cpu_fallback(q):  # else its pieces follow one another in a core's cache
        yield Part("scores", "product", lambda: [(q * scale) @ k.swapaxes(-1, -2) for _ in n], True)
        yield Part("softmax", "softmax", lambda: [mx.softmax(scores, axis=-1) for _ in n], True)
        yield Part("weighted values", "product", lambda: [scores @ v for _ in n], True)
    yield Part("attention output", "product", lambda: [b.attn.out(x) for b in blocks])
    yield Part("mlp, first matrix", "product", lambda: [b.mlp1(x) for b in blocks])
    yield Part("gelu", "gelu", lambda: [functions.gelu(hidden) for _ in n])
    yield Part("mlp, second matrix", "product", lambda: [b.mlp2(hidden) for b in blocks])
    yield Part("residuals", "other", lambda: [x + y for _ in range(2 * len(blocks))])
    states = x.reshape(1, -1, width)
    cross = [block.cross_attn for block in model.decoder.blocks]
    yield Part("keys, values for the decoder", "product", lambda: [c.kv(states) for c in cross])


def step_parts(loaded: Any, batch: int, position: int) -> Iterator[Part]:
    """The parts of a decode step for `batch` clips that have `position` tokens already."""
    model, config = loaded.model, loaded.config
    decoder, blocks = model.decoder, model.decoder.blocks
    cache, dtype = filled_cache(loaded, batch, position), decoder.ln.weight.dtype
    x = mx.random.normal((batch, config.n_text_state)).astype(dtype)
    tokens = mx.zeros((batch, 1), mx.int32)
    hidden, fused = blocks[0].mlp1(x), blocks[0].attn.qkv(x)
    heads, scale = blocks[0].attn.n_head, blocks[0].attn.scale
    q, k, v = mx.split(split_heads(fused, batch, 3 * heads), 3, axis=1)
    logits = model.logits(x[:, None])[:, 0]
    rules, key = LogitRules(loaded.decoder.vocabulary, DecodingOptions()), mx.random.key(0)
    state = rules.first(logits, key)
    y = decoder.ln(x)
    mx.eval(x, y, tokens, hidden, fused, q, k, v, logits, state)

    def attend_to_text() -> list[Any]:
        results = []
        for layer in cache:
            layer.self_attn.offset = position
            keys, values = layer.self_attn.update(k, v)
            results.append(functions.attention(q, keys, values, scale=scale))
        return results

    def attend_to_audio() -> list[Any]:
        states = [layer.cross_attn.state() for layer in cache]
        return [functions.attention(q, *kv, scale=scale) for kv in states]

    def norms() -> list[Any]:
        return [_norms(blocks, x), [b.cross_attn_ln(x) for b in blocks], decoder.ln(x)]

    yield Part("token embedding", "other", lambda: decoder.token_embedding(tokens))
    yield Part("layer norms", "norm", norms)
    yield Part("query, key, value", "product", lambda: [b.attn.qkv(x) for b in blocks])
    yield Part("attention to the text", "attention", attend_to_text)
    yield Part("its output", "product", lambda: [b.attn.out(x) for b in blocks])
    yield Part("query for the audio", "product", lambda: [b.cross_attn.query(x) for b in blocks])
    yield Part("attention to the audio", "attention", attend_to_audio)
    yield Part("its output ", "product", lambda: [b.cross_attn.out(x) for b in blocks])
    yield Part("mlp, first matrix", "product", lambda: [b.mlp1(x) for b in blocks])
    yield Part("gelu", "gelu", lambda: [functions.gelu(hidden) for _ in blocks])
    yield Part("mlp, second matrix", "product", lambda: [b.mlp2(hidden) for b in blocks])
    yield Part("residuals", "other", lambda: [x + y for _ in range(3 * len(blocks))])
    yield Part("vocabulary", "product", lambda: model.logits(x[:, None]))
    yield Part("logit rules", "rules", lambda: rules.next(logits, state, key))


def filled_cache(loaded: Any, batch: int, position: int) -> Any:
    """Caches of random encoder states and of `position` tokens, evaluated."""
    cache = loaded.model.make_cache()
    dtype = loaded.model.decoder.ln.weight.dtype
    loaded.model.attend_to(random_states(batch, loaded.config, dtype), cache)
    hidden = loaded.model.decoder(mx.zeros((batch, position), mx.int32), cache)
    mx.eval(hidden, [layer.cross_attn.state() for layer in cache])
    return cache


def _attend(fused: Any, n_head: int, scale: float) -> Any:
    """Attention from the product of one layer to the input of its output matrix."""
    q, k, v = mx.split(split_heads(fused, 1, 3 * n_head), 3, axis=1)
    return merge_heads(functions.attention(q, k, v, scale=scale))


def _norms(blocks: Any, x: Any) -> list[Any]:
    return [(block.attn_ln(x), block.mlp_ln(x)) for block in blocks]
