"""The usable utterances of a set, without their audio where that is in memory.

A Hub data set, parquet or tar files give the audio of a row as bytes. Thousands of hours of them do
not fit in memory, and a stream has no random access. So the rows are read twice, in order: once to
plan the windows, and once, or once for each pass over the speech, to make them.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from baldwhisper_convert.data.audio_list import AudioFingerprint
from baldwhisper_convert.data.labels import text_fault
from baldwhisper_convert.data.utterances import BadRows, Utterance
from baldwhisper_convert.data.windows import WINDOW_SECONDS
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.progress import progress_bar
from baldwhisper_mlx.audio.speech_columns import Say, say_nothing


class Reading:
    """Utterances that can be read again: each iteration reads the data from the start.

    Args:
        read: reads all utterances; its keywords `bad` and `say` are those of `read_utterances`.
        bad: the count of the first iteration, in which all bad rows are found.
        say: receives what the first iteration reports.
    """

    def __init__(
        self,
        read: Callable[..., Iterator[Utterance]],
        bad: BadRows,
        say: Say = say_nothing,
    ) -> None:
        self._read, self._bad, self._say = read, bad, say

    def __iter__(self) -> Iterator[Utterance]:
        bad, self._bad = self._bad, BadRows(allowed=True)
        say, self._say = self._say, say_nothing
        return self._read(bad=bad, say=say)


def usable_seconds(
    utterance: Utterance, prompts: Prompts, bad: BadRows, by_turns: bool = False
) -> float | None:
    """Duration of an utterance in seconds; None, and counted in `bad`, if it cannot be used.

    Args:
        utterance: of which the header is read.
        prompts: special tokens of the vocabulary.
        bad: counts what cannot be used.
        by_turns: whether its label needs turns.
    """
    if fault := text_fault(utterance, prompts, by_turns):
        bad.add(fault, utterance.name)
        return None
    try:
        seconds = utterance.seconds()
    except (ValueError, OSError) as error:
        bad.add("with unreadable audio", str(error))
        return None
    if not 0 < seconds <= WINDOW_SECONDS:
        bad.add("not between 0 and 30 s long", utterance.name)
        return None
    return seconds


class Clips:
    """The usable utterances, by number; audio from memory is read again when it is asked for.

    Args:
        utterances: can be iterated more than once, with the same result, such as `Reading`.
        seconds: the duration of an utterance, or None if it cannot be used.
        hashed: whether to read the audio for its fingerprint, which is empty otherwise.
        what: is done, for the progress bar.
        quiet: whether to show no progress.
    """

    def __init__(
        self,
        utterances: Iterable[Utterance],
        seconds: Callable[[Utterance], float | None],
        *,
        hashed: bool = True,
        what: str = "read the speech",
        quiet: bool = False,
    ) -> None:
        self._utterances = utterances
        self.kept: list[Utterance] = []
        """Without audio that is in memory."""
        self.durations: list[float] = []
        """Of each in seconds."""
        self._rows: list[int] = []
        with progress_bar(None, what, "file", disable=quiet) as bar:
            usable = self._list(seconds, bar)
            self.fingerprint = AudioFingerprint.of(usable if hashed else ())
            """Of the audio of all."""
            deque(usable, maxlen=0)
        self._stream: Iterator[Utterance] = iter(())
        self._next_row = 0

    def _list(self, seconds: Callable[[Utterance], float | None], bar: Any) -> Iterator[Utterance]:
        """Yields the usable utterances, and keeps of them what is small."""
        for row, utterance in enumerate(self._utterances):
            bar.update()
            duration = seconds(utterance)
            if duration is None:
                continue
            in_memory = isinstance(utterance.audio, bytes)
            self.kept.append(dataclasses.replace(utterance, audio=b"") if in_memory else utterance)
            self.durations.append(duration)
            self._rows.append(row)
            yield utterance

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, number: int) -> Utterance:
        """An utterance with its audio; cheapest in rising order.

        Raises:
            ValueError: the data has changed since it was listed.
        """
        kept = self.kept[number]
        if not isinstance(kept.audio, bytes):
            return kept
        row = self._rows[number]
        if row < self._next_row or not self._next_row:
            self._stream, self._next_row = iter(self._utterances), 0
        utterance = None
        while self._next_row <= row:
            utterance = next(self._stream, None)
            self._next_row += 1
        if utterance is None or (utterance.name, utterance.text) != (kept.name, kept.text):
            raise ValueError(
                f"{kept.name}: not found when the data was read again; it has changed meanwhile, "
                "or its order is random. Prepare a copy that does not change"
            )
        return utterance
