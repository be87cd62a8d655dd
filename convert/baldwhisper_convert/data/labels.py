"""Labels of windows: tokens with timestamps, from the transcripts or from the teacher."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from baldwhisper_convert.data.prepared import PreparedWindow
from baldwhisper_convert.data.turns import turn_tokens, turns_fault
from baldwhisper_convert.data.utterances import Utterance
from baldwhisper_convert.data.windows import Placed, Planned, Sound
from baldwhisper_convert.data.word_errors import words_wrong
from baldwhisper_convert.model.greedy import decode_greedy
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_mlx.config import TIME_PRECISION

_RESERVED = 8
"""Tokens of the context that are reserved for the start sequence and the end token."""


def text_fault(utterance: Utterance, prompts: Prompts, by_turns: bool) -> str:
    """Why an utterance's text cannot be a label; empty if it can."""
    if len(prompts.tokenizer.encode(utterance.text)) > prompts.n_text_ctx // 2:
        return "with a text longer than the context"
    return turns_fault(utterance.turns, prompts) if by_turns else ""


def transcript_tokens(
    said: Sequence[tuple[Placed, Utterance]],
    prompts: Prompts,
    speed: float = 1.0,
    *,
    by_turns: bool = False,
) -> list[int]:
    """The transcripts of a window's utterances, each between its times.

    Args:
        said: utterances and their places in the window.
        prompts: special tokens, and the language of the window.
        speed: how many times as fast as planned the window is played.
        by_turns: a segment for each turn of an utterance, see `turn_tokens`.
    """
    if by_turns:
        return turn_tokens([(placed.start, item.turns) for placed, item in said], prompts, speed)
    tokens: list[int] = []
    for placed, item in said:
        times = [prompts.timestamp(time / speed) for time in (placed.start, placed.end)]
        tokens += [times[0], *prompts.tokenizer.encode(f" {item.text}"), times[1]]
    return tokens


class Labeller(ABC):
    """Labels windows and stores the labels, as prompts of the windows that follow.

    Args:
        teacher: the model whose output may be the label.
        prompts: special tokens of its vocabulary.
        max_wer: largest word error rate of the teacher's output against the transcript.
        by_turns: whether a transcript has a language token wherever the language changes.
    """

    def __init__(
        self, teacher: Whisper, prompts: Prompts, max_wer: float, by_turns: bool = False
    ) -> None:
        self.teacher, self.prompts, self.max_wer = teacher, prompts, max_wer
        self.by_turns = by_turns
        self.tokens: dict[int, tuple[int, ...]] = {}

    def label(
        self, sounds: Sequence[Sound], states: Tensor, mask: Tensor | None = None
    ) -> list[list[int] | None]:
        """Labels each window with tokens.

        Args:
            sounds: the windows.
            states: of the teacher's encoder (B, T, d).
            mask: which of them are real, from `length_mask`.

        Returns:
            Tokens with timestamps; an empty list for silence, None where no label is usable.
        """
        labels = self._label(sounds, states, mask)
        for sound, tokens in zip(sounds, labels, strict=True):
            if tokens is not None:
                self.tokens[sound.planned.number] = tuple(tokens)
        return labels

    def resume(self, done: Sequence[PreparedWindow]) -> None:
        """Loads the labels of the windows that an interrupted run has written."""
        self.tokens |= {window.number: window.tokens for window in done}

    def before(self, planned: Planned) -> tuple[int, ...]:
        """Text tokens of the window that a window continues; empty if it continues none."""
        follows = planned.window.follows
        if follows is None:
            return ()
        tokens = self.tokens.get(planned.number - planned.number_in_pass + follows, ())
        return tuple(self.prompts.with_timestamps(tokens, False))

    @abstractmethod
    def _label(
        self, sounds: Sequence[Sound], states: Tensor, mask: Tensor | None
    ) -> list[list[int] | None]:
        """As `label`, without storing the labels."""


class TextLabels(Labeller):
    """Labels with the transcripts, each between the times of its utterance."""

    def _label(
        self, sounds: Sequence[Sound], states: Tensor, mask: Tensor | None
    ) -> list[list[int] | None]:
        return [self._transcript(sound) for sound in sounds]

    def _transcript(self, sound: Sound) -> list[int] | None:
        said = list(zip(sound.planned.window.items, sound.items, strict=True))
        tokens = transcript_tokens(said, self.prompts, sound.speed, by_turns=self.by_turns)
        return tokens if len(tokens) < self.prompts.n_text_ctx - _RESERVED else None


class NoLabels(Labeller):
    """No text: for what is learned from the audio alone."""

    def _label(
        self, sounds: Sequence[Sound], states: Tensor, mask: Tensor | None
    ) -> list[list[int] | None]:
        return [[] for _ in sounds]


class TeacherLabels(Labeller):
    """Labels with the teacher's greedy output where its words agree with the transcript, if any.

    The teacher transcribes the first pass. Windows of later passes, which are augmented, get the
    label of the same window in the first pass, with timestamps scaled by their speed.
    """

    def _label(
        self, sounds: Sequence[Sound], states: Tensor, mask: Tensor | None
    ) -> list[list[int] | None]:
        labels: list[list[int] | None] = [None if sound.items else [] for sound in sounds]
        fresh = [i for i, s in enumerate(sounds) if s.items and s.planned.number_of_pass == 0]
        if fresh:
            fresh_mask = None if mask is None else mask[fresh]
            rows = decode_greedy(
                self.teacher, states[fresh], fresh_mask, self.prompts, timestamps=True
            )
            for i, row in zip(fresh, rows, strict=True):
                if self._agrees(row, sounds[i]):
                    labels[i] = row
                    # The same window of a later pass may be in this batch too.
                    self.tokens[sounds[i].planned.number] = tuple(row)
        for i, sound in enumerate(sounds):
            if sound.items and sound.planned.number_of_pass:
                labels[i] = self._label_of_first_pass(sound)
        return labels

    def _agrees(self, tokens: list[int], sound: Sound) -> bool:
        """Whether the teacher's output is complete and close enough to the transcript, if any."""
        wrong, total = words_wrong(sound.text, self.prompts.tokenizer.decode(tokens))
        # An output that reaches the limit of decoding was cut off, or is a repetition loop.
        fits = len(tokens) < self.prompts.n_text_ctx // 2
        # Without a transcript, as of speech that is only replayed, all that is complete is taken.
        return fits and (not sound.text or wrong <= self.max_wer * total)

    def _label_of_first_pass(self, sound: Sound) -> list[int] | None:
        """The label of the same window in the first pass, its timestamps scaled by the speed."""
        begin = self.prompts.tokenizer.timestamp_begin
        tokens = self.tokens.get(sound.planned.number_in_pass)
        if tokens is None:
            return None
        return [
            self.prompts.timestamp((token - begin) * TIME_PRECISION / sound.speed)
            if token >= begin
            else token
            for token in tokens
        ]


LABELLERS: dict[str, type[Labeller]] = {
    "text": TextLabels,
    "teacher": TeacherLabels,
    "none": NoLabels,
}
"""By the setting `labels`."""
