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

from baldwhisper_mlx.decoding.alignment import (
    Alignment,
    align_all,
    attention_of,
    heads_to_align,
    probabilities_from_sums,
    probabilities_of,
)
from baldwhisper_mlx.decoding.logit_rules import DecodingOptions, LogitRules, State, Vocabulary
from baldwhisper_mlx.decoding.penalties import processors
from baldwhisper_mlx.model.cache import EncodedAudio
from baldwhisper_mlx.model.whisper import Whisper
from baldwhisper_mlx.ops.buffers import trim

CHECK_EVERY = 4
"""Steps between two checks of whether every row has ended; each makes the host wait once."""
MOST_RULES = 32
"""Sets of options whose masks are kept, a megabyte each."""


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
        prompts, room = self._checked_prompts(prompt, options.prefix)
        first = prompts.shape[1] - len(options.prefix) - 1  # it predicts the output's first token
        # The last one: with a previous text the prompt could hold others.
        sot = int(np.flatnonzero(prompts[0] == self.vocabulary.sot)[-1])
        self._keep_queries(align_frames is not None)
        # These positions matter: the one that predicts <|nospeech|>, and those that predict the
        # tokens of the prefix and the one after it.
        logits = self._prefill(mx.array(prompts), [sot, *range(first, prompts.shape[1])])
        no_speech = mx.softmax(logits[:, 0], axis=-1)[:, self.vocabulary.no_speech]
        wanted = options.forced_length or options.max_tokens or self.model.config.n_text_ctx // 2
        state, tokens, sums = self._generate(logits[:, -1], min(room, wanted), options)
        _require_finite(state.checksum.item())
        sum_logprobs = np.array(state.sum_logprob)[:, 0]
        eot = self.vocabulary.eot
        results = _results(np.array(tokens), sum_logprobs, np.array(no_speech), eot, options)
        if align_frames is None:
            return results
        given = probabilities_of(options.prefix, logits[:, 1:-1])
        alignments = align_all(
            # What precedes <|startoftranscript|> is previous text, which was not spoken here.
            attention_of(self._cache, self._aligned_heads)[:, :, sot:],
            [result.tokens for result in results],
            np.concatenate([given, probabilities_from_sums(np.array(sums))], axis=1),
            first=first - sot,
            text_end=eot,
            n_frames=align_frames,
        )
        self._keep_queries(False)
        return [
            dataclasses.replace(result, alignment=alignment)
            for result, alignment in zip(results, alignments, strict=True)
        ]

    def _keep_queries(self, kept: bool) -> None:
        """Sets whether the layers with alignment heads keep their queries, for word times."""
        for layer, cache in enumerate(self._cache):
            cache.queries = [] if kept and layer in self._aligned_layers else None

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
            The last state, tokens with the prefix (B, n), and cumulative log-probabilities of those
            that were chosen (B, m).
        """
        # Rules are kept: making them builds masks over the vocabulary, and compiles on a GPU.
        if options not in self._rules:
            if len(self._rules) >= MOST_RULES:  # a server's requests may all have other options
                self._rules.clear()
            self._rules[options] = LogitRules(self.vocabulary, options)
        rules = self._rules[options]
        changes = processors(options, self.vocabulary)
        tokens = [mx.full((logits.shape[0], 1), token, mx.int32) for token in options.prefix]
        for change in changes:  # a prefix counts as output
            logits = change(logits, tokens)
        keys = mx.random.split(mx.random.key(options.seed), n_tokens)
        state = rules.first(logits, keys[0])
        tokens.append(state.token)
        sums = [state.sum_logprob]
        for step in range(1, n_tokens):
            # Starts the device on the last step; the next one is built meanwhile.
            mx.async_eval(state)
            logits = self._step(state.token)
            for change in changes:
                logits = change(logits, tokens)
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
    options: DecodingOptions,
) -> list[DecodingResult]:
    """A result for each row of the tokens (B, n), which continue past a row's end of text."""
    n_given = len(options.prefix)
    results = []
    for row, sum_logprob, no_speech in zip(tokens, sum_logprobs, no_speech_probs, strict=True):
        ends = np.flatnonzero(row == eot)
        kept = row[: ends[0]] if ends.size else row
        n_chosen = len(kept) - n_given + 1  # OpenAI counts the end of text, too
        average, temperature = float(sum_logprob) / n_chosen, options.temperature
        results.append(DecodingResult(kept.tolist(), average, float(no_speech), temperature))
    return results
