"""A stage of a recipe and what it will work with, before anything is prepared or trained."""

from __future__ import annotations

from dataclasses import dataclass

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.data.prepared import Choice, Windows
from baldwhisper_convert.data.replay import Replay
from baldwhisper_convert.data.speech import Speech
from baldwhisper_convert.pipeline.model import Model
from baldwhisper_convert.pipeline.planned_data import PlannedData
from baldwhisper_convert.pipeline.recipe import StageRecipe


@dataclass(frozen=True)
class PlannedStage:
    """One stage and what it will work with."""

    number: int
    stage: StageRecipe
    model: Model
    """Its input; see `outline`."""
    teacher: Checkpoint
    speech: Speech | None
    dev: Speech | None
    result: Model
    """Its result; the input, if the stage has a problem."""

    @property
    def own(self) -> list[tuple[PlannedData, Checkpoint]]:
        """The data sets that it trains, measures and evaluates on, and the teacher of each."""
        return [(part, self.teacher) for s in (self.speech, self.dev) if s for part in own_parts(s)]

    @property
    def replayed(self) -> list[tuple[PlannedData, Checkpoint]]:
        """The data sets that it replays, and the teacher of each."""
        if self.speech is None or self.speech.replay is None:
            return []
        assert isinstance(self.speech.windows, Replay)
        return [
            (part, self.speech.replay.checkpoint) for part in _planned(self.speech.windows.other)
        ]

    @property
    def sets(self) -> list[tuple[PlannedData, Checkpoint]]:
        """All data sets that it reads, and the teacher of each."""
        return [*self.own, *self.replayed]


def prepared_once(data: PlannedData, teacher: Checkpoint) -> tuple[str, int]:
    """Equal for data that is prepared once only, though several stages read it."""
    return data.folder.name, id(teacher) if data.by_teacher else 0


def own_parts(speech: Speech) -> list[PlannedData]:
    """The data sets of planned speech, without those that are replayed."""
    windows = speech.windows
    return _planned(windows.main if isinstance(windows, Replay) else windows)


def _planned(windows: Windows) -> list[PlannedData]:
    assert isinstance(windows, Choice)
    return [part for part in windows.parts if isinstance(part, PlannedData)]
