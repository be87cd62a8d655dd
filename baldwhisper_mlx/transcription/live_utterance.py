"""One utterance while it is spoken: its features, and the text confirmed so far."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.streaming_features import StreamingLogMel
from baldwhisper_mlx.audio.vad import HOP
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.model.padding import SHORTEST
from baldwhisper_mlx.transcription.live_draft import DraftDecoder
from baldwhisper_mlx.transcription.live_events import Draft
from baldwhisper_mlx.transcription.live_policies import Policy

_SHARE = 2
"""Seconds of audio for every second that a draft takes: drafts compute half of the time at most."""


class CurrentUtterance:
    """The utterance at hand.

    Args:
        start: its first sample in the stream.
        n_mels: mel bins of the model.
        policy: confirms words; it is reset.
    """

    def __init__(self, start: int, n_mels: int, policy: Policy) -> None:
        self.start = start
        self.received = start
        """Sample of the stream up to which it was received."""
        self.confirmed_until: int | None = None
        """Sample of the stream at which the last confirmed word ends."""
        self.language: str | None = None
        """Code, once it was detected in enough speech."""
        self._mel = StreamingLogMel(n_mels)
        self._policy = policy
        self._tokens: list[int] = []
        self._text = ""
        self._confirmed_language: str | None = None
        """In which the confirmed words were decoded."""
        self._drafted = start
        self._rest = 0.0
        """Seconds of audio between the last draft and the next, because of the time it took."""
        policy.reset()

    def append(self, samples: Samples) -> None:
        """Adds what comes next, mono at 16 kHz (n,), float32."""
        self._mel.append(samples)
        self.received += len(samples)

    def is_due(self, interval: float) -> bool:
        """Whether there is enough for a draft, and enough more than at the last one.

        Args:
            interval: seconds that are enough, unless the last draft took more than half of that.
        """
        # What arrives is judged in whole hops, of which one may be missing.
        more = self.received - self._drafted + HOP
        enough = round(max(interval, self._rest) * SAMPLE_RATE)
        return self._mel.n_frames >= SHORTEST and more >= enough

    def draft(self, decoder: DraftDecoder, clock: Callable[[], float]) -> Draft:
        """Decodes what there is, and confirms words.

        Args:
            decoder: of the stream.
            clock: seconds, by which it is timed.

        Raises:
            FloatingPointError: NaN or infinite logits.
        """
        self._drafted, began = self.received, clock()
        seconds = (self.received - self.start) / SAMPLE_RATE
        until = 0 if self.confirmed_until is None else self.confirmed_until - self.start
        decoder.encode(self._mel)
        language = self.language or self._confirmed_language
        if language is None:
            language, is_sure = decoder.detect_language(seconds)
            self.language = language if is_sure else None
        words = decoder.words(self._mel, self._tokens, until / SAMPLE_RATE, language)
        count = self._policy.confirm(words, seconds)
        confirmed, rest = words[:count], words[count:]
        if confirmed:
            self._tokens += itertools.chain.from_iterable(word.tokens for word in confirmed)
            self._text += "".join(word.text for word in confirmed)
            self.confirmed_until = self.start + round(confirmed[-1].end * SAMPLE_RATE)
            self._confirmed_language = language
        self._rest = _SHARE * (clock() - began)
        return Draft(
            start=self.start / SAMPLE_RATE,
            received=self.received / SAMPLE_RATE,
            confirmed=self._text,
            unconfirmed="".join(word.text for word in rest),
            language=language,
        )
