"""Replay: a share of every batch is speech in another language, so that a model does not forget it.

The other language keeps the predictions of its own teacher, see training/replay.py. Which windows a
batch has depends on the seed and the number of the step only, as without replay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from baldwhisper_convert.data.prepared import PreparedWindow, Windows


def without_replay(windows: Windows) -> Windows:
    """The windows that are trained on, without those that are replayed."""
    return windows.main if isinstance(windows, Replay) else windows


@dataclass(frozen=True)
class Replay:
    """Windows of a training, and behind them those of another language.

    Args:
        main: what is trained on.
        other: what is replayed.
        share: of the windows of every batch that are replayed, above 0 and below 1.

    Raises:
        ValueError: another share; data that is not log-mel, because the encoder states of one
            model are not those of another; replayed speech without text; or data of different
            audio contexts.
    """

    main: Windows
    other: Windows
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"replay: the share must be above 0 and below 1, not {self.share:g}")
        if not (self.main.is_mel and self.other.is_mel):
            raise ValueError(
                "replay needs log-mel, because the states of one encoder are not those of another; "
                'prepare all data of the stage with features = "mel", or give replay.stages = '
                '["finetune"] and the speech of both languages as the data of the other stages'
            )
        if not self.other.labelled:
            raise ValueError(
                "replay needs text, for the predictions that are kept; prepare the speech that is "
                'replayed with labels = "text" or "teacher"'
            )
        if self.main.audio_context[0] != self.other.audio_context[0]:
            raise ValueError(
                "replay: the data of both languages must have the same audio_context, such as "
                '"dynamic" (with windows.full = 0)'
            )

    @cached_property
    def windows(self) -> Sequence[PreparedWindow]:
        """All windows, those that are replayed last."""
        return [*self.main.windows, *self.other.windows]

    @property
    def is_mel(self) -> bool:
        """Always."""
        return True

    @property
    def labelled(self) -> bool:
        """Whether the speech that is trained on has text."""
        return self.main.labelled

    @property
    def language(self) -> str:
        """Language of the speech that is trained on."""
        return self.main.language

    @cached_property
    def languages(self) -> Sequence[str]:
        """Code of the language of each window."""
        return [*self.main.languages, *self.other.languages]

    @property
    def audio_context(self) -> tuple[str, int]:
        """As `Prepared.audio_context`."""
        return self.main.audio_context

    def features(self, index: int) -> torch.Tensor:
        """As `Prepared.features`."""
        first = len(self.main.windows)
        return self.main.features(index) if index < first else self.other.features(index - first)

    def is_replayed(self, index: int) -> bool:
        """Whether a window is of the other language."""
        return index >= len(self.main.windows)

    def rows(self, size: int) -> int:
        """Windows of the other language in a batch of `size`.

        Raises:
            ValueError: a batch with none of one of the two.
        """
        count = round(self.share * size)
        if not 0 < count < size:
            raise ValueError(
                f"replay: a share of {self.share:g} of a batch of {size} is {count} windows; "
                "change replay.share or training.batch_size"
            )
        return count
