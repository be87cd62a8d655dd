"""One recording of any length: 30 s windows, one after the other, by OpenAI's algorithm.

Each window is encoded once; language detection and the repeated attempts at higher
temperatures reuse it. The next window starts at the last timestamp, with the text so far as
its prompt (Radford et al., arXiv 2212.04356, section 4.5).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.audio.buffer import check_samples
from baldwhisper_mlx.audio.features import N_FRAMES, LogMelSpectrogram
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.decoding.decoder import DecodingResult
from baldwhisper_mlx.decoding.logit_rules import DecodingOptions
from baldwhisper_mlx.decoding.repetition import is_loop
from baldwhisper_mlx.transcription.fallback import (
    TEMPERATURES,
    Thresholds,
    attempts,
    compression_ratio,
)
from baldwhisper_mlx.transcription.segments import Segment, Transcript, make_segments, split_window
from baldwhisper_mlx.transcription.words import add_words, advance_by_words, timed_tokens


def prepare(
    samples: npt.NDArray[np.float32],
    loaded: LoadedModel,
    *,
    language: str | None = None,
    task: str = "transcribe",
    temperature: float | Sequence[float] = TEMPERATURES,
    condition_on_previous_text: bool = True,
    without_timestamps: bool = False,
    word_timestamps: bool = False,
    compression_ratio_threshold: float | None = 2.4,
    logprob_threshold: float | None = -1.0,
    no_speech_threshold: float | None = 0.6,
) -> Transcription:
    """A transcription that is ready to run; see `longform.transcribe` for arguments and errors."""
    samples = check_samples(samples)
    return Transcription(
        loaded=loaded,
        duration=len(samples) / SAMPLE_RATE,
        mel=LogMelSpectrogram(samples, loaded.config.n_mels),
        attempts=attempts(temperature, timestamps=not without_timestamps),
        task=task,
        thresholds=Thresholds(compression_ratio_threshold, logprob_threshold, no_speech_threshold),
        condition=condition_on_previous_text,
        words=word_timestamps,
        language=None if language is None else loaded.tokenizer.to_language(language),
    )


@dataclass
class Transcription:
    """One recording on its way through the windows; from `prepare`.

    Called, it goes all the way. Or it is told to `begin` and to `advance` by a window at a time, as
    long as `size` is not 0, which lets several share a batch.
    """

    loaded: LoadedModel
    duration: float
    mel: LogMelSpectrogram
    attempts: list[DecodingOptions]
    task: str
    thresholds: Thresholds
    condition: bool
    words: bool
    language: str | None
    seek: int = 0
    """Frame at which the next window starts."""
    last_speech: float = 0.0
    """Seconds at which the last word ended, if words are timed."""
    _segments: list[Segment] = field(default_factory=list)
    _history: list[int] = field(default_factory=list)
    """Tokens of the text so far, after those of the text before the recording."""
    _n_before: int = 0
    _prompt_from: int = 0

    def __call__(
        self, prompt: str | None, on_progress: Callable[[float, float], None]
    ) -> Transcript:
        """Runs through all windows; `prompt` is the text before the recording, if any."""
        self.begin(prompt)
        while self.size:
            self.advance()
            on_progress(self.done, self.duration)
        return self.transcript()

    def begin(self, prompt: str | None) -> None:
        """Starts with the text before the recording, if any."""
        self._history = self.loaded.tokenizer.encode(" " + prompt.strip()) if prompt else []
        self._n_before = len(self._history)
        self._skip_zeros()

    @property
    def size(self) -> int:
        """Frames of the next window; 0 at the end."""
        return max(0, min(N_FRAMES, self.mel.n_frames - self.seek))

    @property
    def done(self) -> float:
        """Seconds that have been heard."""
        frames = self.mel.n_frames
        return min(self.seek, frames) / frames * self.duration if frames else self.duration

    def advance(self, shared: DecodingResult | None = None) -> None:
        """Transcribes the next window.

        Args:
            shared: of its first attempt, if that was decoded with other recordings'.
        """
        if shared is None:
            encode_windows([self])
        size = self.size
        result, ratio = self._decode(shared)
        if self.thresholds.is_silence(result):
            self.seek += size
        else:
            found, advance = self._make_segments(result, ratio)
            self._segments += found
            self._history += [token for segment in found for token in segment.tokens]
            self.seek += advance
            if not self.condition or result.temperature > 0.5:
                self._prompt_from = len(self._history)
        self._skip_zeros()

    def _skip_zeros(self) -> None:
        """Goes past windows without any sound; Whisper would write a word or two there."""
        while self.size and self.mel.is_zero(self.seek):
            self.seek += self.size

    def transcript(self) -> Transcript:
        """What has been transcribed so far."""
        text = self.loaded.tokenizer.decode(self._history[self._n_before :])
        return Transcript(text, tuple(self._segments), self.language or "en", self.duration)

    def prompt(self) -> list[int]:
        """What the next window is told: the end of the text before it, its language, the task."""
        tokenizer, most = self.loaded.tokenizer, self.loaded.config.n_text_ctx // 2 - 1
        history = self._history[self._prompt_from :]
        previous = [tokenizer.sot_prev, *history[-most:]] if history else []
        return previous + tokenizer.sot_sequence(
            self.language or "en", self.task, timestamps=self.attempts[0].timestamps
        )

    def _decode(self, shared: DecodingResult | None) -> tuple[DecodingResult, float]:
        """Attempts at rising temperature until one passes; its output and compression ratio."""
        tokenizer, decoder = self.loaded.tokenizer, self.loaded.decoder
        frames = [self.size] if self.words else None
        for options in self.attempts:
            result = shared or decoder.decode(self.prompt(), options, align_frames=frames)[0]
            # A stray special token is no text, but as part of a loop it has to count.
            ratio = compression_ratio(tokenizer.decode(result.tokens, special=True).strip())
            told = self._history[self._prompt_from :]
            loop = is_loop(result.tokens, tokenizer.timestamp_begin, before=told)
            last = options is self.attempts[-1]
            if last or not self.thresholds.is_failure(result, ratio, loop=loop):
                break
            if loop:  # what is told no more and comes again has been heard
                self._prompt_from = len(self._history)
            if shared:
                encode_windows([self])  # the decoder holds what the batch left there
            shared = None
        return result, ratio

    def _make_segments(
        self, result: DecodingResult, ratio: float
    ) -> tuple[tuple[Segment, ...], int]:
        """The window's segments, and how far it is to the next window."""
        tokenizer, seek = self.loaded.tokenizer, self.seek
        window = split_window(
            result.tokens,
            timestamp_begin=tokenizer.timestamp_begin,
            seek=seek,
            segment_size=self.size,
        )
        segments = make_segments(
            window.pieces,
            tokenizer.decode,
            first_id=len(self._segments),
            seek=seek,
            temperature=result.temperature,
            avg_logprob=result.avg_logprob,
            compression_ratio=ratio,
            no_speech_prob=result.no_speech_prob,
            keep_empty=self.words,
        )
        if not self.words:
            return segments, window.advance
        assert result.alignment is not None
        timed = timed_tokens(
            window.pieces, result.tokens, result.alignment, eot=tokenizer.eot, seek=seek
        )
        segments, self.last_speech = add_words(
            segments,
            timed,
            tokenizer.decode,
            language=self.language or "en",
            last_speech=self.last_speech,
        )
        return segments, advance_by_words(window, segments, seek)


def encode_windows(runs: Sequence[Transcription]) -> None:
    """Encodes the next windows of recordings, and finds languages that are not known yet.

    Args:
        runs: of one model and with the same options.
    """
    loaded = runs[0].loaded
    windows = mx.stack([run.mel.window(run.seek) for run in runs])
    loaded.decoder.encode(windows, [run.size for run in runs])
    for run in runs:
        run.mel.prefetch(run.seek)
    if runs[0].language is None and loaded.tokenizer.is_multilingual:
        for run, language in zip(runs, detect_languages(loaded), strict=True):
            run.language = language


def detect_languages(loaded: LoadedModel) -> list[str]:
    """The most probable language of each encoded clip."""
    languages = loaded.tokenizer.languages
    probabilities = loaded.decoder.detect_language(list(languages.values()))
    return [list(languages)[index] for index in probabilities.argmax(axis=1)]
