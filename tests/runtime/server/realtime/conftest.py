"""Sessions of starlette's test client, and audio for them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import soxr
from starlette.testclient import TestClient, WebSocketTestSession

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.server.app import Settings, create_app
from baldwhisper_mlx.server.models import Models
from tests.runtime.server.conftest import SPEECH

ADDRESS = "ws://127.0.0.1/v1/realtime"
URL = f"{ADDRESS}?intent=transcription"
CONTENT = "conversation.item.input_audio_transcription"
SILENCE = np.zeros(SAMPLE_RATE, np.float32)


def pcm(samples: Samples, rate: int = 24_000) -> bytes:
    """Samples at 16 kHz as PCM at another rate."""
    resampled = soxr.resample(samples, SAMPLE_RATE, rate)
    return (32767 * np.clip(resampled, -1, 1)).astype("<i2").tobytes()


class Client:
    """A client of a session.

    Args:
        session: of starlette's.
    """

    def __init__(self, session: WebSocketTestSession) -> None:
        self.session = session

    def send(self, kind: str, **fields: Any) -> None:
        """Sends an event."""
        self.session.send_json({"type": kind, **fields})

    def append(self, data: bytes, size: int = 2**18) -> None:
        """Sends audio in blocks."""
        for i in range(0, len(data), size):
            audio = base64.b64encode(data[i : i + size]).decode()
            self.send("input_audio_buffer.append", audio=audio)

    def speak(self, data: bytes, size: int = 12_000) -> list[Any]:
        """Sends audio in blocks, each when the one before has been processed; returns events."""
        events = []
        for i in range(0, len(data), size):
            self.append(data[i : i + size])
            self.send("session.update", session={})  # answered after the audio
            events += self.until("session.updated")[:-1]
        return events

    def next(self) -> Any:
        """The next event."""
        return self.session.receive_json()

    def until(self, *kinds: str) -> list[Any]:
        """The events up to the first one whose type ends like this."""
        events = [self.next()]
        while not events[-1]["type"].endswith(kinds):
            events.append(self.next())
        return events

    def update(self, **fields: Any) -> Any:
        """Changes settings of the audio, and returns the answer."""
        session = {"type": "transcription", "audio": {"input": fields}}
        self.send("session.update", session=session)
        return self.until("session.updated", "error")[-1]


@pytest.fixture(scope="module")
def app(bundled: LoadedModel, bilingual: LoadedModel) -> Iterator[TestClient]:
    models = Models([("tiny-en", bundled), ("tiny", bilingual)])
    with TestClient(create_app(models, Settings())) as client:
        yield client


@pytest.fixture
def client(app: TestClient) -> Iterator[Client]:
    """A session that has begun."""
    with app.websocket_connect(URL) as session:
        found = Client(session)
        assert found.next()["type"] == "session.created"
        yield found


@pytest.fixture(scope="session")
def speech() -> Samples:
    """Two seconds of speech, and a pause."""
    return np.concatenate([load_audio(SPEECH), SILENCE])
