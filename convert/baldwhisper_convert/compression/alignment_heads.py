"""Which heads of a decoder follow the audio: those that word times are made of.

OpenAI names them for its own models. In a student whose layers were merged or trained anew they are
others, so they are found on speech: every head's attention to the audio is aligned with the
tokens by dynamic time warping, and scored by how much of it lies along that path, which goes
forward only. A head that looks elsewhere, everywhere or back and forth scores low.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from baldwhisper_convert.data.batches import IGNORED, Batch
from baldwhisper_convert.model.whisper import KeysAndValues, Whisper
from baldwhisper_mlx.config import CONFIG_FILE, ModelConfig
from baldwhisper_mlx.decoding.dtw import token_start_positions
from baldwhisper_mlx.files import write_atomically

Head = tuple[int, int]
"""Layer and head, from 0."""

NEAR = 5
"""Positions (20 ms) before and after a token's part of the path that still count as its own."""
FEWEST_TOKENS = 4
"""A window of fewer says nothing about going forward."""


@torch.no_grad()
def score_heads(model: Whisper, batches: Sequence[Batch], text_end: int) -> dict[Head, float]:
    """The share of each head's attention that goes forward with the text.

    Args:
        model: in evaluation mode.
        batches: speech and its text; a hundred windows are enough.
        text_end: ids from there on are no text.

    Returns:
        By head, 0 to 1.

    Raises:
        ValueError: no window has enough text.
    """
    dims = model.dims
    total, n_windows = np.zeros((dims.n_text_layer, dims.n_text_head)), 0
    for batch in batches:
        attention = attention_to_audio(model, batch)
        for row, (targets, length) in enumerate(zip(batch.targets, batch.lengths, strict=True)):
            spoken = (targets != IGNORED) & (targets < text_end)
            if int(spoken.sum()) < FEWEST_TOKENS:
                continue
            n_windows += 1
            own = attention[:, row, :, spoken, : int(length)].numpy()
            for layer, head in np.ndindex(total.shape):
                total[layer, head] += forward_share(own[layer, head])
    if not n_windows:
        raise ValueError("no window has enough text to tell which heads follow the audio")
    return {(layer, head): float(total[layer, head]) / n_windows
            for layer, head in np.ndindex(total.shape)}  # fmt: skip


def attention_to_audio(model: Whisper, batch: Batch) -> Tensor:
    """Attention of every decoder layer (layers, B, heads, L, T), teacher-forced."""
    states, mask = batch.encode(model)
    kv = model.decoder.project_audio(states)
    queries: list[Tensor] = []
    hooks = [
        block.cross_attn.query.register_forward_hook(  # type: ignore[union-attr]
            lambda _module, _inputs, output: queries.append(output)
        )
        for block in model.decoder.blocks
    ]
    try:
        model.decoder(batch.tokens, kv, mask)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([_weights(q, kv[i], mask) for i, q in enumerate(queries)])


def _weights(query: Tensor, kv: KeysAndValues, mask: Tensor | None) -> Tensor:
    keys = kv[0]
    n_head, width = keys.shape[1], keys.shape[3]
    q = query.view(*query.shape[:2], n_head, width).transpose(1, 2)
    scores = (q @ keys.transpose(2, 3)) * width**-0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights: Tensor = scores.softmax(-1)
    return weights


def forward_share(attention: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> float:
    """Mean share of the tokens' attention (tokens, T) that lies along the best path forward.

    What all tokens look at alike counts for nothing, or a head that never moves would be best.
    """
    own = np.maximum(0, attention - attention.mean(axis=0))
    starts = token_start_positions(-own)
    ends = np.append(starts[1:], own.shape[1])
    shares = [
        row[max(0, start - NEAR) : end + NEAR].sum()
        for row, start, end in zip(own, starts, ends, strict=True)
    ]
    return float(np.mean(shares))


def choose_heads(scores: dict[Head, float], most: int, least_of_best: float) -> tuple[Head, ...]:
    """The best heads, in order of layer and head.

    Args:
        scores: from `score_heads`.
        most: how many at most.
        least_of_best: share of the best score that the others must reach.
    """
    best = sorted(scores, key=lambda head: -scores[head])[:most]
    limit = least_of_best * scores[best[0]]
    return tuple(sorted(head for head in best if scores[head] >= limit))


def write_heads(folder: Path, heads: Sequence[Head]) -> None:
    """Writes the heads into the config of an exported model.

    Raises:
        FileNotFoundError, ValueError: no exported model, or heads that it does not have.
    """
    path = folder / CONFIG_FILE
    config = dataclasses.replace(ModelConfig.from_file(path), alignment_heads=tuple(heads))
    write_atomically(path, json.dumps(config.to_dict(), indent=2) + "\n")
