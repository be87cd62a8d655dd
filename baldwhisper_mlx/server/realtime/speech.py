"""Items that end where a pause is, with drafts of them while somebody speaks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.server.errors import ApiError
from baldwhisper_mlx.server.realtime.events import Conversation, Event, Item
from baldwhisper_mlx.transcription.live import LiveTranscriber
from baldwhisper_mlx.transcription.live_events import Draft, LiveEvent, SpeechStarted

LEAST_COMMIT = SAMPLE_RATE // 10
"""Samples that an item must have at least, as OpenAI's."""
Logprobs = Callable[[Sequence[Segment]], "list[dict[str, Any]] | None"]
"""Log-probabilities of the tokens of segments; None if the session does not include them."""
_log = logging.getLogger("baldwhisper_mlx.server")


def empty_commit(n_samples: int) -> ApiError:
    """The error of a commit without audio.

    Args:
        n_samples: in the buffer.
    """
    return ApiError(
        400,
        "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, "
        f"but buffer only has {1000 * n_samples / SAMPLE_RATE:.2f}ms of audio.",
        code="input_audio_buffer_commit_empty",
    )


class SpeechItems:
    """Makes items of the speech in a stream. Its methods decode in the calling thread.

    Args:
        make: a transcriber of a stream.
        conversation: to which the items are added.
        n_before: samples of the session before this stream.
        logprobs: of what is complete.
    """

    def __init__(
        self,
        make: Callable[[], LiveTranscriber],
        conversation: Conversation,
        n_before: int,
        logprobs: Logprobs,
    ) -> None:
        self._make, self._logprobs = make, logprobs
        self._conversation = conversation
        self._n_samples = n_before
        self._n_committed = n_before
        """Samples of the session when the last item was complete."""
        self._item: Item | None = None
        self._restart()

    def feed(self, samples: Samples) -> list[Event]:
        """Takes what comes next, at 16 kHz (n,); an error ends the item at hand, and no more."""
        self._n_samples += len(samples)
        events, _ = self._events(lambda: self._live.feed(samples))
        return events

    def commit(self) -> list[Event]:
        """Ends the item at hand; without speech its text is empty.

        Raises:
            ApiError: there is no audio since the last item.
        """
        n_samples = self._n_samples - self._n_committed
        if n_samples < LEAST_COMMIT:
            raise empty_commit(n_samples)
        events = self.finish()
        if not events:
            item = Item(self._n_committed / SAMPLE_RATE)
            completed = item.completed("", n_samples / SAMPLE_RATE, None, self._logprobs(()))
            events = [*self._conversation.add(item), *completed]
        self._n_committed = self._n_samples
        return events

    def finish(self) -> list[Event]:
        """Ends the item at hand, if there is one; what comes next is another stream."""
        events, failed = self._events(self._live.finish)
        if failed:  # once more, for what is left
            more, _ = self._events(self._live.finish)
            events += more
        self._restart()
        return events

    def clear(self, n_more: int) -> None:
        """Forgets the item at hand, and samples that come next."""
        self._n_samples += n_more
        self._item, self._n_committed = None, self._n_samples
        self._restart()

    def _restart(self) -> None:
        self._live = self._make()
        self._begin = self._n_samples / SAMPLE_RATE
        """Second of the session at which the transcriber's stream begins."""
        self._last_end = self._begin
        """Second of the session at which the last item ended, where one may follow that was cut."""

    def _events(self, call: Callable[[], Sequence[LiveEvent]]) -> tuple[list[Event], bool]:
        """The events of a call, and whether it failed."""
        failed = False
        try:
            happened = call()
        except Exception:
            _log.exception("a realtime transcription failed")
            happened, failed = self._live.take_events(), True
        events = [event for one in happened for event in self._events_of(one)]
        return events + self._failed() if failed else events, failed

    def _events_of(self, happened: LiveEvent) -> list[Event]:
        events, item = self._item_at(self._begin + happened.start)
        if isinstance(happened, SpeechStarted):
            return events
        if isinstance(happened, Draft):
            return events + item.delta(happened.confirmed, happened.unconfirmed)
        seconds, logprobs = happened.end - happened.start, self._logprobs(happened.segments)
        return [
            *events,
            *self._ended(item, self._begin + happened.end),
            *item.completed(happened.text, seconds, happened.language, logprobs),
        ]

    def _item_at(self, start: float) -> tuple[list[Event], Item]:
        """The item that begins there, and the event of its beginning if it is new.

        An utterance that is too long is cut, and what follows begins without an event.
        """
        if self._item is not None and self._item.start == start:
            return [], self._item
        self._item = Item(start)
        return [self._item.speech_started()], self._item

    def _ended(self, item: Item, end: float) -> list[Event]:
        self._item, self._n_committed, self._last_end = None, self._n_samples, end
        return [item.speech_stopped(end), *self._conversation.add(item)]

    def _failed(self) -> list[Event]:
        """The events of an error; none if only a draft failed, because the utterance continues."""
        start = self._live.utterance_start
        at_hand = None if start is None else self._begin + start
        # What follows a cut may fail before it has an item.
        begun = self._last_end if self._item is None else self._item.start
        if at_hand == begun:
            return []
        events, item = self._item_at(begun)
        end = self._n_samples / SAMPLE_RATE if at_hand is None else at_hand
        return [*events, *self._ended(item, end), item.failed()]
