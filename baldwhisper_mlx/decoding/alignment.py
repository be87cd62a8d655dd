"""When each token was spoken, from the cross-attention of the decoding itself.

While decoding, the queries of the cross-attention are kept (`LayerCache.queries`). Together with
the keys of the audio, which are still in the cache, they give the attention of every token without
a second pass. The attention of some heads follows the audio; filtered, it is aligned with the
tokens by dynamic time warping (dtw.py). The steps are those of openai-whisper's `timing.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.config import (
    FRAMES_PER_POSITION,
    TIME_PRECISION,
    ModelConfig,
    default_alignment_heads,
)
from baldwhisper_mlx.decoding.dtw import Matrix, smoothed, token_start_positions
from baldwhisper_mlx.model.cache import LayerCache


@dataclass(frozen=True)
class Alignment:
    """Times of one clip's tokens, in seconds from the start of its window.

    Each tuple is as long as the tokens and has NaN where a token is no text.
    """

    starts: tuple[float, ...]
    ends: tuple[float, ...]
    probabilities: tuple[float, ...]
    """Probability with which each token was chosen, 0 to 1."""
    attended: tuple[float, ...] = ()
    """Seconds of the audio that the step that chose each token attends to most."""


def attention_of(
    cache: Sequence[LayerCache],
    heads: Sequence[tuple[int, int]],
    positions: Sequence[npt.NDArray[np.int64]],
) -> list[npt.NDArray[np.float32]]:
    """Attention of some heads to the audio, before the softmax.

    Args:
        cache: of a decoding whose queries were kept.
        heads: (layer, head) pairs.
        positions: of the tokens in the cache whose attention is wanted, for each clip (n,).

    Returns:
        (number of heads, n, T) for each clip.

    Raises:
        ValueError: the queries were not kept.
    """
    longest = max(len(places) for places in positions)
    padded = [np.pad(places, (0, longest - len(places)), "edge") for places in positions]
    index = mx.array(np.stack(padded))[:, None, :, None]
    scores = []
    for layer in sorted({layer for layer, _ in heads}):
        layer_cache = cache[layer]
        if not layer_cache.queries:
            raise ValueError("the queries of this decoding were not kept: decode with align_frames")
        chosen = mx.array([head for other, head in heads if other == layer])
        queries = mx.concatenate(layer_cache.queries, axis=2)[:, chosen].astype(mx.float32)
        queries = mx.take_along_axis(queries, index, axis=2)
        keys = layer_cache.cross_attn.state()[0][:, chosen].astype(mx.float32)
        scores.append((queries * queries.shape[-1] ** -0.5) @ keys.swapaxes(-1, -2))
    rows = np.array(mx.concatenate(scores, axis=1))
    return [clip[:, : len(places)] for clip, places in zip(rows, positions, strict=True)]


def align(
    scores: Matrix,
    tokens: Sequence[int],
    probabilities: npt.NDArray[np.float64],
    *,
    first: int,
    text_end: int,
    n_frames: int,
) -> Alignment:
    """Times of a clip's tokens.

    Args:
        scores: of the heads (heads, rows, T); row 0 is that of <|startoftranscript|>.
        tokens: what was decoded, timestamps included.
        probabilities: of the tokens.
        first: the row that predicted the first token.
        text_end: ids from there on are no text.
        n_frames: mel frames of real audio in the window.
    """
    spoken = [i for i, token in enumerate(tokens) if token < text_end]
    starts = np.full(len(tokens), np.nan)
    ends, text_probabilities, attended = starts.copy(), starts.copy(), starts.copy()
    if spoken:
        # Positions after the end of the audio are padding, where nothing can be spoken.
        length = max(1, min(n_frames // FRAMES_PER_POSITION, scores.shape[-1]))
        matrix = smoothed(scores[:, : first + len(tokens) + 1, :length])
        # The row that predicted the end of text tells where the last token ends. An output that
        # was cut off has none; its last token ends where it begins.
        rows = [min(first + i, len(matrix) - 1) for i in (*spoken, len(tokens))]
        times = token_start_positions(-matrix[rows]) * TIME_PRECISION
        starts[spoken], ends[spoken] = times[:-1], times[1:]
        text_probabilities[spoken] = probabilities[spoken]
        attended[spoken] = matrix[rows[:-1]].argmax(axis=-1) * TIME_PRECISION
    columns = (starts, ends, text_probabilities, attended)
    return Alignment(*(tuple(each.tolist()) for each in columns))


def align_all(
    scores: Sequence[npt.NDArray[np.float32]],
    tokens: Sequence[Sequence[int]],
    probabilities: Sequence[npt.NDArray[np.float64]],
    *,
    first: int,
    text_end: int,
    n_frames: Sequence[int],
) -> list[Alignment]:
    """`align` for each clip of a batch; arguments as there, for each clip."""
    return [
        align(*clip, first=first, text_end=text_end, n_frames=frames)
        for clip, frames in zip(
            zip(scores, tokens, probabilities, strict=True), n_frames, strict=True
        )
    ]


def heads_to_align(config: ModelConfig) -> tuple[tuple[int, int], ...]:
    """The (layer, head) pairs whose attention follows the audio: the config's, else the default."""
    default = default_alignment_heads(config.n_text_layer, config.n_text_head)
    return config.alignment_heads or default


def logprobs_of(tokens: Sequence[int], logits: mx.array) -> npt.NDArray[np.float64]:
    """Log-probabilities (nats) of tokens that were not chosen but given.

    Args:
        tokens: n ids.
        logits: that predict them (B, n, V).

    Returns:
        (B, n).
    """
    if not tokens:
        return np.zeros((logits.shape[0], 0))
    ids = mx.broadcast_to(mx.array(list(tokens))[None, :, None], (*logits.shape[:2], 1))
    chosen = mx.take_along_axis(logits, ids, axis=-1) - mx.logsumexp(logits, axis=-1, keepdims=True)
    return np.array(chosen[..., 0].astype(mx.float32)).astype(np.float64)
