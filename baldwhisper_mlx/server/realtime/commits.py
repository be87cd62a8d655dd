"""Items that end where the client says so: transcribed as files are, together with them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator

from baldwhisper_mlx.audio.buffer import SampleBuffer, Samples
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.server.errors import ApiError
from baldwhisper_mlx.server.logprobs import logprobs_of
from baldwhisper_mlx.server.realtime.events import Event, Item
from baldwhisper_mlx.server.realtime.settings import SessionSettings
from baldwhisper_mlx.server.realtime.speech import LEAST_COMMIT, empty_commit
from baldwhisper_mlx.server.transcriptions import Service, results_of

_log = logging.getLogger("baldwhisper_mlx.server")


class CommitBuffer:
    """The audio since the last commit.

    Args:
        limit: bytes of it, as 16-bit samples at 16 kHz.
    """

    def __init__(self, limit: int) -> None:
        self._most = limit // 2
        self.clear()

    def __bool__(self) -> bool:
        return self._length > 0

    def check_room(self) -> None:
        """Makes sure that there is room for more.

        Raises:
            ApiError: there is none.
        """
        if self._length >= self._most:
            raise ApiError(
                400,
                f"the buffer has {self._length / SAMPLE_RATE:.0f} s of audio, and no room for "
                "more: commit or clear it (--max-upload)",
                param="audio",
                code="input_audio_buffer_full",
            )

    def feed(self, samples: Samples) -> None:
        """Takes what comes next, at 16 kHz (n,)."""
        self._buffer.add(samples)
        self._length += len(samples)

    def clear(self) -> None:
        """Forgets it."""
        self._buffer, self._length = SampleBuffer(), 0

    def take(self) -> Samples:
        """The audio, which becomes an item.

        Raises:
            ApiError: there is none.
        """
        if self._length < LEAST_COMMIT:
            raise empty_commit(self._length)
        samples = self._buffer.samples()
        self.clear()
        return samples


async def transcribed(
    service: Service, samples: Samples, loaded: LoadedModel, settings: SessionSettings, item: Item
) -> AsyncGenerator[Event, None]:
    """Transcribes an item; its deltas are the text of finished segments.

    Args:
        service: whose worker does so.
        samples: of the item, at 16 kHz (n,).
        loaded: the model.
        settings: of the session.
        item: to which the text belongs.
    """
    seconds, text = len(samples) / SAMPLE_RATE, ""
    try:
        async with service.places.decoding:
            results = results_of(service.worker, samples, loaded, settings.options())
            async with contextlib.aclosing(results):
                async for result in results:
                    if isinstance(result, Transcript):
                        logprobs = None
                        if settings.logprobs:
                            logprobs = logprobs_of(result.segments, loaded.tokenizer)
                        for event in item.completed(
                            result.text, seconds, result.language, logprobs
                        ):
                            yield event
                        return
                    assert not isinstance(result, Exception)
                    text += "".join(segment.text for segment in result)
                    for event in item.delta(text, ""):
                        yield event
    except Exception:
        _log.exception("a realtime transcription failed")
        yield item.failed()
