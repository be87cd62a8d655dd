"""What was said in a window, as tokens with timestamps: from the transcript or the teacher."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from baldwhisper_convert.data.prepared import PreparedWindow
from baldwhisper_convert.data.windows import Planned, Sound
from baldwhisper_convert.data.word_errors import words_wrong
from baldwhisper_convert.model.greedy import decode_greedy
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_mlx.config import TIME_PRECISION

_ROOM = 8
"""Tokens of the context that a label leaves for the start and the end."""


class Labeller(ABC):
    """Labels windows and remembers what it said, for the windows that follow.

    Args:
        teacher: the model that may be asked.
        prompts: its special tokens.
        max_wer: largest share of words in which the teacher may differ from the transcript.
    """

    def __init__(self, teacher: Whisper, prompts: Prompts, max_wer: float) -> None:
        self.teacher, self.prompts, self.max_wer = teacher, prompts, max_wer
        self.tokens: dict[int, tuple[int, ...]] = {}

    def label(
        self, sounds: Sequence[Sound], states: Tensor, mask: Tensor | None = None
    ) -> list[list[int] | None]:
        """Tokens of each window; none for silence, None where no good label was found.

        Args:
            sounds: the windows.
            states: of the teacher's encoder (B, T, d).
            mask: which of them are real, from `length_mask`.
        """
        labels = self._label(sounds, states, mask)
        for sound, tokens in zip(sounds, labels, strict=True):
            if tokens is not None:
                self.tokens[sound.planned.number] = tuple(tokens)
        return labels

    def resume(self, done: Sequence[PreparedWindow]) -> None:
        """Takes over the labels of windows made before."""
        self.tokens |= {window.number: window.tokens for window in done}

    def before(self, planned: Planned) -> tuple[int, ...]:
        """Text tokens of the window that a window follows; none if it follows none."""
        follows = planned.window.follows
        if follows is None:
            return ()
        tokens = self.tokens.get(planned.number - planned.number_in_pass + follows, ())
        return tuple(self.prompts.with_timestamps(tokens, False))

    @abstractmethod
    def _label(
        self, sounds: Sequence[Sound], states: Tensor, mask: Tensor | None
    ) -> list[list[int] | None]: ...


class TextLabels(Labeller):
    """The transcripts, each between the times of its utterance."""

    def _label(
        self, sounds: Sequence[Sound], states: Tensor, mask: Tensor | None
    ) -> list[list[int] | None]:
        return [self._transcript(sound) for sound in sounds]

    def _transcript(self, sound: Sound) -> list[int] | None:
        tokens: list[int] = []
        for placed, utterance in zip(sound.planned.window.items, sound.items, strict=True):
            times = [self.prompts.timestamp(t / sound.speed) for t in (placed.start, placed.end)]
            text = self.prompts.tokenizer.encode(f" {utterance.text}")
            tokens += [times[0], *text, times[1]]
        return tokens if len(tokens) < self.prompts.n_text_ctx - _ROOM else None


class TeacherLabels(Labeller):
    """The teacher's greedy output with timestamps, where its words agree with the transcript.

    It listens to the first pass; later ones, augmented, repeat what it heard, at their speed.
    """

    def _label(
        self, sounds: Sequence[Sound], states: Tensor, mask: Tensor | None
    ) -> list[list[int] | None]:
        labels: list[list[int] | None] = [None if sound.items else [] for sound in sounds]
        fresh = [i for i, s in enumerate(sounds) if s.items and s.planned.number_of_pass == 0]
        if fresh:
            own = None if mask is None else mask[fresh]
            rows = decode_greedy(self.teacher, states[fresh], own, self.prompts, timestamps=True)
            for i, row in zip(fresh, rows, strict=True):
                if self._agrees(row, sounds[i]):
                    labels[i] = row
                    # The same window of a later pass may be in this very batch.
                    self.tokens[sounds[i].planned.number] = tuple(row)
        for i, sound in enumerate(sounds):
            if sound.items and sound.planned.number_of_pass:
                labels[i] = self._again(sound)
        return labels

    def _agrees(self, heard: list[int], sound: Sound) -> bool:
        wrong, total = words_wrong(sound.text, self.prompts.tokenizer.decode(heard))
        # A label that reaches the limit of decoding was cut off, or repeats itself.
        fits = len(heard) < self.prompts.n_text_ctx // 2
        return fits and wrong <= self.max_wer * total

    def _again(self, sound: Sound) -> list[int] | None:
        """What was heard in the same window of the first pass."""
        begin = self.prompts.tokenizer.timestamp_begin
        heard = self.tokens.get(sound.planned.number_in_pass)
        if heard is None:
            return None
        return [
            self.prompts.timestamp((token - begin) * TIME_PRECISION / sound.speed)
            if token >= begin
            else token
            for token in heard
        ]
