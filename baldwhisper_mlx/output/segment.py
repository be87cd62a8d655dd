"""Words and segments: the parts of a transcript, which every format is written from.

Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Word:
    """One word with its time in seconds from the start of the audio.

    `word` keeps its leading space; `probability` is the mean over its tokens.
    """

    start: float
    end: float
    word: str
    probability: float


@dataclass(frozen=True)
class Segment:
    """One timed piece of a transcript, with OpenAI's fields.

    `start` and `end` are seconds from the start of the audio; `seek` is the mel frame (10 ms) at
    which the segment's window starts. `temperature`, `avg_logprob` (nats), `compression_ratio` and
    `no_speech_prob` (0 to 1) belong to the whole window.
    """

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: tuple[Word, ...] | None = None
    channel: int | None = None
    """From 1, if each channel of the recording was transcribed by itself."""
    language: str | None = None
    """Code of the language that is spoken in it, if languages were told apart within the
    recording."""
    logprobs: tuple[float, ...] | None = field(default=None, repr=False)
    """Log-probability (nats) of each of `tokens`; no file format has it."""
