"""The audio of a session from its bytes to items. All of it runs in the thread that decodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.server.errors import bad_value
from baldwhisper_mlx.server.logprobs import logprobs_of
from baldwhisper_mlx.server.realtime.audio import AudioStream
from baldwhisper_mlx.server.realtime.commits import CommitBuffer
from baldwhisper_mlx.server.realtime.events import Conversation, Event, Item
from baldwhisper_mlx.server.realtime.settings import SessionSettings
from baldwhisper_mlx.server.realtime.speech import SpeechItems
from baldwhisper_mlx.transcription.live import LiveTranscriber


class SessionStream:
    """Makes items of what a client sends; one thread at a time may call it.

    Args:
        settings: of the session; `change` changes them.
        loaded: the model that they name.
        conversation: to which the items are added.
        limit: bytes that an item may have that the client ends.
    """

    def __init__(
        self,
        settings: SessionSettings,
        loaded: LoadedModel,
        conversation: Conversation,
        limit: int,
    ) -> None:
        self.settings, self.loaded = settings, loaded
        self._conversation = conversation
        self._audio = AudioStream(settings.format)
        self._buffer = CommitBuffer(limit)
        self._speech: SpeechItems | None = None
        """Made by the first audio, if pauses end items."""
        self._n_samples = 0

    def feed(self, data: bytes) -> list[Event]:
        """Takes the audio that comes next.

        Raises:
            ApiError: there is no room for it.
        """
        if self.settings.vad is None:
            self._buffer.check_room()
        return self._take(self._audio.decode(data))

    def end_speech(self) -> list[Event]:
        """Ends the item at hand, because the client says so.

        Raises:
            ApiError: there is no audio since the last item.
        """
        events = self._take(self._audio.finish())
        assert self._speech is not None
        return events + self._speech.commit()

    def take_buffer(self) -> tuple[Item, Samples]:
        """The audio since the last commit, as a new item.

        Raises:
            ApiError: there is none.
        """
        self._take(self._audio.finish())
        samples = self._buffer.take()
        return Item((self._n_samples - len(samples)) / SAMPLE_RATE), samples

    def clear(self) -> None:
        """Forgets the audio that is not in an item yet."""
        rest = len(self._audio.finish())
        self._n_samples += rest
        self._buffer.clear()
        if self._speech is not None:
            self._speech.clear(rest)

    def logprobs(self, segments: Sequence[Segment]) -> list[dict[str, Any]] | None:
        """Log-probabilities of the tokens of segments; None if the session includes none."""
        return logprobs_of(segments, self.loaded.tokenizer) if self.settings.logprobs else None

    def change(self, settings: SessionSettings, loaded: LoadedModel) -> list[Event]:
        """Changes the settings, which ends the item at hand if they differ.

        Raises:
            ApiError: there is audio that only the client can commit.
        """
        if settings == self.settings:
            return []
        if settings.vad is not None and self._buffer:
            raise bad_value(
                "session.turn_detection",
                "session.turn_detection: commit or clear the buffer before you change it",
            )
        events = self._take(self._audio.finish())
        if self._speech is not None:
            events += self._speech.finish()
        self._speech, self._audio = None, AudioStream(settings.format)
        self.settings, self.loaded = settings, loaded
        return events

    def _take(self, samples: Samples) -> list[Event]:
        if self.settings.vad is None:
            self._buffer.feed(samples)
            self._n_samples += len(samples)
            return []
        if self._speech is None:
            self._speech = SpeechItems(
                self._transcriber, self._conversation, self._n_samples, self.logprobs
            )
        self._n_samples += len(samples)
        return self._speech.feed(samples)

    def _transcriber(self) -> LiveTranscriber:
        settings = self.settings
        assert settings.vad is not None
        return LiveTranscriber(
            self.loaded,
            vad_options=settings.vad.options(),
            language=settings.language,
            languages=settings.languages or None,
            initial_prompt=settings.prompt,
            hotwords=settings.hotwords,
        )
