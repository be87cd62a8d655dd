"""What is measured: each protocol as a list of cases, a case being one task to time.

`paper` is that of Sy et al., arXiv 2510.08599: 256 tokens for each of 10 utterances. Standard
library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

PROTOCOLS = ("paper", "decode", "encode", "clip", "cold")
WITH_AUDIO = ("clip", "cold")
"""Protocols that need recordings of speech."""

PAPER_BATCH, TOKENS = 10, 256
BATCHES = (1, 2, 4, 8, 16)
CLIP_SECONDS = (1.0, 5.0, 10.0, 30.0, 600.0)
ENCODE_SECONDS = (10.0, 30.0)
COLD_SECONDS = 10.0
_LONG_SECONDS, _LONG_ROUNDS = 60.0, 3
_WARM_UP_SECONDS = 30.0

Unit = Literal["tokens/s", "s"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user may choose.

    Raises:
        ValueError: a number that must be positive is not, or an unknown protocol.
    """

    protocols: tuple[str, ...] = PROTOCOLS
    rounds: int = 5
    tokens: int = TOKENS
    batches: tuple[int, ...] = BATCHES
    clip_seconds: tuple[float, ...] = CLIP_SECONDS
    language: str | None = None
    temperature: float | None = None
    """None: the default schedule of fallbacks."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.protocols if name not in PROTOCOLS]
        if unknown:
            raise ValueError(f"unknown protocol {unknown[0]!r}; known: {', '.join(PROTOCOLS)}")
        for name, value in (
            ("rounds", self.rounds),
            ("tokens", self.tokens),
            *(("batch", batch) for batch in self.batches),
            *(("seconds", seconds) for seconds in self.clip_seconds),
        ):
            if not value > 0:
                raise ValueError(f"{name} must be positive, not {value}")

    def audio_seconds(self) -> list[float]:
        """Lengths of the clips that the protocols with audio need, shortest first."""
        wanted: set[float] = set()
        if "clip" in self.protocols:
            wanted |= set(self.clip_seconds)
            if max(wanted) > _LONG_SECONDS:
                wanted.add(_WARM_UP_SECONDS)
        if "cold" in self.protocols:
            wanted.add(COLD_SECONDS)
        return sorted(wanted)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One task that every contender does for a number of rounds."""

    protocol: str
    label: str
    action: str
    """A method of the runtime; or `cold`, a whole program run."""
    unit: Unit
    """What is reported: tokens per second, or seconds."""
    amount: float
    """Tokens, or seconds of audio, that one round handles."""
    rounds: int
    arguments: dict[str, Any] = field(default_factory=dict)
    clips: tuple[str, ...] = ()
    """Audio files of the rounds, reused from the first after the last."""
    warm_up_clip: str | None = None
    """Audio file for the round before the first, which is not measured."""

    @property
    def name(self) -> str:
        """Protocol and label, unique in a run."""
        return f"{self.protocol}, {self.label}"

    def round(self, number: int) -> dict[str, Any]:
        """Arguments of a round; -1 is the warm-up."""
        if not self.clips:
            return self.arguments
        clip = self.clips[number % len(self.clips)]
        if number < 0:
            clip = self.warm_up_clip or self.clips[0]
        return self.arguments | {"audio": clip}


def make_cases(settings: Settings, clips: Mapping[float, Sequence[str]]) -> list[Case]:
    """All cases of the chosen protocols, in order.

    Args:
        settings: what to measure.
        clips: audio files by length in seconds, at least those of `Settings.audio_seconds`.
    """
    cases = []
    for protocol in settings.protocols:
        if protocol == "paper":
            cases.append(_decoding(protocol, PAPER_BATCH, settings, timestamps=False))
        elif protocol == "decode":
            cases += [_decoding(protocol, b, settings, timestamps=True) for b in settings.batches]
        elif protocol == "encode":
            cases += [_encoding(seconds, settings) for seconds in ENCODE_SECONDS]
        elif protocol == "clip":
            for seconds in settings.clip_seconds:
                cases += _transcription(seconds, settings, clips)
        else:
            cases.append(_cold(settings, clips))
    return cases


def _decoding(protocol: str, batch: int, settings: Settings, *, timestamps: bool) -> Case:
    return Case(
        protocol=protocol,
        label=f"batch {batch}",
        action="decode",
        unit="tokens/s",
        amount=batch * settings.tokens,
        rounds=settings.rounds,
        arguments={"batch": batch, "tokens": settings.tokens, "timestamps": timestamps},
    )


def _encoding(seconds: float, settings: Settings) -> Case:
    return Case(
        protocol="encode",
        label=f"{seconds:g} s",
        action="encode",
        unit="s",
        amount=seconds,
        rounds=settings.rounds,
        arguments={"seconds": seconds},
    )


def _transcription(
    seconds: float, settings: Settings, clips: Mapping[float, Sequence[str]]
) -> list[Case]:
    """First token and final text of clips of one length."""
    long = seconds > _LONG_SECONDS
    label = f"{seconds / 60:g} min" if long and seconds % 60 == 0 else f"{seconds:g} s"

    def case(what: str, action: str, arguments: dict[str, Any]) -> Case:
        return Case(
            protocol="clip",
            label=f"{label}, {what}",
            action=action,
            unit="s",
            amount=seconds,
            rounds=min(settings.rounds, _LONG_ROUNDS) if long else settings.rounds,
            arguments=arguments,
            clips=tuple(clips[seconds]),
            warm_up_clip=clips[_WARM_UP_SECONDS][0] if long else None,
        )

    language = {"language": settings.language}
    return [
        case("first token", "first_token", language),
        case("final text", "transcribe", language | {"temperature": settings.temperature}),
    ]


def _cold(settings: Settings, clips: Mapping[float, Sequence[str]]) -> Case:
    return Case(
        protocol="cold",
        label=f"{COLD_SECONDS:g} s",
        action="cold",
        unit="s",
        amount=COLD_SECONDS,
        rounds=settings.rounds,
        arguments={"language": settings.language, "temperature": settings.temperature},
        clips=tuple(clips[COLD_SECONDS]),
    )
