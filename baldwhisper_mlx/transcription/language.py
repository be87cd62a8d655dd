"""Which language is spoken: asked of the model where there is speech, and never of silence.

Over a ring tone, noise or silence Whisper's language token says nothing, and the whole recording
would be decoded in the language that it happens to name.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.features import LogMelSpectrogram
from baldwhisper_mlx.checkpoint.load import LoadedModel
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
