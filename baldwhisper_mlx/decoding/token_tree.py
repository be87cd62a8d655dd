"""Several hypotheses for each clip, decoded as a tree of tokens in one cache.

All hypotheses of a clip share its audio, the prompt, and every token up to where they part. So the
cache holds each token once, and a mask says which of them a hypothesis consists of. When beam
search drops some hypotheses and forks others, only rows of the mask move. The usual way, a row of
the batch for each hypothesis, copies the cache at every step and reads the audio's keys and values
once per hypothesis; as queries of one row, the hypotheses read them together (docs/log.md has the
times).
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.model.cache import Branches, LayerCache
from baldwhisper_mlx.model.whisper import Whisper


class TokenTree:
    """Feeds the newest token of every hypothesis to the decoder.

    Args:
        model: to be run.
        cache: of every layer, with the prompts of the clips, and with the capacity for a token of
            each hypothesis at every step.
        batch: B clips.
        width: K hypotheses of each clip.
    """

    def __init__(self, model: Whisper, cache: Sequence[LayerCache], batch: int, width: int) -> None:
        self._model, self._cache = model, cache
        self._batch, self._width = batch, width
        self._position = cache[0].self_attn.offset
        self._ancestors = mx.ones((batch * width, self._position), mx.bool_)
        self._own = mx.tile(mx.eye(width, dtype=mx.bool_), (batch, 1))

    def feed(self, tokens: mx.array, sources: mx.array | None = None) -> mx.array:
        """Logits (B * K, V) of what follows the newest tokens.

        Args:
            tokens: the newest of every hypothesis (B * K, 1), those of a clip side by side.
            sources: rows of the hypotheses that they continue (B * K,); None if each continues
                its own, and for the first tokens.
        """
        branches = None
        if self._width > 1:
            before = self._ancestors if sources is None else self._ancestors[sources]
            self._ancestors = mx.concatenate([before, self._own], axis=1)
            ancestors = self._ancestors.reshape(self._batch, 1, self._width, -1)
            branches = Branches(self._position, ancestors)
            self._position += 1
        tokens = tokens.reshape(self._batch, self._width)
        hidden = self._model.decoder(tokens, self._cache, branches)
        return self._model.logits(hidden.reshape(self._batch * self._width, -1))


def cached_positions(
    n_prompt: int, width: int, paths: Sequence[Sequence[int]], n_cached: int
) -> list[npt.NDArray[np.int64]]:
    """Where the tokens of one hypothesis of each clip lie in the cache.

    Args:
        n_prompt: tokens of the prompts, which come first.
        width: K hypotheses of each clip.
        paths: which of the K each token of the hypothesis was decoded in.
        n_cached: positions in the cache; the last token of a hypothesis may not be there.

    Returns:
        The positions of prompt and tokens, for each clip.
    """
    rows = []
    for path in paths:
        places = n_prompt + width * np.arange(len(path)) + np.array(path, np.int64)
        rows.append(np.concatenate([np.arange(n_prompt), places[places < n_cached]]))
    return rows
