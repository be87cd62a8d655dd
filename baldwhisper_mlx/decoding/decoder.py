"""From encoded audio to token ids: greedy decoding, sampling or beam search with cached attention.

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

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.decoding.alignment import align, attention_of, heads_to_align
from baldwhisper_mlx.decoding.beam import BeamSearch, Record
from baldwhisper_mlx.decoding.logit_rules import DecodingOptions, LogitRules, State, Vocabulary
from baldwhisper_mlx.decoding.loop_guard import LoopGuard, Processor
from baldwhisper_mlx.decoding.result import (
    DecodingResult,
    Hypothesis,
    most_probable,
    results_of,
    sampled,
)
from baldwhisper_mlx.decoding.token_tree import TokenTree, cached_positions
from baldwhisper_mlx.model.cache import EncodedAudio
from baldwhisper_mlx.model.whisper import Whisper
from baldwhisper_mlx.ops.buffers import trim

CHECK_EVERY = 4
"""Steps between two checks of whether every row has ended; each makes the host wait once."""


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
        self._searches: dict[DecodingOptions, BeamSearch] = {}

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
        wanted = options.forced_length or options.max_tokens or self.model.config.n_text_ctx // 2
        n_tokens = min(room, wanted)
        # Two positions matter: the one that predicts <|nospeech|>, and the one that predicts the
        # first token.
        logits = self._prefill(
            mx.array(prompts), [sot, prompts.shape[1] - 1], options.hypotheses * (n_tokens - 1)
        )
        no_speech = mx.softmax(logits[:, 0], axis=-1)[:, self.vocabulary.no_speech]
        run = self._search if options.beam_size else self._generate
        chosen = run(logits[:, 1], n_tokens, options)
        results = results_of(chosen, np.array(no_speech), options.temperature)
        if align_frames is None:
            return results
        return self._aligned(
            results, chosen, options.hypotheses, prompts.shape[1], sot, align_frames
        )

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
        chosen: Sequence[Hypothesis],
        width: int,
        n_prompt: int,
        sot: int,
        n_frames: Sequence[int],
    ) -> list[DecodingResult]:
        """The results with the times of their tokens.

        Args:
            results: of the decoding whose queries are in the cache.
            chosen: the hypotheses that they come from.
            width: how many of them each clip had.
            n_prompt: tokens of the prompt.
            sot: position of <|startoftranscript|> in the prompt.
            n_frames: mel frames of real audio in each clip.
        """
        positions = cached_positions(
            n_prompt, width, [each.path for each in chosen], self._cache[0].self_attn.offset
        )
        # What precedes <|startoftranscript|> is previous text, which was not spoken here.
        positions = [places[sot:] for places in positions]
        scores = attention_of(self._cache, self._aligned_heads, positions)
        for cache in self._cache:
            cache.queries = None
        return [
            dataclasses.replace(
                result,
                alignment=align(
                    rows,
                    result.tokens,
                    hypothesis.probabilities(),
                    first=n_prompt - 1 - sot,
                    text_end=self.vocabulary.eot,
                    n_frames=frames,
                ),
            )
            for result, hypothesis, rows, frames in zip(
                results, chosen, scores, n_frames, strict=True
            )
        ]

    def _prefill(self, prompt: mx.array, positions: list[int], n_later: int = 0) -> mx.array:
        """Runs the prompt (B, n) through empty caches with room for `n_later` tokens after it.

        Returns:
            Logits (B, len(positions), V).
        """
        for layer in self._cache:
            layer.self_attn.reset(prompt.shape[1] + n_later)
        hidden = self.model.decoder(prompt, self._cache)
        return self.model.logits(hidden[:, mx.array(positions)])

    def _rules_for(self, options: DecodingOptions) -> LogitRules:
        # Rules are kept: making them builds masks over the vocabulary, and compiles on a GPU.
        if options not in self._rules:
            self._rules[options] = LogitRules(self.vocabulary, options)
        return self._rules[options]

    def _processors(self, options: DecodingOptions) -> list[Processor]:
        """What changes the logits before the rules see them."""
        if not options.guard_loops:
            return []
        return [LoopGuard(self.vocabulary.eot, self.vocabulary.timestamp_begin)]

    def _generate(
        self, logits: mx.array, n_tokens: int, options: DecodingOptions
    ) -> list[Hypothesis]:
        """Chooses or samples tokens until all rows have ended, or there are `n_tokens`.

        Args:
            logits: of the prompt's last position (B, V).
            n_tokens: most tokens.
            options: temperature, seed and rules.

        Returns:
            The most probable hypothesis of each clip.
        """
        batch, width = len(logits), options.hypotheses
        step = self._step
        if width > 1:
            logits = mx.repeat(logits, width, axis=0)
            step = TokenTree(self.model, self._cache, batch, width).feed
        rules, processors = self._rules_for(options), self._processors(options)
        keys = mx.random.split(mx.random.key(options.seed), n_tokens)
        state = rules.first(logits, keys[0])
        tokens, sums = [state.token], [state.sum_logprob]
        for number in range(1, n_tokens):
            # Starts the device on the last step; the next one is built meanwhile.
            mx.async_eval(state)
            logits = step(state.token)
            for processor in processors:
                logits = processor(logits, tokens)
            previous, state = state, rules.next(logits, state, keys[number])
            tokens.append(state.token)
            sums.append(state.sum_logprob)
            if number % CHECK_EVERY == 0 and _ended(previous, state):
                break
        _require_finite(state.checksum.item())
        rows = [np.array(mx.concatenate(columns, axis=1)) for columns in (tokens, sums)]
        hypotheses = sampled(*rows, self.vocabulary.eot, width)
        return [most_probable(each, options.length_penalty) for each in hypotheses]

    def _search(
        self, logits: mx.array, n_tokens: int, options: DecodingOptions
    ) -> list[Hypothesis]:
        """Beam search; arguments and result as in `_generate`."""
        rules, processors = self._rules_for(options), self._processors(options)
        if options not in self._searches:
            self._searches[options] = BeamSearch(rules)
        search, batch = self._searches[options], len(logits)
        tree = TokenTree(self.model, self._cache, batch, search.width)
        record = Record(search, with_history=bool(processors))
        beams, sources = search.first(logits, rules.start(batch)), None
        record.add(beams)
        for number in range(1, n_tokens):
            mx.async_eval(beams)
            logits = tree.feed(beams.state.token, sources)
            for processor in processors:
                logits = processor(logits, record.history())
            previous, beams = beams, search.next(logits, beams)
            sources = record.add(beams)
            if number % CHECK_EVERY == 0 and _ended(previous.state, beams.state):
                break
        _require_finite(beams.state.checksum.item())
        return record.chosen()

    def _step(self, token: mx.array) -> mx.array:
        """Logits (B, V) after feeding the last token (B, 1)."""
        return self.model.logits(self.model.decoder(token, self._cache).squeeze(1))


def _ended(previous: State, state: State) -> bool:
    """Whether every clip had ended one step before `state`.

    Waits for that step only, and submits the next one before, so the device is never idle.
    """
    mx.async_eval(state)
    _require_finite(previous.checksum.item())
    return bool(previous.all_finished.item())


def _require_finite(checksum: object) -> None:
    """Raises FloatingPointError unless the sum of all logits so far is a finite number."""
    if not isinstance(checksum, float) or not math.isfinite(checksum):
        raise FloatingPointError(
            "the model produced NaN or infinite logits: its weights are damaged, or they "
            'overflow in their dtype (try load_model(..., dtype="float32"))'
        )
