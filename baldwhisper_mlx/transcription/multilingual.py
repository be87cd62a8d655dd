"""Asks the model which language each part of a window is in, and ends the window where it changes.

Whisper's decoder writes one language per window; what follows in another one is translated or lost.
The encoder states of a window tell the language of its parts badly, because every state depends on
the whole window: they only show that a part is in the present language. All other parts are
encoded by themselves, a few seconds each, which costs little in the padded audio context.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.chunking import Span
from baldwhisper_mlx.audio.features import LogMelSpectrogram
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import FRAMES_PER_POSITION, HOP_LENGTH, SAMPLE_RATE
from baldwhisper_mlx.decoding.decoder import Decoder
from baldwhisper_mlx.model.cache import EncodedAudio
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.transcription import language_changes
from baldwhisper_mlx.transcription.language import SpokenLanguage
from baldwhisper_mlx.transcription.language_changes import (
    Stretch,
    first_stretch,
    likeliest_sequence,
)
from baldwhisper_mlx.transcription.prompts import PreviousText
from baldwhisper_mlx.transcription.second_opinion import WindowSpeech

SURE = 0.5
"""Probability of the present language, by the states of the whole window, from which on a part is
not encoded by itself."""
TOGETHER = 3
"""Parts that are encoded together."""
LOST = 3.0
"""Seconds of speech behind the last segment from which on the next window begins there."""
CONFIRMED = 2
"""Parts in another language after which the rest of the window is not asked."""
_POSITION = FRAMES_PER_POSITION * HOP_LENGTH


class Run(Protocol):
    """What is asked of a recording: `sequential.Transcription`."""

    loaded: LoadedModel
    samples: Samples
    mel: LogMelSpectrogram
    language: SpokenLanguage
    previous: PreviousText
    seek: int
    window_end: int | None

    @property
    def window_frames(self) -> int: ...


def end_at_changes(runs: Sequence[Run]) -> bool:
    """Chooses the languages of encoded windows, and ends each where its language changes.

    Text in another language than the window's is no context for it.

    Args:
        runs: recordings whose next windows the decoder has encoded, and still has at the end.

    Returns:
        Whether any window is shorter now, and has to be encoded again.
    """
    for run, stretch in zip(runs, stretches_of(runs), strict=True):
        if stretch is None:  # nobody speaks
            continue
        if run.language.code not in (None, stretch.language):
            run.previous.forget()
        run.language.code = stretch.language
        if stretch.n_samples is not None:
            run.window_end = run.seek + stretch.n_samples // HOP_LENGTH
    return any(run.window_end is not None for run in runs)


def before_lost_speech(
    segments: Sequence[Segment], speech: WindowSpeech, seek: int, advance: int
) -> int:
    """Mel frames from a window to the next one, which begins where an output ends too early.

    In a language that was taken for another one an output often ends where that language does.

    Args:
        segments: of the window.
        speech: where somebody speaks in it.
        seek: mel frame (10 ms) at which it starts.
        advance: frames to the next window by the timestamps.
    """
    if not segments:
        return advance
    written, end = segments[-1].end, (seek + advance) * HOP_LENGTH / SAMPLE_RATE
    if end - written < LOST:
        return advance
    lost = sum(min(end, b) - max(written, a) for a, b in speech.spans if b > written and a < end)
    frames = round(written * SAMPLE_RATE / HOP_LENGTH) - seek
    return frames if lost >= LOST and frames > 0 else advance


def stretches_of(runs: Sequence[Run]) -> list[Stretch | None]:
    """The stretch of each encoded window that is transcribed next; None where nobody speaks."""
    decoder = runs[0].loaded.decoder
    audio = decoder.encoded()
    result = []
    for clip, run in enumerate(runs):
        spans = language_changes.parts_of(_samples(run))
        result.append(_stretch_of(run, clip, spans) if spans else None)
        decoder.restore(audio)
    return result


def _stretch_of(run: Run, clip: int, spans: Sequence[Span]) -> Stretch:
    """The beginning of a window in one language.

    Args:
        run: a recording.
        clip: its place in the batch that the decoder has encoded.
        spans: the parts of its window.
    """
    languages, tokenizer = run.language.candidates, run.loaded.tokenizer
    # Probabilities are those among all languages, or a part that is like none of the candidates
    # would speak for one of them.
    tokens = [tokenizer.languages[code] for code in tokenizer.known_languages]
    columns = [tokenizer.known_languages.index(code) for code in languages]
    present = None if run.language.code is None else languages.index(run.language.code)
    positions = [(clip, start // _POSITION, _end(start, end)) for start, end in spans]
    table = languages_of_parts(run.loaded.decoder, tokens, positions)[:, columns]
    seconds = [(end - start) / SAMPLE_RATE for start, end in spans]
    sure = np.zeros(len(spans)) if present is None else table[:, present]
    unsure = np.flatnonzero(sure < SURE)
    for first in range(0, len(unsure), TOGETHER):
        rows = unsure[first : first + TOGETHER]
        table[rows] = _alone(run, [spans[row] for row in rows], tokens)[:, columns]
        done = int(rows[-1]) + 1
        sequence = likeliest_sequence(table[:done], seconds[:done], present)
        if sequence.count(sequence[0]) <= done - CONFIRMED:
            return first_stretch(spans[:done], sequence, languages)
    return first_stretch(spans, likeliest_sequence(table, seconds, present), languages)


def languages_of_parts(
    decoder: Decoder, tokens: Sequence[int], parts: Sequence[tuple[int, int, int]]
) -> npt.NDArray[np.float32]:
    """Probabilities of languages in parts of the encoded clips, without encoding them again.

    The decoder attends to the encoder positions of one part at a time. The clips stay encoded.

    Args:
        decoder: has encoded the clips.
        tokens: ids of the languages.
        parts: clip, first position (20 ms), and the one after the last; none is empty.

    Returns:
        (number of parts, number of languages).
    """
    audio, table = decoder.encoded(), np.zeros((len(parts), len(tokens)), np.float32)
    for row, (clip, first, last) in zip(table, parts, strict=True):
        layers = audio.clip(clip).layers
        part = tuple((keys[:, :, first:last], values[:, :, first:last]) for keys, values in layers)
        decoder.restore(EncodedAudio(part, None))
        row[:] = decoder.detect_language(tokens)[0]
    decoder.restore(audio)
    return table


def _samples(run: Run) -> Samples:
    return run.samples[run.seek * HOP_LENGTH : (run.seek + run.window_frames) * HOP_LENGTH]


def _end(start: int, end: int) -> int:
    return max(start // _POSITION + 1, end // _POSITION)


def _alone(run: Run, spans: Sequence[Span], tokens: Sequence[int]) -> npt.NDArray[np.float32]:
    """Probabilities of languages in parts of a window that are encoded by themselves."""
    frames = [max(1, (end - start) // HOP_LENGTH) for start, end in spans]
    features = [
        run.mel.window(run.seek + start // HOP_LENGTH, n)
        for (start, _), n in zip(spans, frames, strict=True)
    ]
    run.loaded.decoder.encode(mx.stack(features), frames)
    return run.loaded.decoder.detect_language(tokens)
