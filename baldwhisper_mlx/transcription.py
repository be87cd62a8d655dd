"""One recording of any length: 30 s windows, one after the other, by OpenAI's algorithm.

Each window is encoded once; language detection and the repeated attempts at higher
temperatures reuse it. The next window starts at the last timestamp, with the text so far as
its prompt (Radford et al., arXiv 2212.04356, section 4.5).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.decode import DecodingResult
from baldwhisper_mlx.features import N_FRAMES, LogMelSpectrogram
from baldwhisper_mlx.load import LoadedModel
from baldwhisper_mlx.rules import DecodingOptions
from baldwhisper_mlx.samples import is_finite
from baldwhisper_mlx.segments import Segment, Transcript, make_segments, split_window
from baldwhisper_mlx.words import add_words, advance_by_words, timed_tokens

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class _Thresholds:
    compression_ratio: float | None
    logprob: float | None
    no_speech: float | None

    def is_silence(self, result: DecodingResult) -> bool:
        if self.no_speech is None or result.no_speech_prob <= self.no_speech:
            return False
        return self.logprob is None or result.avg_logprob <= self.logprob

    def is_failure(self, result: DecodingResult, ratio: float) -> bool:
        repetitive = self.compression_ratio is not None and ratio > self.compression_ratio
        unlikely = self.logprob is not None and result.avg_logprob < self.logprob
        silent = self.no_speech is not None and result.no_speech_prob > self.no_speech
        return (repetitive or unlikely) and not (silent and unlikely)


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
        attempts=_attempts(temperature, timestamps=not without_timestamps),
        task=task,
        thresholds=_Thresholds(compression_ratio_threshold, logprob_threshold, no_speech_threshold),
        condition=condition_on_previous_text,
        words=word_timestamps,
        language=None if language is None else loaded.tokenizer.to_language(language),
    )


@dataclass
class Transcription:
    """One recording on its way through the windows; from `prepare`."""

    loaded: LoadedModel
    duration: float
    mel: LogMelSpectrogram
    attempts: list[DecodingOptions]
    task: str
    thresholds: _Thresholds
    condition: bool
    words: bool
    language: str | None
    first: DecodingResult | None = None
    """Of the first attempt at the first window, if it was decoded with other recordings'."""
    last_speech: float = 0.0
    """Seconds at which the last word ended, if words are timed."""

    def __call__(
        self, prompt: str | None, on_progress: Callable[[float, float], None]
    ) -> Transcript:
        """Runs through all windows; `prompt` is the text before the recording, if any."""
        tokenizer = self.loaded.tokenizer
        history = self.encoded(prompt)
        n_initial, prompt_from = len(history), 0
        segments: list[Segment] = []
        seek, n_frames = 0, self.mel.n_frames
        while seek < n_frames:
            size = min(N_FRAMES, n_frames - seek)
            if self.first is None:
                self._encode(seek, size)
            result, ratio = self._decode(history[prompt_from:], seek, size)
            if self.thresholds.is_silence(result):
                seek += size
            else:
                found, advance = self._segments(result, ratio, seek, size, len(segments))
                segments += found
                history += [token for segment in found for token in segment.tokens]
                seek += advance
                if not self.condition or result.temperature > 0.5:
                    prompt_from = len(history)
            on_progress(min(seek, n_frames) / n_frames * self.duration, self.duration)
        text = tokenizer.decode(history[n_initial:])
        return Transcript(text, tuple(segments), self.language or "en", self.duration)

    def _encode(self, seek: int, size: int) -> None:
        decoder = self.loaded.decoder
        decoder.encode(self.mel.window(seek)[None], [size])
        self.mel.prefetch(seek)
        if self.language is None and self.loaded.tokenizer.is_multilingual:
            (self.language,) = detect_languages(self.loaded)

    def encoded(self, prompt: str | None) -> list[int]:
        """Tokens of the text before the recording."""
        return self.loaded.tokenizer.encode(" " + prompt.strip()) if prompt else []

    def prompt(self, history: Sequence[int]) -> list[int]:
        """What a window is told: the end of the text before it, its language, and the task."""
        tokenizer, most = self.loaded.tokenizer, self.loaded.config.n_text_ctx // 2 - 1
        previous = [tokenizer.sot_prev, *history[-most:]] if history else []
        return previous + tokenizer.sot_sequence(
            self.language or "en", self.task, timestamps=self.attempts[0].timestamps
        )

    def _decode(self, history: list[int], seek: int, size: int) -> tuple[DecodingResult, float]:
        """Attempts at rising temperature until one passes; its output and compression ratio."""
        tokenizer = self.loaded.tokenizer
        prompt = self.prompt(history)
        frames = [size] if self.words else None
        for options in self.attempts:
            shared, self.first = self.first, None
            result = shared or self.loaded.decoder.decode(prompt, options, align_frames=frames)[0]
            # A stray special token is no text, but as part of a loop it has to count.
            ratio = compression_ratio(tokenizer.decode(result.tokens, special=True).strip())
            if not self.thresholds.is_failure(result, ratio):
                break
            if shared and options is not self.attempts[-1]:
                self._encode(seek, size)  # the decoder holds what the batch left there
        return result, ratio

    def _segments(
        self, result: DecodingResult, ratio: float, seek: int, size: int, n_before: int
    ) -> tuple[tuple[Segment, ...], int]:
        tokenizer = self.loaded.tokenizer
        window = split_window(
            result.tokens, timestamp_begin=tokenizer.timestamp_begin, seek=seek, segment_size=size
        )
        segments = make_segments(
            window.pieces,
            tokenizer.decode,
            first_id=n_before,
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


def detect_languages(loaded: LoadedModel) -> list[str]:
    """The most probable language of each encoded clip."""
    languages = loaded.tokenizer.languages
    probabilities = loaded.decoder.detect_language(list(languages.values()))
    return [list(languages)[index] for index in probabilities.argmax(axis=1)]


def compression_ratio(text: str) -> float:
    """UTF-8 bytes of the text over bytes of it compressed by zlib; 1 or so for ordinary text."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def _attempts(temperature: float | Sequence[float], *, timestamps: bool) -> list[DecodingOptions]:
    temperatures = [temperature] if isinstance(temperature, (int, float)) else temperature
    if not len(temperatures):
        raise ValueError("temperature: at least one is needed")
    # The first attempt is OpenAI's to the token; the others are there because it failed.
    return [
        DecodingOptions(temperature=float(t), timestamps=timestamps, guard_loops=number > 0)
        for number, t in enumerate(temperatures)
    ]


def check_samples(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The samples as float32.

    Raises:
        ValueError: not a vector of finite floats, or empty.
    """
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(
            f"audio: expected mono samples (n,) of floats, full scale at 1.0, "
            f"not {samples.dtype} {samples.shape}"
        )
    if not samples.size:
        raise ValueError("audio: contains no audio (0 samples)")
    if not is_finite(samples):
        raise ValueError("audio: contains NaN or infinite samples")
    return samples.astype(np.float32, copy=False)
