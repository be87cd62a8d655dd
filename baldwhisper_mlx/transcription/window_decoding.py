"""Decodes one window of a recording: attempts at rising temperature until one passes.

All attempts use the same encoder states. Text is discarded where nobody speaks and what the model
is given, such as the previous text, makes it probable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import mlx.core as mx

from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.decoding.options import DecodingOptions
from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.transcription.fallback import repetition
from baldwhisper_mlx.transcription.first_attempt import FirstAttempt, in_full_context
from baldwhisper_mlx.transcription.language import SpokenLanguage
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.prompts import PreviousText
from baldwhisper_mlx.transcription.second_opinion import WindowSpeech


@dataclass
class WindowDecoding:
    """How the windows of one recording are decoded."""

    loaded: LoadedModel
    options: TranscribeOptions
    language: SpokenLanguage
    previous: PreviousText
    padded: bool = False
    """Whether constants stood behind the window when it was last encoded (model/padding.py)."""
    first_attempts: list[DecodingResult] = field(default_factory=list)
    """At windows that are no silence."""

    @property
    def attempts(self) -> list[DecodingOptions]:
        """How the next window is decoded, attempt by attempt until one is good enough."""
        prefix = self.previous.prefix
        return [dataclasses.replace(attempt, prefix=prefix) for attempt in self.options.attempts]

    def prompt(self) -> list[int]:
        """Tokens before the text of the next window."""
        return self.previous.prompt(self.language.code)

    def decode(
        self,
        features: Callable[[], mx.array],
        n_frames: int,
        speech: WindowSpeech,
        shared: FirstAttempt | None,
    ) -> tuple[DecodingResult, float] | None:
        """Attempts at rising temperature until one passes: its output and compression ratio.

        Args:
            features: gives those of the window, log-mel (3000, n_mels).
            n_frames: mel frames of audio in it.
            speech: in the window.
            shared: the first attempt, if it was decoded in a batch; otherwise the decoder has
                encoded the window.

        Returns:
            None if the window is silence.
        """
        decoder, tokenizer = self.loaded.decoder, self.loaded.tokenizer
        frames = [n_frames] if self.options.word_timestamps else None
        attempts, thresholds = self.attempts, self.options.thresholds
        first = None
        for attempt in attempts:
            if shared is not None and first is None:
                result = shared.result
                decoder.restore(shared.audio)  # it still holds the whole batch
            else:
                result = decoder.decode(self.prompt(), attempt, align_frames=frames)[0]
            ratio, loop = repetition(result.tokens, tokenizer, before=self.previous.conditioning)
            if first is None:
                first = result
                if self._is_made_up(result, ratio, loop, speech):
                    return None
            failed = thresholds.is_failure(result, ratio, loop=loop)
            # Constants can be the reason of a poor output, and make the model less sure of silence.
            if self.padded and attempts[1:] and (failed or thresholds.may_be_silence(result)):
                again = self._in_full_context(features(), n_frames)
                return self.decode(features, n_frames, speech, again)
            if attempt is attempts[-1] or not failed:
                break
            if loop:  # without the previous text, a phrase is written again only if it was spoken
                self.previous.forget()
        if first is None or thresholds.is_silence(result):
            return None
        self.first_attempts.append(first)
        return result, ratio

    def _in_full_context(self, features: mx.array, n_frames: int) -> FirstAttempt:
        """The first attempt at the window once more, encoded with all of its 30 s."""
        self.padded = False
        frames = [n_frames] if self.options.word_timestamps else None
        return in_full_context(
            self.loaded, features, self.prompt(), self.attempts[0], align_frames=frames
        )

    def _is_made_up(
        self, result: DecodingResult, ratio: float, loop: bool, speech: WindowSpeech
    ) -> bool:
        """Whether nobody speaks in the window, and what the model is given makes text probable."""
        thresholds = self.options.thresholds
        given = bool(self.previous.conditioning or self.previous.prefix)
        # What the model is given also makes it less sure that nobody speaks, so that it loops over
        # music, and writes anything at a high temperature.
        is_doubtful = thresholds.may_be_silence(result) or (
            given
            and thresholds.no_speech is not None
            and thresholds.is_poor(result, ratio, loop=loop)
        )
        if not is_doubtful:
            return False
        spoken, silence = bool(speech.spans), thresholds.no_speech or 0.0
        if result.no_speech_prob > silence and not spoken:  # the model and the detector agree
            return True
        if spoken and not (given and result.no_speech_prob > silence):
            return False
        if given:
            attempt = dataclasses.replace(self.options.attempts[0], temperature=0.0, best_of=None)
            prompt = self.previous.prompt(self.language.code, conditioned=False)
            result = self.loaded.decoder.decode(prompt, attempt)[0]
            ratio, loop = repetition(result.tokens, self.loaded.tokenizer)
        if spoken:  # OpenAI's test of silence, without what makes any text probable
            return thresholds.is_silence(result)
        is_silent = result.no_speech_prob > silence
        return is_silent or thresholds.is_poor(result, ratio, loop=loop)
