"""How many primitives a decode step has: what is launched on a GPU for every token.

This can be counted without a GPU, and predicts decoding there better than the speed on a CPU.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from contextlib import nullcontext
from typing import Any

import mlx.core as mx

from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.decoding.logit_rules import LogitRules
from baldwhisper_mlx.decoding.options import DecodingOptions
from baldwhisper_mlx.ops.functions import mlx_only

_NODE = re.compile(r'label ?= ?"([^"]+)", shape=rectangle')


def step_graph(
    loaded: LoadedModel, *, compiled: bool = False, by_mlx: bool = False
) -> tuple[mx.array, list[mx.array]]:
    """One decode step at batch 1 with timestamp rules, unevaluated.

    Args:
        loaded: the model.
        compiled: whether the rules are fused, as they are on a GPU.
        by_mlx: whether the step is made of MLX's own functions only, as it is on a GPU.

    Returns:
        Its logits, and the state that the rules return.
    """
    config, model = loaded.config, loaded.model
    cache = model.make_cache()
    model.attend_to(mx.zeros((1, config.n_audio_ctx, config.n_audio_state)), cache)
    rules, key = LogitRules(loaded.decoder.vocabulary, DecodingOptions()), mx.random.key(0)

    def logits(token: mx.array) -> mx.array:
        return model.logits(model.decoder(token, cache).squeeze(1))

    state = rules.first(logits(mx.array([[1]])), key)
    mx.eval(state, [layer.self_attn.state() for layer in cache])
    mx.eval([(layer.self_attn._keys, layer.self_attn._values) for layer in cache])
    mx.eval([layer.cross_attn.state() for layer in cache])
    # Only this step: MLX would call a C++ compiler to evaluate its compiled GELU on a CPU.
    with mlx_only() if by_mlx else nullcontext():
        step = logits(state.token)
        follow = mx.compile(rules._next) if compiled else rules._next
        return step, list(follow(step, state, key))


def histogram(outputs: list[mx.array]) -> Counter[str]:
    """Primitives of the graph that makes some arrays, by name."""
    text = io.StringIO()
    mx.export_to_dot(text, *outputs)
    return Counter(_NODE.findall(text.getvalue()))


def count_step(loaded: LoadedModel) -> dict[str, Any]:
    """Primitives in one decode step, batch 1, timestamp rules included.

    While it builds a graph for a CPU, MLX expands fused attention and layer norm into their
    parts, and the rules are compiled for a GPU only; `fused` counts what a GPU runs.

    Returns:
        `graph` (on a CPU, by MLX's own functions), `fused`, and `rules`: how many of the latter
        choose the token.
    """
    graph = histogram(step_graph(loaded, by_mlx=True)[1]).total()
    step, state = step_graph(loaded, compiled=True, by_mlx=True)
    total, model_only = histogram(state).total(), histogram([step]).total()
    one, row, vector = mx.zeros((1, 1, 1, 64)), mx.zeros((1, 64)), mx.zeros(64)
    mx.eval(one, row, vector)
    attention = histogram([mx.fast.scaled_dot_product_attention(one, one, one, scale=1.0)])
    norm = histogram([mx.fast.layer_norm(row, vector, vector, 1e-5)])
    # in each layer two attentions and three norms, and one norm after the last
    layers = loaded.config.n_text_layer
    expanded = 2 * layers * (attention.total() - 1) + (3 * layers + 1) * (norm.total() - 1)
    return {"graph": graph, "fused": total - expanded, "rules": total - model_only}
