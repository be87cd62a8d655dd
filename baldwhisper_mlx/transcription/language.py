"""Which language is spoken: asked of the model where there is speech, and never of silence.

Over a ring tone, noise or silence Whisper's language token says nothing, and the whole recording
would be decoded in the language that it happens to name.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.features import N_FRAMES, LogMelSpectrogram
from baldwhisper_mlx.audio.vad import first_speech
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import HOP_LENGTH
from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.text.tokenizer import ANOTHER_MODEL, Tokenizer, named

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
        wanted: code or English name; None to detect it.

    Raises:
        ValueError: the model does not know the language.
    """

    def __init__(
        self, samples: Samples, mel: LogMelSpectrogram, loaded: LoadedModel, wanted: str | None
    ) -> None:
        self._samples, self._mel, self._loaded, self._wanted = samples, mel, loaded, wanted
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
        if self._first_speech is None or self._first_speech < seek:
            span = first_speech(self._samples, seek * HOP_LENGTH)
            # Where nobody speaks at all, the model may still know better than the detector.
            self._first_speech = span[0] // HOP_LENGTH if span else self._mel.n_frames
        start = self._first_speech
        if seek + NEAR <= start < self._mel.n_frames:
            n_frames = min(N_FRAMES, self._mel.n_frames - start)
            self._loaded.decoder.encode(self._mel.window(start)[None], [n_frames])
            (self.code,) = likeliest_languages(self._loaded)
            self._detected_at = start

    def forget_silence(self, seek: int) -> None:
        """Detects the language again if all before `seek` (mel frame, 10 ms) was silent."""
        if self._detected_at < seek:
            self.code = self._known()

    def _known(self) -> str | None:
        """The language if it does not have to be detected."""
        tokenizer = self._loaded.tokenizer
        if self._wanted is None:
            return only_language(tokenizer)
        return tokenizer.to_language(self._wanted)


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


def only_language(tokenizer: Tokenizer) -> str | None:
    """The language of a model that knows one only; None if there is a choice."""
    return tokenizer.known_languages[0] if len(tokenizer.known_languages) == 1 else None


def likeliest_languages(loaded: LoadedModel) -> list[str]:
    """The most probable of the model's languages for each encoded window."""
    tokenizer = loaded.tokenizer
    known = tokenizer.known_languages
    probabilities = loaded.decoder.detect_language([tokenizer.languages[code] for code in known])
    return [known[index] for index in probabilities.argmax(axis=1)]


def language_probabilities(parts: Sequence[Samples], loaded: LoadedModel) -> dict[str, float]:
    """The probability of each language that the model knows, averaged over parts of a recording.

    Args:
        parts: at least one; mono at 16 kHz (n,), of which the first 30 s are used.
        loaded: from `load_model`.

    Returns:
        Language code to probability, the most probable first.
    """
    tokenizer = loaded.tokenizer
    if (code := only_language(tokenizer)) is not None:
        return {code: 1.0}
    mels = [LogMelSpectrogram(part, loaded.config.n_mels) for part in parts]
    windows = mx.stack([mel.window(0) for mel in mels])
    frames = len(windows[0])
    loaded.decoder.encode(windows, [min(frames, mel.n_frames) for mel in mels])
    known = tokenizer.known_languages
    means = loaded.decoder.detect_language([tokenizer.languages[code] for code in known]).mean(0)
    return {known[i]: float(means[i]) for i in np.argsort(-means, kind="stable")}
