"""From encoded audio to token ids and their times.

`Decoder.encode` runs the encoder (model/whisper.py) on windows of features; `Decoder.decode` feeds
the prompts, lets generation.py make the tokens, and aligns these with the audio.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.decoding.alignment import (
    Alignment,
    align_all,
    attention_of,
    heads_to_align,
    logprobs_of,
)
from baldwhisper_mlx.decoding.generation import Generator, require_finite
from baldwhisper_mlx.decoding.options import DecodingOptions, Vocabulary
from baldwhisper_mlx.decoding.result import DecodingResult, Hypothesis
from baldwhisper_mlx.decoding.token_tree import cached_positions
from baldwhisper_mlx.model.cache import EncodedAudio
from baldwhisper_mlx.model.whisper import Whisper
from baldwhisper_mlx.ops.buffers import trim


class Decoder:
    """Decodes batches of clips with one model, reusing its caches from call to call.

    Not for several threads at once: `encode` replaces the clips of the call before. `LoadedModel`
    has a lock for that.

    Example:
        >>> decoder.encode(mel[None], [2400])
        >>> decoder.decode([50258, 50259, 50359])[0].tokens
    """

    def __init__(self, model: Whisper, vocabulary: Vocabulary) -> None:
        self.model = model
        self.vocabulary = vocabulary
        self._cache = model.make_cache()
        self._batch = 0
        self._aligned_heads = heads_to_align(model.config)
        self._aligned_layers = {layer for layer, _ in self._aligned_heads}
        self._generate = Generator(model, self._cache, vocabulary)

    def encode(self, mel: mx.array, n_frames: Sequence[int]) -> None:
        """Encodes the clips that later calls decode.

        Args:
            mel: (B, 2 * n_audio_ctx, n_mels) log-mel, zeros after the end of a clip.
            n_frames: mel frames of real audio in each clip.
        """
        self._batch = len(n_frames)
        trim()
        self.model.encode(mel, n_frames, self._cache)
        mx.async_eval([layer.cross_attn.state() for layer in self._cache])

    def attend_to(self, audio: mx.array) -> None:
        """As `encode`, with encoder states (B, T, d) that were computed before."""
        self._batch = audio.shape[0]
        self.model.attend_to(audio, self._cache)
        mx.async_eval([layer.cross_attn.state() for layer in self._cache])

    def release(self) -> None:
        """Frees the memory of the caches; nothing is encoded after that."""
        self._batch = 0
        for layer in self._cache:
            layer.release()
        trim()

    def encoded(self) -> EncodedAudio:
        """The encoded clips, to decode them again after others were encoded."""
        layers = tuple(layer.cross_attn.state() for layer in self._cache)
        return EncodedAudio(layers, self._cache[0].audio_mask)

    def restore(self, audio: EncodedAudio) -> None:
        """As `encode`, with clips that were encoded before."""
        self._batch = audio.layers[0][0].shape[0]
        for layer, (keys, values) in zip(self._cache, audio.layers, strict=True):
            layer.cross_attn.fill(keys, values)
            layer.audio_mask = audio.mask
            layer.self_attn.reset()

    def detect_language(self, language_tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Probabilities (B, number of languages) of the given language ids for each clip."""
        sot = mx.full((self._batch, 1), self.vocabulary.sot, mx.int32)
        logits = self._prefill(sot, [0])[:, 0, mx.array(list(language_tokens))]
        require_finite(logits.sum().item())
        return np.array(mx.softmax(logits, axis=-1))

    def decode(
        self,
        prompt: Sequence[int] | Sequence[Sequence[int]],
        options: DecodingOptions | None = None,
        *,
        align_frames: Sequence[int] | None = None,
    ) -> list[DecodingResult]:
        """Decodes the encoded clips.

        Args:
            prompt: ids up to and with the start-of-transcript sequence, the same for all
                clips (n,) or one row each (B, n), in which <|startoftranscript|> stands at the
                same place.
            options: see `DecodingOptions`.
            align_frames: mel frames of real audio in each clip; with them, results carry the
                times of their tokens.

        Returns:
            A result for each clip.

        Raises:
            ValueError: nothing was encoded, or the prompt fills the text context or has other ids.
            FloatingPointError: the model produced NaN or infinite logits.
        """
        options = options or DecodingOptions()
        prompts, room = self._checked_prompts(prompt, options.prefix)
        first = prompts.shape[1] - len(options.prefix) - 1  # it predicts the output's first token
        # The last one: with a previous text the prompt could hold others.
        sot = int(np.flatnonzero(prompts[0] == self.vocabulary.sot)[-1])
        self._keep_queries(align_frames is not None)
        wanted = options.forced_length or options.max_tokens or self.model.config.n_text_ctx // 2
        n_tokens = min(room, wanted)
        # These positions matter: the one that predicts <|nospeech|>, and those that predict the
        # tokens of the prefix and the one after it.
        read = [sot, *range(first, prompts.shape[1])]
        logits = self._prefill(mx.array(prompts), read, options.hypotheses * (n_tokens - 1))
        no_speech = mx.softmax(logits[:, 0], axis=-1)[:, self.vocabulary.no_speech]
        chosen = self._generate(logits[:, -1], n_tokens, options)
        given = logprobs_of(options.prefix, logits[:, 1:-1])
        alignments: Sequence[Alignment | None] = [None] * len(chosen)
        if align_frames is not None:
            alignments = align_all(
                self._attention(prompts.shape[1], sot, options.hypotheses, chosen),
                [[*options.prefix, *each.tokens] for each in chosen],
                [
                    np.exp(np.append(row, each.logprobs()))
                    for row, each in zip(given, chosen, strict=True)
                ],
                first=first - sot,
                text_end=self.vocabulary.eot,
                n_frames=align_frames,
            )
        return [
            each.result(options, float(probability), alignment, row)
            for each, probability, alignment, row in zip(
                chosen, np.array(no_speech), alignments, given, strict=True
            )
        ]

    def _keep_queries(self, kept: bool) -> None:
        """Sets whether the layers with alignment heads keep their queries, for word times."""
        for layer, cache in enumerate(self._cache):
            cache.queries = [] if kept and layer in self._aligned_layers else None

    def _attention(
        self, n_prompt: int, sot: int, width: int, chosen: Sequence[Hypothesis]
    ) -> list[npt.NDArray[np.float32]]:
        """Attention to the audio of every clip's prompt and hypothesis, from position `sot` on.

        Args:
            n_prompt: tokens of the prompt and the prefix.
            sot: position of <|startoftranscript|>. What precedes it is previous text, which was not
                spoken here.
            width: hypotheses of each clip.
            chosen: one of them for each clip.
        """
        n_cached = self._cache[0].self_attn.offset
        paths = [hypothesis.path for hypothesis in chosen]
        positions = cached_positions(n_prompt, width, paths, n_cached)
        scores = attention_of(self._cache, self._aligned_heads, [row[sot:] for row in positions])
        self._keep_queries(False)
        return scores

    def _checked_prompts(
        self, prompt: Sequence[int] | Sequence[Sequence[int]], prefix: Sequence[int]
    ) -> tuple[npt.NDArray[np.int32], int]:
        """Prompt and prefix of each clip (B, n), and how many tokens there is room for."""
        rows = np.array(prompt, np.int64, ndmin=2)  # ids of any size are checked
        prompts = np.concatenate([rows, np.tile(np.array(prefix, np.int64), (len(rows), 1))], 1)
        prompts = np.broadcast_to(prompts, (self._batch, prompts.shape[1]))
        # The last token is chosen and never fed, so it needs no position.
        room = self.model.config.n_text_ctx + 1 - prompts.shape[1]
        if not self._batch:
            raise ValueError("decode: no clips are encoded; call encode() first")
        if room < 1:
            raise ValueError(
                f"decode: a prompt of {prompts.shape[1]} tokens does not fit the text context of "
                f"{self.model.config.n_text_ctx}"
            )
        if prompts.size and not (0 <= prompts.min() <= prompts.max() < self.vocabulary.n_vocab):
            raise ValueError("decode: the prompt has ids outside the vocabulary")
        return prompts.astype(np.int32), room

    def _prefill(self, prompt: mx.array, positions: list[int], n_later: int = 0) -> mx.array:
        """Runs the prompt (B, n) through empty caches with room for `n_later` tokens after it.

        Returns:
            Logits (B, len(positions), V).
        """
        for layer in self._cache:
            layer.self_attn.reset(prompt.shape[1] + n_later)
        hidden = self.model.decoder(prompt, self._cache)
        return self.model.logits(hidden[:, mx.array(positions)])
