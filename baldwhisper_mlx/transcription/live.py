"""`LiveTranscriber`: text while somebody speaks, from samples as they arrive.

Voice activity gates everything: nothing is decoded while nobody speaks. While somebody does, the
utterance so far is decoded again and again (live_draft.py), and a policy (live_policies.py) says
which words of that are confirmed. When the utterance ends it is transcribed as `transcribe` does,
with its timestamps and temperature fallback, and that replaces the drafts.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from baldwhisper_mlx.audio.buffer import check_samples
from baldwhisper_mlx.audio.endpointing import LIVE_SPEECH, Began, Ended, Endpointer, quietest
from baldwhisper_mlx.audio.vad import HOP, SpeechDetector, VadOptions
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.transcription.inputs import check_options, model_of
from baldwhisper_mlx.transcription.live_draft import DraftDecoder
from baldwhisper_mlx.transcription.live_events import LiveEvent, SpeechStarted
from baldwhisper_mlx.transcription.live_final import EndedUtterance, FinalTranscriber
from baldwhisper_mlx.transcription.live_policies import AlignAtt, LocalAgreement, Policy
from baldwhisper_mlx.transcription.live_utterance import CurrentUtterance
from baldwhisper_mlx.transcription.options import TranscribeOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from baldwhisper_mlx.transcription.options import TranscribeKeywords

LONGEST = 28.0
"""Seconds of an utterance; a longer one is cut, with room for the pause that ends it."""


class LiveTranscriber:
    """Transcribes one stream of speech while it arrives.

    Any thread may call the methods; calls wait for each other. `feed` decodes in the calling
    thread, and keeps the model only while it does. Whoever is late feeds everything that has
    arrived meanwhile at once: only the newest state is drafted. A draft that takes long puts off
    the next one, so that drafts take at most half of the time.

    An error in `feed` or `finish` loses nothing but the decoding that failed: the samples are
    taken, and events found before it come with the next call, or from `take_events`. A decoding
    that was interrupted (KeyboardInterrupt) is made again.

    Args:
        model: from `load_model`, or what that takes; by default the bundled English model.
        policy: which words of a draft are confirmed. Default: `AlignAtt`, or `LocalAgreement` if
            the model's config does not say which of its heads follow the audio.
        interval: least seconds of new speech between two drafts; None for no drafts. It becomes
            twice the time that the last draft took, if that is longer.
        vad_options: what counts as speech; its `min_silence_duration` ends an utterance.
        longest: seconds after which an utterance is cut: in a pause, behind the last confirmed
            word, or where speech is least probable.
        clock: seconds, by which drafts are timed; for simulations.
        **options: of `transcribe`, for finished utterances; languages, task, initial prompt and
            hotwords are also those of the drafts. `vad`, `batch_size`, `clip_timestamps` and
            `prefix` are not for streams.

    Raises:
        FileNotFoundError, ValueError: see `load_model` and `TranscribeOptions`; also for times out
            of range. TypeError: there is no such option.

    Warns with `OptionWarning` if there is no room for all of the hotwords or the initial prompt.

    Example:
        >>> live = LiveTranscriber(language="en")
        >>> for block in microphone:
        ...     for event in live.feed(block):
        ...         print(event)
    """

    def __init__(
        self,
        model: LoadedModel | str | Path | None = None,
        *,
        policy: Policy | None = None,
        interval: float | None = 0.5,
        vad_options: VadOptions = LIVE_SPEECH,
        longest: float = LONGEST,
        clock: Callable[[], float] = time.perf_counter,
        **options: Unpack[TranscribeKeywords],
    ) -> None:
        if interval is not None and not 0 < interval <= longest:
            raise ValueError(f"interval must be above 0 s and at most {longest} s, not {interval}")
        if not 1 <= longest <= LONGEST:
            raise ValueError(f"longest must be from 1 to {LONGEST:.0f} s, not {longest}")
        checked = TranscribeOptions(**options)
        _check_for_stream(checked)
        self._loaded = model_of(model)
        check_options(checked, self._loaded)
        if policy is None:
            policy = AlignAtt() if self._loaded.config.alignment_heads else LocalAgreement()
        self._policy, self._interval, self._vad_options = policy, interval, vad_options
        self._longest = round(longest * SAMPLE_RATE)
        self._clock = clock
        self._drafts = DraftDecoder(self._loaded, checked)
        self._final = FinalTranscriber(self._loaded, checked)
        self._detector, self._endpointer = SpeechDetector(), Endpointer(vad_options)
        self._lock = threading.Lock()
        self._samples = np.zeros(0, np.float32)
        """From sample `_offset` of the stream on."""
        self._offset = self._judged = 0
        self._waiting = deque[float]()
        """Probabilities of speech in the hops from `_judged` on, after an error in their call."""
        self._probabilities: list[float] = []
        """Of speech in every hop of the utterance at hand."""
        self._current: CurrentUtterance | None = None
        self._ended = deque[EndedUtterance]()
        """Utterances to be transcribed."""
        self._events: list[LiveEvent] = []
        """Found, and returned by no call yet."""
        self._end: int | None = None
        """Sample at which the stream ends."""
        self._is_finished = False

    @property
    def utterance_start(self) -> float | None:
        """Seconds from the start of the stream at which the utterance at hand begins, if any."""
        current = self._current
        return None if current is None else current.start / SAMPLE_RATE

    def feed(self, samples: npt.NDArray[np.float32]) -> list[LiveEvent]:
        """Takes the samples that come next, and reports what has happened.

        Args:
            samples: any number at 16 kHz: floats with full scale at 1.0, or int16, (n,),
                (n, channels) or (channels, n).

        Returns:
            Events in their order; at most one draft, at the end.

        Raises:
            TypeError, ValueError: unusable samples. RuntimeError: after `finish`, or the process
                was forked after the model had been loaded.
            FloatingPointError: NaN or infinite logits.
        """
        checked = check_samples(samples) if len(samples) else np.zeros(0, np.float32)
        with self._lock:
            self._require_unfinished()
            self._samples = np.concatenate([self._samples, checked])
            self._judge()
            if self._is_due():
                assert self._current is not None
                with self._loaded.in_use():
                    self._events.append(self._current.draft(self._drafts, self._clock))
            return self._take_events()

    def finish(self) -> list[LiveEvent]:
        """Ends the stream, and with it the utterance at hand.

        After an error it can be called again, for what is left.

        Raises:
            RuntimeError, FloatingPointError: as `feed`.
        """
        with self._lock:
            if self._end is None:
                self._end = self._offset + len(self._samples)
                padding = np.zeros((self._judged - self._end) % HOP, np.float32)
                self._samples = np.concatenate([self._samples, padding])
            elif self._is_finished:
                self._require_unfinished()
            self._judge()
            ended = self._endpointer.finish(self._end)
            if ended is not None:
                self._end_utterance(ended.sample)
            self._transcribe_ended()
            self._is_finished = True
            return self._take_events()

    def take_events(self) -> list[LiveEvent]:
        """The events that an error has kept from being returned; decodes nothing."""
        with self._lock:
            return self._take_events()

    def _take_events(self) -> list[LiveEvent]:
        events, self._events = self._events, []
        return events

    def _is_due(self) -> bool:
        """Whether it is time for a draft of the utterance at hand."""
        if self._current is None or self._interval is None:
            return False
        has_speech = self._endpointer.speech_end > self._current.start
        return has_speech and self._current.is_due(self._interval)

    def _require_unfinished(self) -> None:
        if self._end is not None:
            raise RuntimeError("the stream was finished: make another LiveTranscriber")

    def _judge(self) -> None:
        """Finds speech in the whole hops that have arrived."""
        self._transcribe_ended()
        begin = self._judged + HOP * len(self._waiting) - self._offset
        hops = self._samples[begin : begin + (len(self._samples) - begin) // HOP * HOP]
        # Each is kept as soon as it is there: the detector must not get it a second time.
        self._waiting.extend(self._detector.each(hops))
        while self._waiting:
            self._take_hop(self._waiting.popleft())
            self._transcribe_ended()
        self._forget(self._endpointer.earliest if self._current is None else self._current.start)

    def _take_hop(self, probability: float) -> None:
        """The next 32 ms, of which the end is then `_judged`; decodes nothing."""
        self._judged += HOP
        self._probabilities.append(probability)
        change = self._endpointer.push(probability)
        if isinstance(change, Began):
            self._events.append(SpeechStarted(change.sample / SAMPLE_RATE))
            self._begin(change.sample)
        elif isinstance(change, Ended):
            self._end_utterance(change.sample)
        elif self._current is not None:
            self._receive(self._current)
            if self._judged - self._current.start >= self._longest:
                cut = self._cut(self._current)
                self._end_utterance(cut)
                self._begin(cut)

    def _begin(self, start: int) -> None:
        self._current = CurrentUtterance(start, self._loaded.config.n_mels, self._policy)
        self._probabilities = self._probabilities[-max(1, (self._judged - start) // HOP) :]
        self._receive(self._current)

    def _receive(self, utterance: CurrentUtterance) -> None:
        utterance.append(self._between(utterance.received, self._judged))

    def _cut(self, utterance: CurrentUtterance) -> int:
        """The sample at which an utterance that is too long is cut."""
        until = utterance.confirmed_until
        fallback = None if until is None else (until - utterance.start) // HOP
        hops = quietest(self._probabilities, self._vad_options.neg_threshold, fallback)
        return utterance.start + HOP * hops

    def _end_utterance(self, end: int) -> None:
        """Ends the utterance at hand at a sample; what is silent after a cut is none."""
        current, self._current = self._current, None
        if current is not None and self._endpointer.speech_end > current.start:
            samples = self._between(current.start, end).copy()
            self._ended.append(EndedUtterance(samples, current.start, current.language))

    def _transcribe_ended(self) -> None:
        """Transcribes the utterances that have ended; an interrupted one remains to be done."""
        while self._ended:
            try:
                event = self._final.transcribe(self._ended[0])
            except Exception:
                self._ended.popleft()  # it would fail again
                raise
            self._ended.popleft()
            self._events.append(event)

    def _between(self, start: int, end: int) -> npt.NDArray[np.float32]:
        return self._samples[start - self._offset : end - self._offset]

    def _forget(self, sample: int) -> None:
        """Frees what belongs to the stream before a sample."""
        self._samples = self._samples[sample - self._offset :].copy()
        self._offset = sample
        self._probabilities = self._probabilities[-max(1, (self._judged - sample) // HOP) :]


def _check_for_stream(options: TranscribeOptions) -> None:
    """Raises ValueError for options of `transcribe` that need the whole recording."""
    defaults = TranscribeOptions()
    for name in ("vad", "batch_size", "clip_timestamps", "prefix"):
        if getattr(options, name) != getattr(defaults, name):
            raise ValueError(f"{name} is for whole recordings: leave it out for a live stream")
