"""How many primitives one decode step is: what a GPU has to be asked for, token by token.

Can be counted without a GPU, and says more about decoding there than a CPU's speed does.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from typing import Any

import mlx.core as mx

from baldwhisper_mlx.functions import mlx_only
from baldwhisper_mlx.load import LoadedModel
from baldwhisper_mlx.rules import DecodingOptions, LogitRules

_NODE = re.compile(r'label ?= ?"([^"]+)", shape=rectangle')


def step_graph(loaded: LoadedModel) -> tuple[mx.array, list[mx.array]]:
    """One decode step at batch 1 with timestamp rules, unevaluated.

    Returns:
        Its logits, and everything the rules leave behind.
    """
    config, model = loaded.config, loaded.model
    cache = model.make_cache()
    model.attend_to(mx.zeros((1, config.n_audio_ctx, config.n_audio_state)), cache)
    rules, key = LogitRules(loaded.decoder.vocabulary, DecodingOptions()), mx.random.key(0)

    def logits(token: mx.array) -> mx.array:
        return model.logits(model.decoder(token, cache))[:, 0]

    state = rules.first(logits(mx.array([[1]])), key)
    mx.eval(state, [layer.self_attn.state() for layer in cache])
    mx.eval([(layer.self_attn._keys, layer.self_attn._values) for layer in cache])
    mx.eval([layer.cross_attn.state() for layer in cache])
    step = logits(state.token)
    return step, list(rules._next(step, state, key))


def histogram(outputs: list[mx.array]) -> Counter[str]:
    """Primitives of the graph that makes some arrays, by name."""
    text = io.StringIO()
    mx.export_to_dot(text, *outputs)
    return Counter(_NODE.findall(text.getvalue()))


def count_step(loaded: LoadedModel) -> dict[str, Any]:
    """Primitives in one decode step, batch 1, timestamp rules included and not compiled.

    While it builds a graph for a CPU, MLX expands fused attention and layer norm into their
    parts; `fused` counts each of them as the one primitive that a GPU runs.

    Returns:
        `graph` (on this device, by MLX's own functions), `fused`, and `rules`: how many of them
        choose the token.
    """
    with mlx_only():
        step, state = step_graph(loaded)
    total, model_only = histogram(state).total(), histogram([step]).total()
    one, row, vector = mx.zeros((1, 1, 1, 64)), mx.zeros((1, 64)), mx.zeros(64)
    mx.eval(one, row, vector)
    attention = histogram([mx.fast.scaled_dot_product_attention(one, one, one, scale=1.0)])
    norm = histogram([mx.fast.layer_norm(row, vector, vector, 1e-5)])
    layers = loaded.config.n_text_layer
    expanded = 2 * layers * (attention.total() - 1) + (3 * layers + 1) * (norm.total() - 1)
    return {"graph": total, "fused": total - expanded, "rules": total - model_only}
