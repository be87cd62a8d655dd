"""Chooses the alignment heads of a decoder: the attention heads that word times are computed from.

OpenAI lists them for its own models. A student whose layers were merged or retrained has others, so
they are determined on speech: dynamic time warping aligns each head's attention to the audio with
the tokens, and the score is the share of the attention along that monotonic path. A head whose
attention is elsewhere, spread out or moves back and forth scores low.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from baldwhisper_convert.data.batches import IGNORED, Batch
from baldwhisper_convert.model.layers import KeysAndValues
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_mlx.config import CONFIG_FILE, ModelConfig
from baldwhisper_mlx.decoding.dtw import token_start_positions
from baldwhisper_mlx.files import write_atomically

Head = tuple[int, int]
"""Layer and head, numbered from 0."""

NEAR = 5
"""Encoder positions (20 ms) before and after a token's section of the path that still count."""
FEWEST_TOKENS = 4
"""Windows with fewer text tokens are skipped: they do not show whether attention moves on."""


@torch.no_grad()
def score_heads(model: Whisper, batches: Sequence[Batch], text_end: int) -> dict[Head, float]:
    """Scores each head by the share of its attention that moves forward with the text.

    Args:
        model: in evaluation mode.
        batches: speech and its text; a hundred windows are enough.
        text_end: ids from there on are special tokens and timestamps.

    Returns:
        Mean `forward_share` of each head over the windows, 0 to 1.

    Raises:
        ValueError: no window has enough text.
    """
    dims = model.dims
    total, n_windows = np.zeros((dims.n_text_layer, dims.n_text_head)), 0
    for batch in batches:
        spoken = (batch.targets != IGNORED) & (batch.targets < text_end)
        rows = [row for row, tokens in enumerate(spoken) if int(tokens.sum()) >= FEWEST_TOKENS]
        n_windows += len(rows)
        for layer, attention in enumerate(attention_to_audio(model, batch)):
            for row in rows:
                of_window = attention[row, :, spoken[row], : int(batch.lengths[row])].numpy()
                total[layer] += [forward_share(of_head) for of_head in of_window]
    if not n_windows:
        raise ValueError(
            f"no window has {FEWEST_TOKENS} tokens of text to score the heads on; give more speech"
        )
    return {(layer, head): float(total[layer, head]) / n_windows
            for layer, head in np.ndindex(total.shape)}  # fmt: skip


def attention_to_audio(model: Whisper, batch: Batch) -> Iterator[Tensor]:
    """Yields the cross-attention of each decoder layer (B, heads, L, T), teacher-forced.

    One layer is in memory at a time; those of a large model have gigabytes together.
    """
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
    for layer, query in enumerate(queries):
        yield _weights(query, kv[layer], mask)


def _weights(query: Tensor, kv: KeysAndValues, mask: Tensor | None) -> Tensor:
    """The attention (B, heads, L, T) of queries (B, L, d); fused attention does not return it."""
    keys = kv[0]
    n_head, width = keys.shape[1], keys.shape[3]
    q = query.view(*query.shape[:2], n_head, width).transpose(1, 2)
    scores = (q @ keys.transpose(2, 3)) * width**-0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights: Tensor = scores.softmax(-1)
    return weights


def forward_share(attention: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> float:
    """Mean share of the tokens' attention (tokens, T) along the best monotonic path.

    The mean over the tokens is subtracted first. Otherwise a head with the same attention for all
    tokens, which never moves, would score best.
    """
    distinct = np.maximum(0, attention - attention.mean(axis=0))
    # Each token's section of the path lasts until the next token's begins.
    starts = token_start_positions(-distinct)
    ends = np.append(starts[1:], distinct.shape[1])
    shares = [
        row[max(0, start - NEAR) : end + NEAR].sum()
        for row, start, end in zip(distinct, starts, ends, strict=True)
    ]
    return float(np.mean(shares))


def choose_heads(scores: dict[Head, float], most: int, least_of_best: float) -> tuple[Head, ...]:
    """Chooses the heads with the highest scores, ordered by layer and head.

    Args:
        scores: from `score_heads`.
        most: largest number of heads.
        least_of_best: smallest score of a chosen head, as a share of the best score.
    """
    best = sorted(scores, key=lambda head: -scores[head])[:most]
    limit = least_of_best * scores[best[0]]
    return tuple(sorted(head for head in best if scores[head] >= limit))


def write_heads(folder: Path, heads: Sequence[Head]) -> None:
    """Writes the alignment heads into the config of an exported model.

    Raises:
        FileNotFoundError: the folder holds no exported model.
        ValueError: not a valid config, or heads that the model does not have.
    """
    path = folder / CONFIG_FILE
    config = dataclasses.replace(ModelConfig.from_file(path), alignment_heads=tuple(heads))
    write_atomically(path, json.dumps(config.to_dict(), indent=2) + "\n")
