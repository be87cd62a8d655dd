"""The settings of a session: what a client asks for, and what is in effect.

OpenAI has two forms. In the newer one the settings of the audio are nested (`audio.input.format`),
in the older one, of the beta, they are flat (`input_audio_format`); both are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from baldwhisper_mlx.audio.endpointing import LIVE_SPEECH
from baldwhisper_mlx.audio.vad import VadOptions
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.server.errors import ApiError, bad_value
from baldwhisper_mlx.server.models import Models
from baldwhisper_mlx.server.parameters import server_vad
from baldwhisper_mlx.server.realtime.audio import A_LAW, MU_LAW, PCM, TELEPHONE_RATE, AudioFormat
from baldwhisper_mlx.server.realtime.json_object import JsonObject
from baldwhisper_mlx.terminal import quoted
from baldwhisper_mlx.transcription.options import TranscribeOptions

_BETA_FORMATS = {"pcm16": PCM, "g711_ulaw": MU_LAW, "g711_alaw": A_LAW}
LOGPROBS = "item.input_audio_transcription.logprobs"
"""What `include` may name."""
_OPENAI_PREFIX = "gpt-"
"""Of the names of OpenAI's models for these sessions, such as gpt-realtime-whisper."""
_LEAST_RATE, _MOST_RATE = 8_000, 48_000
_LONGEST_TIME = 10_000
"""Milliseconds of a pause, or of padding."""


@dataclass(frozen=True)
class ServerVad:
    """What counts as speech, and which pause ends an utterance; OpenAI's names."""

    threshold: float = LIVE_SPEECH.threshold
    prefix_padding_ms: int = round(1000 * LIVE_SPEECH.speech_pad)
    silence_duration_ms: int = round(1000 * LIVE_SPEECH.min_silence_duration)

    def options(self) -> VadOptions:
        """The same for `LiveTranscriber`."""
        return server_vad(
            LIVE_SPEECH, self.threshold, self.prefix_padding_ms, self.silence_duration_ms
        )


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """What is in effect in a session."""

    model: str | None = None
    """As the client names it."""
    language: str | None = None
    languages: tuple[str, ...] = ()
    prompt: str | None = None
    keywords: tuple[str, ...] = ()
    format: AudioFormat = field(default_factory=AudioFormat)
    vad: ServerVad | None = ServerVad()
    """None: the client says where an item ends."""
    logprobs: bool = False
    """Whether the log-probabilities of the tokens come with the text of an item."""

    @property
    def hotwords(self) -> str | None:
        """The keywords as `transcribe` takes them."""
        return ", ".join(self.keywords) or None

    def options(self) -> TranscribeOptions:
        """The same for `transcribe`."""
        return TranscribeOptions(
            language=self.language,
            languages=self.languages or None,
            initial_prompt=self.prompt,
            hotwords=self.hotwords,
        )

    def find(self, models: Models) -> LoadedModel:
        """The model; OpenAI's names stand for the default one.

        Raises:
            ApiError: there is no such model, or it does not know a language.
        """
        try:
            _, loaded = models.find(self.model)
        except ApiError:
            if not (self.model or "").startswith(_OPENAI_PREFIX):
                raise
            _, loaded = models.find(None)
        try:
            if self.language is not None:
                loaded.tokenizer.to_language(self.language)
            loaded.tokenizer.candidates(self.languages or None)
        except ValueError as error:
            raise bad_value("language", f"language: {error}") from None
        return loaded

    def describe(self, session_id: str, *, is_beta: bool) -> dict[str, Any]:
        """The session, as OpenAI's events describe it."""
        transcription = {
            "model": self.model,
            "language": self.language,
            "prompt": self.prompt,
            "languages": list(self.languages) or None,
            "keywords": list(self.keywords) or None,
        }
        vad = None if self.vad is None else {"type": "server_vad", **self.vad.__dict__}
        session = {
            "id": session_id,
            "object": "realtime.transcription_session",
            "include": [LOGPROBS] if self.logprobs else None,
        }
        if is_beta:
            names = {kind: name for name, kind in _BETA_FORMATS.items()}
            return session | {
                "input_audio_format": names[self.format.type],
                "input_audio_transcription": transcription,
                "input_audio_noise_reduction": None,
                "turn_detection": vad,
            }
        audio = {"type": self.format.type}
        rate = {"rate": self.format.rate} if self.format.type == PCM else {}
        return session | {
            "type": "transcription",
            "audio": {
                "input": {
                    "format": audio | rate,
                    "transcription": transcription,
                    "noise_reduction": None,
                    "turn_detection": vad,
                }
            },
        }


def updated(settings: SessionSettings, session: Any) -> SessionSettings:
    """Changes what an update names; the rest stays. Other fields than OpenAI's are ignored.

    Args:
        settings: before the update.
        session: what the client sent, in one of the two forms.

    Raises:
        ApiError: a value that is not possible; its `param` is the path.
    """
    outer = JsonObject(session, "session")
    kind = outer.text("type")
    if kind not in (None, "transcription"):
        raise bad_value(
            "session.type",
            f"session.type must be transcription, not {quoted(kind)}: this server only transcribes",
        )
    inner = outer.inner("audio").inner("input")
    fields: tuple[tuple[JsonObject, str, _Read], ...] = (
        (outer, "input_audio_format", _format),
        (outer, "input_audio_transcription", _transcription),
        (outer, "turn_detection", _turn_detection),
        (outer, "include", _include),
        (inner, "format", _format),
        (inner, "transcription", _transcription),
        (inner, "turn_detection", _turn_detection),
    )
    for node, name, read in fields:
        if name in node:
            settings = read(settings, node, name)
    return settings


_Read = Callable[[SessionSettings, JsonObject, str], SessionSettings]


def _format(settings: SessionSettings, node: JsonObject, name: str) -> SessionSettings:
    if node.is_null(name):
        return replace(settings, format=AudioFormat())
    if node.is_text(name):
        kind = _BETA_FORMATS[node.choice(name, tuple(_BETA_FORMATS)) or "pcm16"]
        rate = None
    else:
        inner = node.inner(name)
        kind = inner.choice("type", (PCM, MU_LAW, A_LAW)) or PCM
        rate = inner.number("rate", _LEAST_RATE, _MOST_RATE)
    if kind != PCM:
        if rate not in (None, TELEPHONE_RATE):
            path = f"{node.path}.{name}.rate"
            raise bad_value(path, f"{path} must be {TELEPHONE_RATE} for {kind}")
        return replace(settings, format=AudioFormat(kind, TELEPHONE_RATE))
    return replace(settings, format=AudioFormat(kind, round(rate or AudioFormat.rate)))


def _include(settings: SessionSettings, node: JsonObject, name: str) -> SessionSettings:
    names = node.texts(name)
    for unknown in sorted(set(names) - {LOGPROBS}):
        path = f"{node.path}.{name}"
        raise bad_value(path, f"{path} can have {LOGPROBS} only, not {quoted(unknown)}")
    return replace(settings, logprobs=bool(names))


def _transcription(settings: SessionSettings, node: JsonObject, name: str) -> SessionSettings:
    inner = node.inner(name)
    is_reset = node.is_null(name)
    for key in ("model", "language", "prompt"):
        if is_reset or key in inner:
            settings = replace(settings, **{key: inner.text(key)})  # type: ignore[arg-type]
    for key in ("languages", "keywords"):
        if is_reset or key in inner:
            settings = replace(settings, **{key: inner.texts(key)})  # type: ignore[arg-type]
    if settings.language is not None and settings.languages:
        path = f"{inner.path}.languages"
        raise bad_value(path, f"{path} and language exclude each other: leave one out")
    return settings


def _turn_detection(settings: SessionSettings, node: JsonObject, name: str) -> SessionSettings:
    if node.is_null(name):
        return replace(settings, vad=None)
    inner, now = node.inner(name), settings.vad or ServerVad()
    # There is no semantic detection; `session.updated` says what is in effect instead.
    inner.choice("type", ("server_vad", "semantic_vad"))
    threshold = inner.number("threshold", 0, 1)
    padding = inner.number("prefix_padding_ms", 0, _LONGEST_TIME)
    silence = inner.number("silence_duration_ms", 0, _LONGEST_TIME)
    pause = now.silence_duration_ms if silence is None else round(silence)
    # The padding is kept on both sides, and must not reach into the next utterance.
    pad = min(now.prefix_padding_ms if padding is None else round(padding), pause // 2)
    return replace(
        settings, vad=ServerVad(now.threshold if threshold is None else threshold, pad, pause)
    )
