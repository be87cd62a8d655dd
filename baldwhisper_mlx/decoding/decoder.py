"""From encoded audio to token ids: greedy decoding or sampling with cached keys and values.

`Decoder.encode` runs the encoder (model/whisper.py) on windows of features; `Decoder.decode` makes
their tokens by the rules of logit_rules.py. The host submits step t + 1 before the device has
finished step t: tokens, rules and scores stay on the device, and the host checks only every
`CHECK_EVERY` steps whether all rows have ended. tests/support/naive.py decodes without a cache and
reads every token back; the tests require the same tokens.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.decoding.alignment import Alignment, align, attention_of, heads_to_align
from baldwhisper_mlx.decoding.logit_rules import DecodingOptions, LogitRules, State, Vocabulary
from baldwhisper_mlx.decoding.loop_guard import LoopGuard
from baldwhisper_mlx.model.cache import EncodedAudio
from baldwhisper_mlx.model.whisper import Whisper
from baldwhisper_mlx.ops.buffers import trim

CHECK_EVERY = 4
"""Steps between two checks of whether every row has ended; each makes the host wait once."""


@dataclass(frozen=True)
class DecodingResult:
    """One clip's output."""

    tokens: list[int]
    """Ids, timestamps included, without prompt and end of text."""
    avg_logprob: float
    """Mean log-probability (nats) of the tokens and of the end of text, as OpenAI computes it."""
    no_speech_prob: float
    """Probability of <|nospeech|> at the start of the transcript, 0 to 1."""
    temperature: float
    """At which the tokens were sampled; 0 for the most likely ones."""
    alignment: Alignment | None = None
    """When each token was spoken, if `decode` was given `align_frames`."""


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
        self._rules: dict[DecodingOptions, LogitRules] = {}

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
        _require_finite(logits.sum().item())
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
        prompts, room = self._checked_prompts(prompt)
        # The last one: with a previous text the prompt could hold others.
        sot = int(np.flatnonzero(prompts[0] == self.vocabulary.sot)[-1])
        # Only the layers with alignment heads keep their queries, and only for word times.
        for layer, cache in enumerate(self._cache):
            kept = align_frames is not None and layer in self._aligned_layers
            cache.queries = [] if kept else None
        # Two positions matter: the one that predicts <|nospeech|>, and the one that predicts the
        # first token.
        logits = self._prefill(mx.array(prompts), [sot, prompts.shape[1] - 1])
        no_speech = mx.softmax(logits[:, 0], axis=-1)[:, self.vocabulary.no_speech]
        wanted = options.forced_length or options.max_tokens or self.model.config.n_text_ctx // 2
        state, tokens, sums = self._generate(logits[:, 1], min(room, wanted), options)
        _require_finite(state.checksum.item())
        results = _results(
            np.array(tokens),
            np.array(state.sum_logprob)[:, 0],
            np.array(no_speech),
            self.vocabulary.eot,
            options.temperature,
        )
        if align_frames is None:
            return results
        return self._aligned(results, np.array(sums), prompts.shape[1] - 1 - sot, sot, align_frames)

    def _checked_prompts(
        self, prompt: Sequence[int] | Sequence[Sequence[int]]
    ) -> tuple[npt.NDArray[np.int32], int]:
        """The prompt of each clip (B, n), and how many tokens there is room for."""
        prompts = np.array(prompt, np.int64, ndmin=2)  # ids of any size are checked
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

    def _aligned(
        self,
        results: Sequence[DecodingResult],
        sums: npt.NDArray[np.float32],
        first: int,
        sot: int,
        n_frames: Sequence[int],
    ) -> list[DecodingResult]:
        """The results with the times of their tokens.

        Args:
            results: of the decoding whose queries are in the cache.
            sums: cumulative log-probabilities of the tokens (B, n).
            first: position that predicted the first token, counted from `sot`.
            sot: position of <|startoftranscript|> in the prompt.
            n_frames: mel frames of real audio in each clip.
        """
        # What precedes <|startoftranscript|> is previous text, which was not spoken here.
        scores = attention_of(self._cache, self._aligned_heads)[:, :, sot:]
        for cache in self._cache:
            cache.queries = None
        # Differences of cumulative log-probabilities are those of the single tokens.
        probabilities = np.exp(np.diff(sums.astype(np.float64), axis=1, prepend=0.0))
        return [
            dataclasses.replace(
                result,
                alignment=align(
                    row,
                    result.tokens,
                    token_probabilities,
                    first=first,
                    text_end=self.vocabulary.eot,
                    n_frames=frames,
                ),
            )
            for result, row, token_probabilities, frames in zip(
                results, scores, probabilities, n_frames, strict=True
            )
        ]

    def _prefill(self, prompt: mx.array, positions: list[int]) -> mx.array:
        """Runs the prompt (B, n) through empty caches; logits (B, len(positions), V)."""
        for layer in self._cache:
            layer.self_attn.reset()
        hidden = self.model.decoder(prompt, self._cache)
        return self.model.logits(hidden[:, mx.array(positions)])

    def _generate(
        self, logits: mx.array, n_tokens: int, options: DecodingOptions
    ) -> tuple[State, mx.array, mx.array]:
        """Chooses tokens until all rows have ended, or there are `n_tokens`.

        Args:
            logits: of the prompt's last position (B, V).
            n_tokens: most tokens.
            options: temperature, seed and rules.

        Returns:
            The last state, tokens (B, n), and cumulative log-probabilities (B, n).
        """
        # Rules are kept: making them builds masks over the vocabulary, and compiles on a GPU.
        if options not in self._rules:
            self._rules[options] = LogitRules(self.vocabulary, options)
        rules = self._rules[options]
        guard = None
        if options.guard_loops:
            guard = LoopGuard(self.vocabulary.eot, self.vocabulary.timestamp_begin)
        keys = mx.random.split(mx.random.key(options.seed), n_tokens)
        state = rules.first(logits, keys[0])
        tokens, sums = [state.token], [state.sum_logprob]
        for step in range(1, n_tokens):
            # Starts the device on the last step; the next one is built meanwhile.
            mx.async_eval(state)
            logits = self._step(state.token)
            if guard is not None:
                logits = guard(logits, tokens)
            previous, state = state, rules.next(logits, state, keys[step])
            tokens.append(state.token)
            sums.append(state.sum_logprob)
            if step % CHECK_EVERY == 0:
                mx.async_eval(state)
                # Waits for the step before the one just submitted, so the device is never idle.
                _require_finite(previous.checksum.item())
                if previous.all_finished.item():
                    break
        return state, mx.concatenate(tokens, axis=1), mx.concatenate(sums, axis=1)

    def _step(self, token: mx.array) -> mx.array:
        """Logits (B, V) after feeding the last token (B, 1)."""
        return self.model.logits(self.model.decoder(token, self._cache).squeeze(1))


def _require_finite(checksum: object) -> None:
    """Raises FloatingPointError unless the sum of all logits so far is a finite number."""
    if not isinstance(checksum, float) or not math.isfinite(checksum):
        raise FloatingPointError(
            "the model produced NaN or infinite logits: its weights are damaged, or they "
            'overflow in their dtype (try load_model(..., dtype="float32"))'
        )


def _results(
    tokens: npt.NDArray[np.int32],
    sum_logprobs: npt.NDArray[np.float32],
    no_speech_probs: npt.NDArray[np.float32],
    eot: int,
    temperature: float,
) -> list[DecodingResult]:
    """A result for each row of the tokens (B, n), which continue past a row's end of text."""
    results = []
    for row, sum_logprob, no_speech in zip(tokens, sum_logprobs, no_speech_probs, strict=True):
        ends = np.flatnonzero(row == eot)
        kept = row[: ends[0]] if ends.size else row
        average = float(sum_logprob) / (len(kept) + 1)  # OpenAI counts the end of text, too
        results.append(DecodingResult(kept.tolist(), average, float(no_speech), temperature))
    return results
