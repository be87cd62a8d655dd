"""Sequential transcription: the windows of one recording in their order, by OpenAI's algorithm.

The last step from audio to text. A window of 30 s of log-mel features (audio/features.py) is
encoded once (model/whisper.py); language detection and all attempts at decoding it
(decoding/decoder.py) use the same encoder states. Its tokens become segments (segments.py); the
next window starts at their last timestamp and is conditioned on the text so far (Radford et al.,
arXiv 2212.04356, section 4.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from baldwhisper_mlx.audio.buffer import Samples, check_samples
from baldwhisper_mlx.audio.features import N_FRAMES, LogMelSpectrogram
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.decoding.decoder import DecodingResult
from baldwhisper_mlx.decoding.repetition import is_loop
from baldwhisper_mlx.model.padding import REST
from baldwhisper_mlx.transcription.fallback import compression_ratio
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.segments import Segment, Transcript, make_segments, split_window
from baldwhisper_mlx.transcription.words import add_words, advance_by_words, timed_tokens


def transcribe_sequentially(
    samples: Samples, loaded: LoadedModel, options: TranscribeOptions
) -> Transcript:
    """Transcribes one recording, window after window.

    Args:
        samples: mono at 16 kHz (n,), full scale at 1.0.
        loaded: from `load_model`.
        options: all but `vad` and `batch_size`.

    Raises:
        ValueError: unusable samples, or a language or task that the model does not know.
        FloatingPointError: the model produced NaN or infinite logits.
    """
    run = Transcription.start(samples, loaded, options)
    while run.window_frames:
        run.transcribe_window()
        options.report(run.seconds_done, run.duration)
    return run.transcript()


@dataclass
class Transcription:
    """One recording, transcribed up to some window; made by `start`.

    The caller asks for one window at a time, which lets several recordings share a batch.
    """

    loaded: LoadedModel
    options: TranscribeOptions
    mel: LogMelSpectrogram
    duration: float
    """Seconds of the recording."""
    language: str | None = None
    """Code; None until it is detected in the first window."""
    seek: int = 0
    """Mel frame (10 ms) at which the next window starts."""
    last_speech: float = 0.0
    """Seconds at which the last word ended, with word timestamps."""
    _segments: list[Segment] = field(default_factory=list)
    _history: list[int] = field(default_factory=list)
    """Tokens of the initial prompt, and of the text so far."""
    _n_initial: int = 0
    """How many of them are the initial prompt's, which is no part of the transcript."""
    _prompt_from: int = 0
    """First token of the history that the next window is conditioned on."""

    @classmethod
    def start(
        cls, samples: Samples, loaded: LoadedModel, options: TranscribeOptions
    ) -> Transcription:
        """A recording before its first window; arguments and errors as `transcribe_sequentially`.

        Nothing is decoded yet.
        """
        samples = check_samples(samples)
        tokenizer, prompt = loaded.tokenizer, options.initial_prompt
        history = tokenizer.encode(" " + prompt.strip()) if prompt else []
        run = cls(
            loaded,
            options,
            mel=LogMelSpectrogram(samples, loaded.config.n_mels),
            duration=len(samples) / SAMPLE_RATE,
            language=None if options.language is None else tokenizer.to_language(options.language),
            _history=history,
            _n_initial=len(history),
        )
        run._skip_zeros()
        return run

    @property
    def window_frames(self) -> int:
        """Mel frames of the next window; 0 when the recording is done."""
        return max(0, min(N_FRAMES, self.mel.n_frames - self.seek))

    @property
    def seconds_done(self) -> float:
        """Seconds of the recording that have been transcribed."""
        frames = self.mel.n_frames
        return min(self.seek, frames) / frames * self.duration if frames else self.duration

    def transcribe_window(self, first_attempt: DecodingResult | None = None) -> None:
        """Transcribes the next window and moves on to the one after it.

        Args:
            first_attempt: its result, if it was decoded in a batch with other recordings.
        """
        if first_attempt is None:
            encode_windows([self])
        n_frames = self.window_frames
        result, ratio = self._decode(first_attempt)
        if self.options.thresholds.is_silence(result):
            self.seek += n_frames
        else:
            segments, advance = self._make_segments(result, ratio)
            self._segments += segments
            self._history += [token for segment in segments for token in segment.tokens]
            self.seek += advance
            if self._is_padded_rest(n_frames, advance):
                self.seek = self.mel.n_frames
            # As in OpenAI's code, text sampled at a high temperature is not used as context.
            if not self.options.condition_on_previous_text or result.temperature > 0.5:
                self._prompt_from = len(self._history)
        self._skip_zeros()

    def _is_padded_rest(self, n_frames: int, advance: int) -> bool:
        """Whether the recording ends shortly behind the last timestamp of a padded window.

        Padded, an output often ends in two timestamps instead of one, and the rest behind them is
        not recognized as silence (docs/short-context.md). It has been decoded once already.
        """
        model, is_last = self.loaded.model, self.seek - advance + n_frames >= self.mel.n_frames
        is_padded = (
            model.padding is not None
            and model.audio_positions(n_frames) < self.loaded.config.n_audio_ctx
        )
        return is_padded and is_last and self.window_frames < REST

    def _skip_zeros(self) -> None:
        """Skips windows of digital silence, for which Whisper would make up a word or two."""
        while self.window_frames and self.mel.is_zero(self.seek):
            self.seek += self.window_frames

    def transcript(self) -> Transcript:
        """What has been transcribed so far."""
        text = self.loaded.tokenizer.decode(self._history[self._n_initial :])
        return Transcript(text, tuple(self._segments), self.language or "en", self.duration)

    def prompt(self) -> list[int]:
        """Tokens before the next window's text: the end of the previous text, language, task."""
        tokenizer, most = self.loaded.tokenizer, self.loaded.config.n_text_ctx // 2 - 1
        history = self._history[self._prompt_from :]
        previous = [tokenizer.sot_prev, *history[-most:]] if history else []
        return previous + tokenizer.sot_sequence(
            self.language or "en",
            self.options.task,
            timestamps=not self.options.without_timestamps,
        )

    def _decode(self, first_attempt: DecodingResult | None) -> tuple[DecodingResult, float]:
        """Attempts at rising temperature until one passes; its output and compression ratio."""
        tokenizer, decoder = self.loaded.tokenizer, self.loaded.decoder
        frames = [self.window_frames] if self.options.word_timestamps else None
        attempts, thresholds = self.options.attempts, self.options.thresholds
        for attempt in attempts:
            result = first_attempt or decoder.decode(self.prompt(), attempt, align_frames=frames)[0]
            # A stray special token is no text, but as part of a loop it has to count.
            ratio = compression_ratio(tokenizer.decode(result.tokens, special=True).strip())
            previous = self._history[self._prompt_from :]
            loop = is_loop(result.tokens, tokenizer.timestamp_begin, before=previous)
            is_last = attempt is attempts[-1]
            if is_last or not thresholds.is_failure(result, ratio, loop=loop):
                break
            if loop:  # without the previous text, a phrase is written again only if it was spoken
                self._prompt_from = len(self._history)
            if first_attempt:
                encode_windows([self])  # the decoder still holds the whole batch
            first_attempt = None
        return result, ratio

    def _make_segments(
        self, result: DecodingResult, ratio: float
    ) -> tuple[tuple[Segment, ...], int]:
        """The window's segments, and the mel frames from it to the next window."""
        tokenizer, seek, words = self.loaded.tokenizer, self.seek, self.options.word_timestamps
        window = split_window(
            result.tokens,
            timestamp_begin=tokenizer.timestamp_begin,
            seek=seek,
            segment_size=self.window_frames,
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
            keep_empty=words,
        )
        if not words:
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
    """Encodes the next windows of recordings, and detects languages that are not known yet.

    Args:
        runs: of one model and with the same options.
    """
    loaded = runs[0].loaded
    windows = mx.stack([run.mel.window(run.seek) for run in runs])
    loaded.decoder.encode(windows, [run.window_frames for run in runs])
    for run in runs:  # the CPU works on the next features while the device decodes
        run.mel.prefetch(run.seek)
    if runs[0].language is None and loaded.tokenizer.is_multilingual:
        for run, language in zip(runs, detect_languages(loaded), strict=True):
            run.language = language


def detect_languages(loaded: LoadedModel) -> list[str]:
    """The most probable language of each encoded window."""
    languages = loaded.tokenizer.languages
    probabilities = loaded.decoder.detect_language(list(languages.values()))
    return [list(languages)[index] for index in probabilities.argmax(axis=1)]
