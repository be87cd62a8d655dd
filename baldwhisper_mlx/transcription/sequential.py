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
from baldwhisper_mlx.audio.vad import first_speech
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import HOP_LENGTH, SAMPLE_RATE
from baldwhisper_mlx.decoding.options import DecodingOptions
from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.model.padding import REST
from baldwhisper_mlx.transcription.fallback import repetition
from baldwhisper_mlx.transcription.first_attempt import FirstAttempt, in_full_context
from baldwhisper_mlx.transcription.language import NEAR, likeliest_languages, only_language
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.retiming import within_audio
from baldwhisper_mlx.transcription.second_opinion import WindowSpeech
from baldwhisper_mlx.transcription.segments import Segment, Transcript, numbered
from baldwhisper_mlx.transcription.window_segments import Window, window_segments


def transcribe_sequentially(
    samples: Samples,
    loaded: LoadedModel,
    options: TranscribeOptions,
    first_attempts: list[DecodingResult],
) -> Transcript:
    """Transcribes one recording, window after window.

    Args:
        samples: mono at 16 kHz (n,), full scale at 1.0.
        loaded: from `load_model`.
        options: all but `vad` and `batch_size`.
        first_attempts: gets the first attempt at every window that is no silence.

    Raises:
        ValueError: unusable samples, or a language or task that the model does not know.
        FloatingPointError: the model produced NaN or infinite logits.
    """
    run = Transcription.start(samples, loaded, options)
    while run.window_frames:
        run.transcribe_window()
        options.report(run.seconds_done, run.duration)
    first_attempts += run.first_attempts
    return run.transcript()


@dataclass
class Transcription:
    """One recording, transcribed up to some window; made by `start`.

    The caller asks for one window at a time, which lets several recordings share a batch.
    """

    loaded: LoadedModel
    options: TranscribeOptions
    samples: Samples
    mel: LogMelSpectrogram
    duration: float
    """Seconds of the recording."""
    language: str | None = None
    """Code; None until it is detected in the first window with speech."""
    seek: int = 0
    """Mel frame (10 ms) at which the next window starts."""
    last_speech: float = 0.0
    """Seconds at which the last word ended, with word timestamps."""
    padded: bool = False
    """Whether constants stood behind the window when it was last encoded (model/padding.py)."""
    first_attempts: list[DecodingResult] = field(default_factory=list)
    """At windows that are no silence."""
    _language_seek: int = 0
    """Mel frame of the window in which the language was detected."""
    _first_speech: int | None = None
    """Mel frame of the first speech after some window; None until it was looked for."""
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
        prompt = options.initial_prompt
        history = loaded.tokenizer.encode(" " + prompt.strip()) if prompt else []
        run = cls(
            loaded,
            options,
            samples,
            mel=LogMelSpectrogram(samples, loaded.config.n_mels),
            duration=len(samples) / SAMPLE_RATE,
            _history=history,
            _n_initial=len(history),
        )
        run.language = run._known_language()
        run.seek = run.mel.after_silence(0)
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

    def transcribe_window(self, shared: FirstAttempt | None = None) -> None:
        """Transcribes the next window and moves on to the one after it.

        Args:
            shared: the first attempt, if it was decoded in a batch with other recordings.
        """
        if shared is None:
            encode_windows([self])
        n_frames = self.window_frames
        speech = WindowSpeech(self.samples, self.seek, n_frames)
        decoded = self._decode(shared, speech)
        if decoded is None:
            self.seek += n_frames
        else:
            result, ratio = decoded
            window = Window(
                self.loaded.tokenizer, self.options, self.seek, n_frames, self.language or "en"
            )
            segments, advance, self.last_speech = window_segments(
                result, ratio, window, speech, previous=self._previous, last_speech=self.last_speech
            )
            self._segments += numbered(segments, len(self._segments))
            self._history += [token for segment in segments for token in segment.tokens]
            self.seek += advance
            if self._is_padded_rest(n_frames, advance):
                self.seek = self.mel.n_frames
            # As in OpenAI's code, text sampled at a high temperature is not used as context.
            if not self.options.condition_on_previous_text or result.temperature > 0.5:
                self._prompt_from = len(self._history)
        self.seek = self.mel.after_silence(self.seek)
        if not self._segments and self._language_seek < self.seek:
            self.language = self._known_language()  # what was silent does not tell the language

    def choose_language(self, likeliest: str) -> None:
        """Chooses the language: of the next window, or of the first one in which somebody speaks.

        Args:
            likeliest: that of the next window.
        """
        self.language, self._language_seek = likeliest, self.seek
        if self._first_speech is None or self._first_speech < self.seek:
            span = first_speech(self.samples, self.seek * HOP_LENGTH)
            # Where nobody speaks at all, the model may still know better than the detector.
            self._first_speech = span[0] // HOP_LENGTH if span else self.mel.n_frames
        start = self._first_speech
        if self.seek + NEAR <= start < self.mel.n_frames:
            n_frames = min(N_FRAMES, self.mel.n_frames - start)
            self.loaded.decoder.encode(self.mel.window(start)[None], [n_frames])
            (self.language,) = likeliest_languages(self.loaded)
            self._language_seek = start

    def _known_language(self) -> str | None:
        """The language if it does not have to be detected."""
        named, tokenizer = self.options.language, self.loaded.tokenizer
        return only_language(tokenizer) if named is None else tokenizer.to_language(named)

    def _is_padded_rest(self, n_frames: int, advance: int) -> bool:
        """Whether the recording ends shortly behind the last timestamp of a padded window.

        Padded, an output often ends in two timestamps instead of one, and the rest behind them is
        not recognized as silence (docs/short-context.md). It has been decoded once already.
        """
        is_last = self.seek - advance + n_frames >= self.mel.n_frames
        return self.padded and is_last and self.window_frames < REST

    def transcript(self) -> Transcript:
        """What has been transcribed so far."""
        text = self.loaded.tokenizer.decode(self._history[self._n_initial :])
        spoken = self.options.language is not None or bool(self._segments)
        segments = within_audio(self._segments, self.duration)
        return Transcript(text, segments, self.language if spoken else None, self.duration)

    def prompt(self, *, conditioned: bool = True) -> list[int]:
        """Tokens before the text: the end of the previous text if `conditioned`, language, task."""
        tokenizer, most = self.loaded.tokenizer, self.loaded.config.n_text_ctx // 2 - 1
        history = self._previous if conditioned else []
        previous = [tokenizer.sot_prev, *history[-most:]] if history else []
        return previous + tokenizer.sot_sequence(
            self.language or "en",
            self.options.task,
            timestamps=not self.options.without_timestamps,
        )

    @property
    def _previous(self) -> list[int]:
        """Tokens of the text that the next window is conditioned on."""
        return self._history[self._prompt_from :]

    def _decode(
        self, shared: FirstAttempt | None, speech: WindowSpeech
    ) -> tuple[DecodingResult, float] | None:
        """Attempts at rising temperature until one passes: its output and compression ratio.

        Args:
            shared: the first attempt, if it was decoded in a batch.
            speech: of the window.

        Returns:
            None if the window is silence.
        """
        decoder, tokenizer = self.loaded.decoder, self.loaded.tokenizer
        frames = [self.window_frames] if self.options.word_timestamps else None
        attempts, thresholds = self.options.attempts, self.options.thresholds
        first = None
        for attempt in attempts:
            if shared is not None and first is None:
                result = shared.result
                decoder.restore(shared.audio)  # it still holds the whole batch
            else:
                result = decoder.decode(self.prompt(), attempt, align_frames=frames)[0]
            ratio, loop = repetition(result.tokens, tokenizer, before=self._previous)
            if first is None:
                first = result
                if self._is_made_up(result, ratio, loop, speech):
                    return None
            failed = thresholds.is_failure(result, ratio, loop=loop)
            # Constants can be the reason of a poor output, and make the model less sure of silence.
            if self.padded and attempts[1:] and (failed or thresholds.may_be_silence(result)):
                return self._decode(self._in_full_context(), speech)
            if attempt is attempts[-1] or not failed:
                break
            if loop:  # without the previous text, a phrase is written again only if it was spoken
                self._prompt_from = len(self._history)
        if first is None or thresholds.is_silence(result):
            return None
        self.first_attempts.append(first)
        return result, ratio

    def _in_full_context(self) -> FirstAttempt:
        """The first attempt at the window once more, encoded with all of its 30 s."""
        self.padded = False
        frames = [self.window_frames] if self.options.word_timestamps else None
        window, attempt = self.mel.window(self.seek), self.options.attempts[0]
        return in_full_context(self.loaded, window, self.prompt(), attempt, align_frames=frames)

    def _is_made_up(
        self, result: DecodingResult, ratio: float, loop: bool, speech: WindowSpeech
    ) -> bool:
        """Whether nobody speaks in the window, and the previous text alone makes text probable."""
        thresholds = self.options.thresholds
        if not thresholds.may_be_silence(result) or speech.spans:
            return False
        if result.no_speech_prob > (thresholds.no_speech or 0):  # the model and the detector agree
            return True
        if self._previous:
            attempt = DecodingOptions(timestamps=not self.options.without_timestamps)
            result = self.loaded.decoder.decode(self.prompt(conditioned=False), attempt)[0]
            ratio, loop = repetition(result.tokens, self.loaded.tokenizer)
        return thresholds.is_poor(result, ratio, loop=loop)


def encode_windows(runs: Sequence[Transcription]) -> None:
    """Encodes the next windows of recordings, and detects languages that are not known yet.

    Args:
        runs: of one model and with the same options.
    """
    decoder = runs[0].loaded.decoder
    windows = mx.stack([run.mel.window(run.seek) for run in runs])
    frames = [run.window_frames for run in runs]
    decoder.encode(windows, frames)
    for run in runs:  # the CPU works on the next features while the device decodes
        run.padded = runs[0].loaded.model.is_padded(frames)
        run.mel.prefetch(run.seek)
    if any(run.language is None for run in runs):
        audio = decoder.encoded()
        for run, language in zip(runs, likeliest_languages(runs[0].loaded), strict=True):
            if run.language is None:
                run.choose_language(language)
        decoder.restore(audio)
