"""Decodes the utterance so far: the words behind those that are confirmed already.

The encoder runs over the utterance so far, in the model's own audio context: short where that is
padded or dynamic, 30 s where it is full.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from baldwhisper_mlx.audio.streaming_features import StreamingLogMel
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import HOP_LENGTH, SAMPLE_RATE
from baldwhisper_mlx.decoding.alignment import Alignment
from baldwhisper_mlx.decoding.options import DecodingOptions
from baldwhisper_mlx.transcription.live_policies import DraftWord
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.prompts import PreviousText
from baldwhisper_mlx.transcription.word_splitting import TimedToken, split_words

_TOKENS_PER_SECOND = 10
"""Nobody speaks faster; a draft that does is a loop."""
_SPARE_TOKENS = 10
_ENOUGH_SECONDS, _SURE = 2.0, 0.8
"""Of an utterance, and probability: from both on its language is not detected again."""


class DraftDecoder:
    """Makes drafts with one model.

    Args:
        loaded: from `load_model`.
        options: of them the languages, the task, the initial prompt and the hotwords.

    Raises:
        ValueError: the model does not know a language.
    """

    def __init__(self, loaded: LoadedModel, options: TranscribeOptions) -> None:
        self._loaded = loaded
        self._given = PreviousText(loaded, dataclasses.replace(options, without_timestamps=True))
        tokenizer = loaded.tokenizer
        self._candidates = tokenizer.candidates(options.languages)
        if options.language is not None:
            self._candidates = (tokenizer.to_language(options.language),)

    def encode(self, mel: StreamingLogMel) -> None:
        """Encodes the utterance so far; the model must be in use by this thread until `words`."""
        self._loaded.decoder.encode(mel.window()[None], [mel.n_frames])

    def detect_language(self, seconds: float) -> tuple[str, bool]:
        """The likeliest language of what is encoded, and whether more speech would not change it.

        Args:
            seconds: of the utterance so far.
        """
        if len(self._candidates) == 1:
            return self._candidates[0], True
        ids = [self._loaded.tokenizer.languages[code] for code in self._candidates]
        (probabilities,) = self._loaded.decoder.detect_language(ids)
        best = int(probabilities.argmax())
        is_sure = seconds >= _ENOUGH_SECONDS and probabilities[best] >= _SURE
        return self._candidates[best], bool(is_sure)

    def words(
        self,
        mel: StreamingLogMel,
        confirmed: Sequence[int],
        confirmed_until: float,
        language: str,
    ) -> list[DraftWord]:
        """Decodes the utterance so far, which was encoded.

        Args:
            mel: features of the utterance so far.
            confirmed: tokens with which the output begins.
            confirmed_until: seconds of the utterance at which the last of them ends.
            language: code.

        Returns:
            The words behind the confirmed ones.

        Raises:
            FloatingPointError: NaN or infinite logits.
        """
        prompt = self._given.prompt(language)
        seconds = mel.n_frames * HOP_LENGTH / SAMPLE_RATE - confirmed_until
        n_text_ctx = self._loaded.config.n_text_ctx
        room = min(n_text_ctx // 2, n_text_ctx + 1 - len(prompt)) - len(confirmed)
        if room < 1:
            return []
        options = DecodingOptions(
            timestamps=False,
            max_tokens=min(room, round(_TOKENS_PER_SECOND * max(seconds, 0)) + _SPARE_TOKENS),
            guard_loops=True,
            prefix=tuple(confirmed),
        )
        (result,) = self._loaded.decoder.decode(prompt, options, align_frames=[mel.n_frames])
        assert result.alignment is not None
        return self._split(result.tokens, result.alignment, len(confirmed), language)

    def _split(
        self, tokens: Sequence[int], times: Alignment, first: int, language: str
    ) -> list[DraftWord]:
        """The words of the tokens from the one at `first` on, without those that are no text.

        A model may write a language token where the language changes.
        """
        eot = self._loaded.tokenizer.eot
        places = [i for i in range(first, len(tokens)) if tokens[i] < eot]
        timed = [
            TimedToken(tokens[i], times.starts[i], times.ends[i], times.probabilities[i])
            for i in places
        ]
        words, position = [], 0
        for text, part in split_words(timed, self._loaded.tokenizer.decode, language):
            attended = max(times.attended[i] for i in places[position : position + len(part)])
            position += len(part)
            ids = tuple(token.token for token in part)
            words.append(DraftWord(text, ids, part[0].start, part[-1].end, attended))
        return words
