"""Prepared data as it will be: the windows that `prepare` plans, without their features.

Durations come from the headers of the files and tokens from the transcripts, so a data set of
hours is planned in seconds. A recipe is checked with it, and a dry run measures with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from baldwhisper_convert.data.clips import Clips, usable_seconds
from baldwhisper_convert.data.labels import transcript_tokens
from baldwhisper_convert.data.prepare_settings import PrepareSettings
from baldwhisper_convert.data.prepared import (
    MEL,
    SILENCE,
    SPEECH,
    STATES,
    Prepared,
    PreparedWindow,
)
from baldwhisper_convert.data.utterances import BadRows, Utterance
from baldwhisper_convert.data.windows import Window, kept_positions, plan_passes
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_mlx.config import FRAMES_PER_POSITION, SAMPLE_RATE

MOST_STREAMED = 64
"""Rows of a stream that are looked at; all of them would be downloaded."""


@dataclass(frozen=True)
class PlannedSpeech:
    """The utterances of a data set that can be used."""

    clips: Clips
    bad: BadRows
    """The rows that cannot be used."""
    whole: bool
    """False if only the beginning of a stream was read."""


class PlannedData(Prepared):
    """Windows in the form of `Prepared`, with random features of the right shapes.

    Args:
        name: of the data in the recipe.
        speech: its utterances.
        settings: how it will be prepared.
        prompts: special tokens of the teacher's vocabulary, and the language.
        width: of the features.
    """

    def __init__(
        self,
        name: str,
        speech: PlannedSpeech,
        settings: PrepareSettings,
        prompts: Prompts,
        width: int,
    ) -> None:
        self.folder = Path(name)
        self.speech = speech
        self.is_mel, self.by_teacher = settings.features == MEL, settings.by_teacher
        self.width = width
        plain = dataclasses.asdict(dataclasses.replace(settings, language=prompts.language))
        self.settings = {"key": f"planned-{name}", "report": {"settings": plain}}
        self.windows = list(_windows(speech, settings, prompts))

    @property
    def n_bytes(self) -> int:
        """Size of its features on disk."""
        return 2 * sum(self.size(window) for window in self.windows)

    def features(self, index: int) -> torch.Tensor:
        """Random numbers in the shape of `Prepared.features`."""
        positions = self.windows[index].positions
        generator = torch.Generator().manual_seed(index)
        if self.is_mel:
            shape = (self.width, FRAMES_PER_POSITION * positions)
        else:
            shape = (positions, self.width)
        return torch.randn(shape, generator=generator)


def read_speech(
    utterances: Iterable[Utterance],
    prompts: Prompts,
    bad: BadRows,
    *,
    name: str,
    whole: bool,
    by_turns: bool = False,
) -> PlannedSpeech:
    """Reads the list of a data set and the headers of its files.

    Args:
        utterances: of the data set, see `Sources.reading`.
        prompts: special tokens of the teacher's vocabulary.
        bad: counts the utterances that cannot be used.
        name: of the source, for the progress bar.
        whole: whether these are all.
        by_turns: whether labels need turns.

    Raises:
        FileNotFoundError: no such source.
        ValueError: it cannot be read, or a column is missing.
    """

    def seconds(utterance: Utterance) -> float | None:
        return usable_seconds(utterance, prompts, bad, by_turns)

    what = f"check the recordings of {name}"
    return PlannedSpeech(Clips(utterances, seconds, hashed=False, what=what), bad, whole)


def width_of(settings: PrepareSettings, n_audio_state: int, n_mels: int) -> int:
    """Width of the features that are stored."""
    return n_audio_state if settings.features == STATES else n_mels


def _windows(
    speech: PlannedSpeech, settings: PrepareSettings, prompts: Prompts
) -> Iterator[PreparedWindow]:
    """The windows of all passes, as `prepare` plans them."""
    clips = speech.clips
    groups = [clip.group for clip in clips.kept]
    for planned in plan_passes(clips.durations, groups, settings.windows, settings.pass_seeds):
        window = planned.window
        items = [clips.kept[item.utterance] for item in window.items]
        yield PreparedWindow(
            kind=SPEECH if items else SILENCE,
            positions=kept_positions(
                round(window.duration * SAMPLE_RATE),
                full=window.full,
                dynamic=settings.audio_context == "dynamic",
                margin=settings.windows.margin,
            ),
            tokens=_tokens(window, items, settings, prompts),
            prompt=(),
            text=" ".join(item.text for item in items),
            duration=window.duration,
            source=items[0].name if items else SILENCE,
            number=planned.number,
        )


def _tokens(
    window: Window, items: Sequence[Utterance], settings: PrepareSettings, prompts: Prompts
) -> tuple[int, ...]:
    if settings.labels == "none":
        return ()
    said = list(zip(window.items, items, strict=True))
    return tuple(transcript_tokens(said, prompts, by_turns=settings.by_turns))
