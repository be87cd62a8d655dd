"""What `LiveTranscriber` reports. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from baldwhisper_mlx.output.segment import Segment


@dataclass(frozen=True)
class SpeechStarted:
    """Somebody began to speak."""

    start: float
    """Seconds from the start of the stream."""


@dataclass(frozen=True)
class Draft:
    """The text of the utterance so far."""

    start: float
    """Seconds from the start of the stream at which the utterance begins."""
    received: float
    """Seconds from the start of the stream up to which this was decoded."""
    confirmed: str
    """Text that stays until the utterance ends: the next draft begins with it."""
    unconfirmed: str
    """What follows, which may change."""
    language: str
    """Code."""


@dataclass(frozen=True)
class Utterance:
    """An utterance has ended; its text replaces the drafts."""

    start: float
    """Seconds from the start of the stream."""
    end: float
    """The same."""
    text: str
    """As `transcribe` writes of these seconds alone; empty if it finds no words there."""
    segments: tuple[Segment, ...]
    """With times from the start of the stream, numbered from utterance to utterance."""
    language: str | None
    """Code; None if it was neither given nor detected."""


LiveEvent = SpeechStarted | Draft | Utterance
