"""Parameter names of every Whisper format, as literal tables.

A table maps a source name to OpenAI's (the canonical one); None means the tensor is dropped
on purpose. Placeholders stand for the parts that repeat: `{i}` a layer number, `{side}`
encoder or decoder, `{leaf}` weight or bias. A name that matches no row is an error, so a model
with other parameters is not mistaken for a Whisper.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

HUGGING_FACE: dict[str, str | None] = {
    "encoder.conv1.{leaf}": "encoder.conv1.{leaf}",
    "encoder.conv2.{leaf}": "encoder.conv2.{leaf}",
    "encoder.layer_norm.{leaf}": "encoder.ln_post.{leaf}",
    "decoder.layer_norm.{leaf}": "decoder.ln.{leaf}",
    "decoder.embed_tokens.weight": "decoder.token_embedding.weight",
    "{side}.embed_positions.weight": "{side}.positional_embedding",
    "{side}.layers.{i}.self_attn.q_proj.{leaf}": "{side}.blocks.{i}.attn.query.{leaf}",
    "{side}.layers.{i}.self_attn.k_proj.weight": "{side}.blocks.{i}.attn.key.weight",
    "{side}.layers.{i}.self_attn.v_proj.{leaf}": "{side}.blocks.{i}.attn.value.{leaf}",
    "{side}.layers.{i}.self_attn.out_proj.{leaf}": "{side}.blocks.{i}.attn.out.{leaf}",
    "{side}.layers.{i}.self_attn_layer_norm.{leaf}": "{side}.blocks.{i}.attn_ln.{leaf}",
    "decoder.layers.{i}.encoder_attn.q_proj.{leaf}": "decoder.blocks.{i}.cross_attn.query.{leaf}",
    "decoder.layers.{i}.encoder_attn.k_proj.weight": "decoder.blocks.{i}.cross_attn.key.weight",
    "decoder.layers.{i}.encoder_attn.v_proj.{leaf}": "decoder.blocks.{i}.cross_attn.value.{leaf}",
    "decoder.layers.{i}.encoder_attn.out_proj.{leaf}": "decoder.blocks.{i}.cross_attn.out.{leaf}",
    "decoder.layers.{i}.encoder_attn_layer_norm.{leaf}": "decoder.blocks.{i}.cross_attn_ln.{leaf}",
    "{side}.layers.{i}.fc1.{leaf}": "{side}.blocks.{i}.mlp.0.{leaf}",
    "{side}.layers.{i}.fc2.{leaf}": "{side}.blocks.{i}.mlp.2.{leaf}",
    "{side}.layers.{i}.final_layer_norm.{leaf}": "{side}.blocks.{i}.mlp_ln.{leaf}",
    "proj_out.weight": None,  # tied to decoder.embed_tokens.weight; the reader compares them
}
"""transformers' WhisperForConditionalGeneration, without the `model.` prefix."""

HF_DIMENSIONS = {
    "n_mels": "num_mel_bins",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_attention_heads",
    "n_audio_layer": "encoder_layers",
    "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_head": "decoder_attention_heads",
    "n_text_layer": "decoder_layers",
}
"""OpenAI's dimensions to the keys of transformers' WhisperConfig, which has one width."""

OPENAI: dict[str, str | None] = {
    "encoder.conv1.{leaf}": "encoder.conv1.{leaf}",
    "encoder.conv2.{leaf}": "encoder.conv2.{leaf}",
    "encoder.ln_post.{leaf}": "encoder.ln_post.{leaf}",
    "decoder.ln.{leaf}": "decoder.ln.{leaf}",
    "decoder.token_embedding.weight": "decoder.token_embedding.weight",
    "{side}.positional_embedding": "{side}.positional_embedding",
    "{side}.blocks.{i}.attn.query.{leaf}": "{side}.blocks.{i}.attn.query.{leaf}",
    "{side}.blocks.{i}.attn.key.weight": "{side}.blocks.{i}.attn.key.weight",
    "{side}.blocks.{i}.attn.value.{leaf}": "{side}.blocks.{i}.attn.value.{leaf}",
    "{side}.blocks.{i}.attn.out.{leaf}": "{side}.blocks.{i}.attn.out.{leaf}",
    "{side}.blocks.{i}.attn_ln.{leaf}": "{side}.blocks.{i}.attn_ln.{leaf}",
    "decoder.blocks.{i}.cross_attn.query.{leaf}": "decoder.blocks.{i}.cross_attn.query.{leaf}",
    "decoder.blocks.{i}.cross_attn.key.weight": "decoder.blocks.{i}.cross_attn.key.weight",
    "decoder.blocks.{i}.cross_attn.value.{leaf}": "decoder.blocks.{i}.cross_attn.value.{leaf}",
    "decoder.blocks.{i}.cross_attn.out.{leaf}": "decoder.blocks.{i}.cross_attn.out.{leaf}",
    "decoder.blocks.{i}.cross_attn_ln.{leaf}": "decoder.blocks.{i}.cross_attn_ln.{leaf}",
    "{side}.blocks.{i}.mlp.0.{leaf}": "{side}.blocks.{i}.mlp.0.{leaf}",
    "{side}.blocks.{i}.mlp.2.{leaf}": "{side}.blocks.{i}.mlp.2.{leaf}",
    "{side}.blocks.{i}.mlp_ln.{leaf}": "{side}.blocks.{i}.mlp_ln.{leaf}",
    "decoder.mask": None,  # the causal mask, a constant that early releases saved
    "alignment_heads": None,  # a buffer; mlx-community saves it, the reader keeps the value
}
"""openai-whisper's own names: the canonical ones, plus buffers that are not weights."""

MLX_COMMUNITY: dict[str, str | None] = {
    name.replace(".mlp.0.", ".mlp1.").replace(".mlp.2.", ".mlp2."): target
    for name, target in OPENAI.items()
}
"""mlx-whisper's names: OpenAI's, but its MLP is two named layers. Convolutions are in
MLX layout (out, kernel, in)."""

CTRANSLATE2: dict[str, str | None] = {
    "encoder/conv1/{leaf}": "encoder.conv1.{leaf}",
    "encoder/conv2/{leaf}": "encoder.conv2.{leaf}",
    "encoder/layer_norm/gamma": "encoder.ln_post.weight",
    "encoder/layer_norm/beta": "encoder.ln_post.bias",
    "decoder/layer_norm/gamma": "decoder.ln.weight",
    "decoder/layer_norm/beta": "decoder.ln.bias",
    "decoder/embeddings/weight": "decoder.token_embedding.weight",
    "decoder/projection/weight": None,  # tied to the embeddings; the reader compares them
    "{side}/position_encodings/encodings": "{side}.positional_embedding",
    "{side}/layer_{i}/self_attention/linear_0/{leaf}": "{side}.blocks.{i}.attn.qkv.{leaf}",
    "{side}/layer_{i}/self_attention/linear_1/{leaf}": "{side}.blocks.{i}.attn.out.{leaf}",
    "{side}/layer_{i}/self_attention/layer_norm/gamma": "{side}.blocks.{i}.attn_ln.weight",
    "{side}/layer_{i}/self_attention/layer_norm/beta": "{side}.blocks.{i}.attn_ln.bias",
    "decoder/layer_{i}/attention/linear_0/{leaf}": "decoder.blocks.{i}.cross_attn.query.{leaf}",
    "decoder/layer_{i}/attention/linear_1/{leaf}": "decoder.blocks.{i}.cross_attn.kv.{leaf}",
    "decoder/layer_{i}/attention/linear_2/{leaf}": "decoder.blocks.{i}.cross_attn.out.{leaf}",
    "decoder/layer_{i}/attention/layer_norm/gamma": "decoder.blocks.{i}.cross_attn_ln.weight",
    "decoder/layer_{i}/attention/layer_norm/beta": "decoder.blocks.{i}.cross_attn_ln.bias",
    "{side}/layer_{i}/ffn/linear_0/{leaf}": "{side}.blocks.{i}.mlp.0.{leaf}",
    "{side}/layer_{i}/ffn/linear_1/{leaf}": "{side}.blocks.{i}.mlp.2.{leaf}",
    "{side}/layer_{i}/ffn/layer_norm/gamma": "{side}.blocks.{i}.mlp_ln.weight",
    "{side}/layer_{i}/ffn/layer_norm/beta": "{side}.blocks.{i}.mlp_ln.bias",
}
"""CTranslate2's WhisperSpec; its fused qkv and kv are split by `FUSED` afterwards."""

FUSED: dict[str, tuple[str, ...]] = {
    "{side}.blocks.{i}.attn.qkv.{leaf}": (
        "{side}.blocks.{i}.attn.query.{leaf}",
        "{side}.blocks.{i}.attn.key.{leaf}",
        "{side}.blocks.{i}.attn.value.{leaf}",
    ),
    "decoder.blocks.{i}.cross_attn.kv.{leaf}": (
        "decoder.blocks.{i}.cross_attn.key.{leaf}",
        "decoder.blocks.{i}.cross_attn.value.{leaf}",
    ),
}
"""Rows of a fused projection, in order. A canonical state has no key bias: Whisper's keys
have none, so in a fused bias those rows are zero."""

MLX_EXPORT: dict[str, str | None] = {
    "encoder.conv1.{leaf}": "encoder.conv1.{leaf}",
    "encoder.conv2.{leaf}": "encoder.conv2.{leaf}",
    "encoder.ln_post.{leaf}": "encoder.ln_post.{leaf}",
    "decoder.ln.{leaf}": "decoder.ln.{leaf}",
    "decoder.token_embedding.weight": "decoder.token_embedding.weight",
    "decoder.token_embedding.factors": "decoder.token_embedding.factors",
    "decoder.token_embedding.input_projection": "decoder.token_embedding.input_projection",
    "decoder.token_embedding.output_projection": "decoder.token_embedding.output_projection",
    "decoder.token_embedding.mean": "decoder.token_embedding.mean",
    "decoder.token_embedding.dense_rows": "decoder.token_embedding.dense_rows",
    "decoder.token_embedding.dense_ids": "decoder.token_embedding.dense_ids",
    "{side}.positional_embedding": "{side}.positional_embedding",
    "{side}.blocks.{i}.attn.qkv.{leaf}": "{side}.blocks.{i}.attn.qkv.{leaf}",
    "{side}.blocks.{i}.attn.out.{leaf}": "{side}.blocks.{i}.attn.out.{leaf}",
    "{side}.blocks.{i}.attn_ln.{leaf}": "{side}.blocks.{i}.attn_ln.{leaf}",
    "decoder.blocks.{i}.cross_attn.query.{leaf}": "decoder.blocks.{i}.cross_attn.query.{leaf}",
    "decoder.blocks.{i}.cross_attn.kv.{leaf}": "decoder.blocks.{i}.cross_attn.kv.{leaf}",
    "decoder.blocks.{i}.cross_attn.out.{leaf}": "decoder.blocks.{i}.cross_attn.out.{leaf}",
    "decoder.blocks.{i}.cross_attn_ln.{leaf}": "decoder.blocks.{i}.cross_attn_ln.{leaf}",
    "{side}.blocks.{i}.mlp.0.{leaf}": "{side}.blocks.{i}.mlp1.{leaf}",
    "{side}.blocks.{i}.mlp.2.{leaf}": "{side}.blocks.{i}.mlp2.{leaf}",
    "{side}.blocks.{i}.mlp_ln.{leaf}": "{side}.blocks.{i}.mlp_ln.{leaf}",
}
"""Canonical names, after fusing by `FUSED`, to the exported folder's (see `docs/format.md`)."""

_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"}
"""Parts that torch.compile, FSDP, activation checkpointing and data-parallel training put into
names; no Whisper has a part of that name."""

_PLACEHOLDERS = {"i": r"0|[1-9]\d*", "side": "encoder|decoder", "leaf": "weight|bias"}


def match(pattern: str, name: str) -> dict[str, str] | None:
    """Values of the placeholders of `pattern` in `name`; None if it does not match.

    Example:
        >>> match("{side}.blocks.{i}.mlp_ln.{leaf}", "decoder.blocks.3.mlp_ln.bias")
        {'side': 'decoder', 'i': '3', 'leaf': 'bias'}
    """
    regex = re.escape(pattern)
    for key, values in _PLACEHOLDERS.items():
        regex = regex.replace(re.escape("{" + key + "}"), f"(?P<{key}>{values})", 1)
    matched = re.fullmatch(regex, name)
    return matched.groupdict() if matched else None


def match_any(patterns: Iterable[str], name: str) -> tuple[str, dict[str, str]] | None:
    """The first pattern that matches `name`, with its placeholders' values; None if none does."""
    for pattern in patterns:
        values = match(pattern, name)
        if values is not None:
            return pattern, values
    return None


def unwrapped(names: Iterable[str], source: str) -> dict[str, str]:
    """Names without what training wrappers add, and without transformers' `model.`.

    Args:
        names: parameter names as the source has them.
        source: what the names come from, for the error.

    Returns:
        The plain name of each, in the order of `names`.

    Raises:
        ValueError: two names that become the same.

    Example:
        >>> unwrapped(["_orig_mod.model.encoder.conv1.bias"], "x")
        {'_orig_mod.model.encoder.conv1.bias': 'encoder.conv1.bias'}
    """
    plain: dict[str, str] = {}
    origin: dict[str, str] = {}
    for name in names:
        parts = [part for part in name.split(".") if part not in _WRAPPERS]
        while parts[:1] == ["model"]:
            del parts[0]
        plain[name] = ".".join(parts)
        first = origin.setdefault(plain[name], name)
        if first != name:
            raise ValueError(
                f"{source}: {plain[name]} occurs with and without a prefix ({first}, {name})"
            )
    return plain


def rename(
    names: Iterable[str], table: Mapping[str, str | None], source: str
) -> dict[str, str | None]:
    """Looks every name up in a table.

    Args:
        names: parameter names as the source has them.
        table: one of this module's tables.
        source: what the names come from, for the error.

    Returns:
        New name of each, None for one that is dropped; in the order of `names`.

    Raises:
        ValueError: names that match no row, or two that get the same new name.
    """
    renamed: dict[str, str | None] = {}
    unexpected, origin = [], dict[str, str]()
    for name in names:
        matched = match_any(table, name)
        if matched is None:
            unexpected.append(name)
            continue
        pattern, values = matched
        target = table[pattern]
        renamed[name] = new = None if target is None else target.format(**values)
        if new is not None and origin.setdefault(new, name) != name:
            raise ValueError(f"{source}: {origin[new]} and {name} are both {new}")
    if unexpected:
        raise ValueError(
            f"{source}: not the parameters of a Whisper model; unexpected {listed(unexpected)}"
        )
    return renamed


def listed(names: Iterable[str], limit: int = 12) -> str:
    """Names joined for an error message; beyond `limit` of them, how many more there are.

    Example:
        >>> listed(["b", "a", "c"], limit=2)
        'a, b and 1 more'
    """
    ordered = sorted(names)
    rest = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return ", ".join(ordered[:limit]) + rest
