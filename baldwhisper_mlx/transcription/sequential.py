"""Sequential transcription: the windows of one recording in their order, by OpenAI's algorithm.

The last step from audio to text. A window of 30 s of log-mel features (audio/features.py) is
encoded once (model/whisper.py); language detection and all attempts at decoding it
(decoding/decoder.py) use the same encoder states. Its tokens become segments (segments.py); the
next window starts at their last timestamp and is conditioned on the text so far (Radford et al.,
arXiv 2212.04356, section 4.5).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from baldwhisper_mlx.audio.buffer import Samples, check_samples
from baldwhisper_mlx.audio.features import N_FRAMES, LogMelSpectrogram
from baldwhisper_mlx.audio.source import no_check
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.model.padding import REST
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.transcription.first_attempt import FirstAttempt
from baldwhisper_mlx.transcription.language import SpokenLanguage, likeliest_languages
from baldwhisper_mlx.transcription.multilingual import before_lost_speech, end_at_changes
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.prompts import PreviousText
from baldwhisper_mlx.transcription.ranges import Parts
from baldwhisper_mlx.transcription.retiming import within_audio
from baldwhisper_mlx.transcription.second_opinion import WindowSpeech
from baldwhisper_mlx.transcription.segments import main_language, numbered
from baldwhisper_mlx.transcription.window_decoding import WindowDecoding
from baldwhisper_mlx.transcription.window_segments import Window, window_segments


def transcribe_sequentially(
    samples: Samples,
    loaded: LoadedModel,
    options: TranscribeOptions,
    first_attempts: list[DecodingResult],
) -> Generator[Segment, None, Transcript]:
    """Transcribes one recording, window after window.

    Yields the segments of each window when it is finished. Until the next one is asked for, the
    model is free for others.

    Args:
        samples: mono at 16 kHz (n,), full scale at 1.0.
        loaded: from `load_model`.
        options: all but `vad` and `batch_size`.
        first_attempts: gets the first attempt at every window that is no silence.

    Returns:
        The transcript, of the segments that were yielded.

    Raises:
        ValueError: unusable samples, or a language or task that the model does not know.
        FloatingPointError: the model produced NaN or infinite logits.
    """
    run = Transcription.start(samples, loaded, options)
    while run.window_frames:
        n_finished = len(run.segments)
        run.transcribe_window()
        options.report(run.seconds_done, run.duration)
        yield from run.segments[n_finished:]
    first_attempts += run.decoding.first_attempts
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
    language: SpokenLanguage
    previous: PreviousText
    decoding: WindowDecoding
    parts: Parts
    """What is transcribed."""
    seek: int = 0
    """Mel frame (10 ms) at which the next window starts."""
    last_speech: float = 0.0
    """Seconds at which the last word ended, with word timestamps."""
    window_end: int | None = None
    """Mel frame at which the next window ends before its 30 s, because another language follows."""
    segments: list[Segment] = field(default_factory=list)
    """Of the windows so far."""

    @classmethod
    def start(
        cls, samples: Samples, loaded: LoadedModel, options: TranscribeOptions
    ) -> Transcription:
        """A recording before its first window; arguments and errors as `transcribe_sequentially`.

        Nothing is decoded yet.
        """
        samples = check_samples(samples)
        mel = LogMelSpectrogram(samples, loaded.config.n_mels)
        parts = Parts(options.ranges, mel.n_frames)
        language = SpokenLanguage(samples, mel, loaded, options, parts)
        previous = PreviousText(loaded, options)
        run = cls(
            loaded,
            options,
            samples,
            mel=mel,
            duration=len(samples) / SAMPLE_RATE,
            language=language,
            previous=previous,
            decoding=WindowDecoding(loaded, options, language, previous),
            parts=parts,
        )
        run.seek = parts.next_sound(0, mel.after_silence)
        return run

    def prepare(self, check: Callable[[], None] = no_check) -> None:
        """Reads the recording as far as its first window needs it, which that does otherwise.

        It takes seconds for hours of audio, and does not use the model.

        Args:
            check: called now and then; what it raises ends that.
        """
        self.mel.measure(check)
        if self.language.code is None:
            self.language.find_speech(self.seek, check)

    @property
    def window_frames(self) -> int:
        """Mel frames of the next window; 0 when the recording is done."""
        end = self.parts.end_of(self.seek) if self.window_end is None else self.window_end
        return max(0, min(N_FRAMES, end - self.seek))

    @property
    def features(self) -> mx.array:
        """Log-mel (3000, n_mels) of the next window, zeros behind its last frame."""
        return self.mel.window(self.seek, self.window_frames)

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
        n_frames, end = self.window_frames, self.parts.end_of(self.seek)
        speech = WindowSpeech(self.samples, self.seek, n_frames)
        decoded = self.decoding.decode(lambda: self.features, n_frames, speech, shared)
        if decoded is None:
            self.seek += n_frames
        else:
            result, ratio = decoded
            language = self.language.code or "en"
            window = Window(self.loaded.tokenizer, self.options, self.seek, n_frames, end, language)
            segments, advance, self.last_speech = window_segments(
                result,
                ratio,
                window,
                speech,
                previous=self.previous.copyable,
                last_speech=self.last_speech,
            )
            if self.options.multilingual:
                segments = [dataclasses.replace(one, language=language) for one in segments]
                # What follows the window may be in another language.
                advance = before_lost_speech(segments, speech, self.seek, min(advance, n_frames))
            self._add(segments)
            self.previous.append([token for segment in segments for token in segment.tokens])
            is_last = self.seek + n_frames >= end
            # Timestamps may point past the end of the range, and into the next one.
            self.seek = min(self.seek + advance, end)
            if self.decoding.padded and is_last and end - self.seek < REST:
                # Padded, an output often ends in two timestamps instead of one, and the rest behind
                # them is not recognized as silence (docs/short-context.md). It has been decoded
                # once already.
                self.seek = end
            # As in OpenAI's code, text sampled at a high temperature is not used as context.
            if not self.options.condition_on_previous_text or result.temperature > 0.5:
                self.previous.forget()
        self.window_end = None
        self.seek = self.parts.next_sound(self.seek, self.mel.after_silence)
        if not self.segments:
            self.language.forget_silence(self.seek)

    def _add(self, segments: Sequence[Segment]) -> None:
        previous = self.segments[-1] if self.segments else None
        added = numbered(segments, len(self.segments))
        self.segments += within_audio(added, self.duration, previous=previous)

    def transcript(self) -> Transcript:
        """What has been transcribed so far."""
        text = self.loaded.tokenizer.decode(self.previous.spoken)
        spoken = self.options.language is not None or bool(self.segments)
        code = (main_language(self.segments) or self.language.code) if spoken else None
        return Transcript(text, tuple(self.segments), code, self.duration)


def encode_windows(runs: Sequence[Transcription]) -> None:
    """Encodes the next windows of recordings, and detects languages that are not known yet.

    With `multilingual`, windows end where the language changes, and are encoded again for that.

    Args:
        runs: of one model and with the same options.
    """
    _encode(runs)
    decoder = runs[0].loaded.decoder
    for run in runs:  # the CPU works on the next features while the device decodes
        run.mel.prefetch(run.seek)
    if runs[0].options.multilingual and end_at_changes(runs):
        _encode(runs)
    if any(run.language.code is None for run in runs):
        audio = decoder.encoded()
        languages = likeliest_languages(runs[0].loaded, runs[0].language.candidates)
        for run, language in zip(runs, languages, strict=True):
            if run.language.code is None:
                run.language.choose(language, run.seek)
        decoder.restore(audio)


def _encode(runs: Sequence[Transcription]) -> None:
    frames = [run.window_frames for run in runs]
    runs[0].loaded.decoder.encode(mx.stack([run.features for run in runs]), frames)
    for run in runs:
        run.decoding.padded = runs[0].loaded.model.is_padded(frames)
