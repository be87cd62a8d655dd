"""Which language is spoken: asked of the model where there is speech, and never of silence.

Over a ring tone, noise or silence Whisper's language token says nothing, and the whole recording
would be decoded in the language that it happens to name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.features import N_FRAMES, LogMelSpectrogram
from baldwhisper_mlx.audio.source import no_check
from baldwhisper_mlx.audio.vad import first_speech
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import HOP_LENGTH
from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.text.tokenizer import ANOTHER_MODEL, Tokenizer, named
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.ranges import Parts

IMPROBABLE = -1.0
"""Mean log-probability (nats) of a recording's tokens below which its language is doubted."""
FEWEST_TOKENS = 20
"""Text tokens of a recording from which on that is judged: accented speech is as improbable in
single sentences."""
NEAR = 500
"""Mel frames (5 s): a window in which speech begins this early tells its language."""


class LanguageWarning(UserWarning):
    """The audio does not look like a language that the model knows."""


class SpokenLanguage:
    """The language of a recording, detected where somebody first speaks unless it is known.

    Args:
        samples: of the recording, mono at 16 kHz (n,).
        mel: its features.
        loaded: from `load_model`.
        options: of them `language`, or the `languages` among which it is detected.
        parts: of the recording that are transcribed.

    Raises:
        ValueError: the model does not know a language.
    """

    def __init__(
        self,
        samples: Samples,
        mel: LogMelSpectrogram,
        loaded: LoadedModel,
        options: TranscribeOptions,
        parts: Parts,
    ) -> None:
        self._samples, self._mel, self._loaded, self._parts = samples, mel, loaded, parts
        tokenizer = loaded.tokenizer
        self.candidates = tokenizer.candidates(options.languages)
        """Codes among which the language is detected."""
        if options.language is not None:
            self.candidates = (tokenizer.to_language(options.language),)
        self._detected_at = 0
        """Mel frame of the window in which the language was detected."""
        self._first_speech: int | None = None
        """Mel frame of the first speech after some window; None until it was looked for."""
        self.code = self._known()
        """Code; None until it is detected."""

    def choose(self, likeliest: str, seek: int) -> None:
        """Chooses the language: of a window, or of the first one in which somebody speaks.

        Args:
            likeliest: that of the window.
            seek: mel frame (10 ms) at which the window starts.
        """
        self.code, self._detected_at = likeliest, seek
        start = self.find_speech(seek)
        if seek + NEAR <= start < self._mel.n_frames:
            n_frames = min(N_FRAMES, self._parts.end_of(start) - start)
            self._loaded.decoder.encode(self._mel.window(start, n_frames)[None], [n_frames])
            (self.code,) = likeliest_languages(self._loaded, self.candidates)
            self._detected_at = start

    def find_speech(self, seek: int, check: Callable[[], None] = no_check) -> int:
        """Mel frame from which on somebody speaks, at `seek` or later; it is remembered.

        Args:
            seek: mel frame (10 ms).
            check: called now and then; what it raises ends the search.
        """
        if self._first_speech is None or self._first_speech < seek:
            self._first_speech = self._speech_from(seek, check)
        return self._first_speech

    def _speech_from(self, seek: int, check: Callable[[], None]) -> int:
        """Mel frame from which on somebody speaks, in the parts that are transcribed.

        That behind the recording if nobody speaks at all: the model may still know better than the
        detector.
        """
        for start, end in self._parts.frames:
            begin = max(seek, start) * HOP_LENGTH
            if span := first_speech(self._samples[: end * HOP_LENGTH], begin, check):
                return span[0] // HOP_LENGTH
        return self._mel.n_frames

    def forget_silence(self, seek: int) -> None:
        """Detects the language again if all before `seek` (mel frame, 10 ms) was silent."""
        if self._detected_at < seek:
            self.code = self._known()

    def _known(self) -> str | None:
        """The language if it does not have to be detected."""
        return self.candidates[0] if len(self.candidates) == 1 else None


def doubts(attempts: Sequence[DecodingResult], tokenizer: Tokenizer) -> str | None:
    """Why a recording may be in a language that the model does not know; None if it looks known.

    Args:
        attempts: the first ones at all windows of the recording.
        tokenizer: of the model; nothing is doubted if it knows all languages it has tokens for.
    """
    counts = [sum(token < tokenizer.eot for token in attempt.tokens) for attempt in attempts]
    total = sum(counts)
    if not tokenizer.is_limited or total < FEWEST_TOKENS:
        return None
    sums = [attempt.avg_logprob * n for attempt, n in zip(attempts, counts, strict=True)]
    mean = sum(sums) / total
    if not mean < IMPROBABLE:
        return None
    known = ", ".join(map(named, tokenizer.known_languages))
    return (
        f"the text is improbable (mean log-probability {mean:.2f}), perhaps because the audio is "
        f"in another language: this model knows only {known}. For other languages, {ANOTHER_MODEL}"
    )


def only_language(tokenizer: Tokenizer, languages: Sequence[str] | None = None) -> str | None:
    """The only language there is to choose from; None if there is a choice.

    Args:
        tokenizer: of the model.
        languages: codes or names to choose from; None for all that the model knows.

    Raises:
        ValueError: the model does not know one of them.
    """
    candidates = tokenizer.candidates(languages)
    return candidates[0] if len(candidates) == 1 else None


def likeliest_languages(loaded: LoadedModel, candidates: Sequence[str] | None = None) -> list[str]:
    """The most probable language of each encoded window.

    Args:
        loaded: its decoder has encoded the windows.
        candidates: codes to choose from; None for all that the model knows.
    """
    tokenizer = loaded.tokenizer
    codes = tokenizer.known_languages if candidates is None else candidates
    probabilities = loaded.decoder.detect_language([tokenizer.languages[code] for code in codes])
    return [codes[index] for index in probabilities.argmax(axis=1)]


def language_probabilities(
    parts: Sequence[Samples], loaded: LoadedModel, languages: Sequence[str] | None = None
) -> dict[str, float]:
    """The probability of each language, averaged over parts of a recording.

    Args:
        parts: at least one; mono at 16 kHz (n,), of which the first 30 s are used.
        loaded: from `load_model`.
        languages: codes or names to choose from; None for all that the model knows.

    Returns:
        Language code to probability, the most probable first.
    """
    tokenizer = loaded.tokenizer
    known = tokenizer.candidates(languages)
    if len(known) == 1:
        return {known[0]: 1.0}
    mels = [LogMelSpectrogram(part, loaded.config.n_mels) for part in parts]
    windows = mx.stack([mel.window(0) for mel in mels])
    frames = len(windows[0])
    loaded.decoder.encode(windows, [min(frames, mel.n_frames) for mel in mels])
    means = loaded.decoder.detect_language([tokenizer.languages[code] for code in known]).mean(0)
    return {known[i]: float(means[i]) for i in np.argsort(-means, kind="stable")}
