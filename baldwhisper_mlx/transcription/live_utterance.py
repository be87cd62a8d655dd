"""One utterance while it is spoken: its features, and the text confirmed so far."""

from __future__ import annotations

import itertools

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.streaming_features import StreamingLogMel
from baldwhisper_mlx.audio.vad import HOP
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.model.padding import SHORTEST
from baldwhisper_mlx.transcription.live_draft import DraftDecoder
from baldwhisper_mlx.transcription.live_events import Draft
from baldwhisper_mlx.transcription.live_policies import Policy


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
        self._mel = StreamingLogMel(n_mels)
        self._policy = policy
        self._tokens: list[int] = []
        self._text = ""
        self._language: str | None = None
        self._drafted = start
        policy.reset()

    def append(self, samples: Samples) -> None:
        """Adds what comes next, mono at 16 kHz (n,), float32."""
        self._mel.append(samples)
        self.received += len(samples)

    def is_due(self, interval: float) -> bool:
        """Whether there is enough for a draft, and `interval` seconds more than at the last one."""
        # What arrives is judged in whole hops, of which one may be missing.
        more = self.received - self._drafted + HOP
        return self._mel.n_frames >= SHORTEST and more >= round(interval * SAMPLE_RATE)

    def draft(self, decoder: DraftDecoder) -> Draft:
        """Decodes what there is, and confirms words.

        Raises:
            FloatingPointError: NaN or infinite logits.
        """
        self._drafted = self.received
        seconds = (self.received - self.start) / SAMPLE_RATE
        until = 0 if self.confirmed_until is None else self.confirmed_until - self.start
        words, language = decoder.words(
            self._mel, self._tokens, until / SAMPLE_RATE, self._language
        )
        count = self._policy.confirm(words, seconds)
        confirmed, rest = words[:count], words[count:]
        if confirmed:
            self._tokens += itertools.chain.from_iterable(word.tokens for word in confirmed)
            self._text += "".join(word.text for word in confirmed)
            self.confirmed_until = self.start + round(confirmed[-1].end * SAMPLE_RATE)
            self._language = language  # the confirmed tokens were decoded in it
        return Draft(
            start=self.start / SAMPLE_RATE,
            received=self.received / SAMPLE_RATE,
            confirmed=self._text,
            unconfirmed="".join(word.text for word in rest),
            language=language,
        )
