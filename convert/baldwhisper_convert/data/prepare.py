"""The stage before all others: labelled speech to prepared windows.

Utterances are joined to windows, encoded once by the frozen encoder (or kept as log-mel, if
the encoder is to be trained) and labelled: with their transcripts, or with what the teacher
hears, if its words agree with the transcript well enough.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint, fingerprint
from baldwhisper_convert.data.augment import Augmentation, augment
from baldwhisper_convert.data.features import Ear
from baldwhisper_convert.data.labels import Labeller, TeacherLabels, TextLabels
from baldwhisper_convert.data.prepared import (
    MEL,
    SILENCE,
    SPEECH,
    STATES,
    Prepared,
    PreparedWindow,
)
from baldwhisper_convert.data.prepared_writer import PreparedWriter
from baldwhisper_convert.data.utterances import BadRows, Utterance
from baldwhisper_convert.data.windows import (
    WINDOW_SECONDS,
    Planned,
    Sound,
    WindowSettings,
    join,
    plan_windows,
    silence,
)
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper, length_mask
from baldwhisper_mlx.config import SAMPLE_RATE

Labels = Literal["text", "teacher"]
Features = Literal["states", "mel"]
Context = Literal["full", "dynamic"]


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """What becomes of the speech.

    Raises:
        ValueError: a value out of range.
    """

    labels: Labels = "text"
    """The transcripts, or the teacher's own output (sequence-level distillation)."""
    features: Features = "states"
    """Encoder states, for a frozen encoder, or log-mel."""
    audio_context: Context = "full"
    """`full`: the encoder hears 30 s, and what follows a clip may be cut off its output.
    `dynamic`: it hears the clip's own frames and `windows.margin`, in the runtime's buckets; a
    model trained on that is a dynamic one, see `ModelConfig.audio_context`."""
    max_wer: float = 0.3
    """Windows whose teacher labels differ more from the transcript are left out."""
    passes: int = 1
    """Times the speech is used, each with windows of its own; from the second on, augmented."""
    language: str = "en"
    """Of the speech, code or name."""
    seed: int = 0
    windows: WindowSettings = field(default_factory=WindowSettings)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.labels not in get_args(Labels):
            raise ValueError(f"labels must be text or teacher, not {self.labels!r}")
        if self.features not in get_args(Features):
            raise ValueError(f"features must be states or mel, not {self.features!r}")
        if self.audio_context not in get_args(Context):
            raise ValueError(f"audio_context must be full or dynamic, not {self.audio_context!r}")
        if self.audio_context == "dynamic" and self.windows.full:
            raise ValueError("a dynamic audio context has no full windows: set windows.full to 0")
        if self.passes < 1 or self.max_wer < 0:
            raise ValueError("passes must be at least 1 and max_wer not negative")


def prepare(
    checkpoint: Checkpoint,
    utterances: Sequence[Utterance],
    settings: PrepareSettings,
    folder: Path,
    *,
    bad: BadRows | None = None,
    batch_size: int = 8,
    device: str = "cpu",
) -> Prepared:
    """Prepares speech, or goes on where an interrupted run stopped.

    Args:
        checkpoint: the teacher; its encoder makes the states.
        utterances: the speech, neighbours in order.
        settings: what becomes of it.
        folder: where the prepared data goes.
        bad: counts what cannot be used.
        batch_size: windows encoded and labelled together.
        device: torch device.

    Raises:
        FileExistsError: the folder holds data of other settings.
        ValueError: an utterance is bad and `bad` does not allow it, or none can be used.
    """
    bad = bad or BadRows()
    maker = _Maker(checkpoint, settings, device, bad)
    # A language's name and its code are the same settings.
    settings = dataclasses.replace(settings, language=maker.prompts.language)
    usable = [(u, d) for u in utterances if (d := maker.usable(u)) is not None]
    if not usable:
        raise ValueError(f"{folder}: no speech to prepare; bad utterances: {bad}")
    kept = [utterance for utterance, _ in usable]
    plan = maker.plan([duration for _, duration in usable], [u.group for u in kept])
    writer = PreparedWriter(
        folder, key=_key(checkpoint, kept, settings), features=settings.features, width=maker.width
    )
    if not writer.complete:
        with writer:
            maker.labels.resume(writer.done)
            start = max((window.number for window in writer.done), default=-1) + 1
            # Whole batches again: which windows are decoded together may change a rounding.
            begun = start // batch_size * batch_size
            with tqdm(total=len(plan), initial=begun, desc="prepare", unit="window") as progress:
                for first in range(begun, len(plan), batch_size):
                    part = plan[first : first + batch_size]
                    for window, features in maker.make(part, kept):
                        if window.number >= start:
                            writer.add(window, features)
                    progress.update(len(part))
            dropped = len(plan) - writer.count
            writer.finish(bad=str(bad), dropped=dropped, settings=_plain(settings))
    return Prepared(folder)


class _Maker:
    """Plans become windows: audio, features, labels."""

    def __init__(
        self, checkpoint: Checkpoint, settings: PrepareSettings, device: str, bad: BadRows
    ) -> None:
        self.settings, self.bad = settings, bad
        _check_context(checkpoint, settings)
        self.device = torch.device(device)
        self.model = Whisper.from_checkpoint(checkpoint).to(self.device)
        self.prompts = Prompts.of(checkpoint, settings.language)
        kind = TeacherLabels if settings.labels == "teacher" else TextLabels
        self.labels: Labeller = kind(self.model, self.prompts, settings.max_wer)
        self.ear = Ear(
            self.model,
            dynamic=settings.audio_context == "dynamic",
            margin=settings.windows.margin,
            device=self.device,
        )
        dims = checkpoint.dims
        self.width = dims.n_audio_state if settings.features == STATES else dims.n_mels

    def usable(self, utterance: Utterance) -> float | None:
        """Seconds of an utterance; None if it cannot be used, which is then counted."""
        tokens = self.prompts.tokenizer.encode(utterance.text)
        if len(tokens) > self.prompts.n_text_ctx // 2:
            self.bad.add("with a text longer than the context", utterance.name)
            return None
        try:
            seconds = utterance.seconds()
        except (ValueError, OSError) as error:
            self.bad.add("with unreadable audio", str(error))
            return None
        if not 0 < seconds <= WINDOW_SECONDS:
            self.bad.add("not between 0 and 30 s long", utterance.name)
            return None
        return seconds

    def plan(self, durations: Sequence[float], groups: Sequence[str]) -> list[Planned]:
        """The windows of all passes, in the order they are made."""
        settings, plan = self.settings, list[Planned]()
        for number in range(settings.passes):
            # The teacher labels the first pass only, so the others need the same windows.
            seed = settings.seed + (number if settings.labels == "text" else 0)
            first = len(plan)
            windows = plan_windows(durations, groups, settings.windows, seed)
            plan += [Planned(first + i, i, number, window) for i, window in enumerate(windows)]
        return plan

    def make(
        self, planned: Sequence[Planned], utterances: Sequence[Utterance]
    ) -> Iterator[tuple[PreparedWindow, Tensor]]:
        """Makes windows; those whose labels are too far off are left out."""
        sounds = [sound for item in planned if (sound := self._sound(item, utterances))]
        if not sounds:
            return
        mel = self.ear.log_mel(sounds)
        positions = [self.ear.positions(sound) for sound in sounds]
        is_mel = self.settings.features == MEL
        with torch.no_grad():
            states = mel if is_mel else self.ear.encode(mel, positions)
            heard, mask = self._heard(sounds, mel, states, positions)
        for row, (sound, kept, tokens) in enumerate(
            zip(sounds, positions, self.labels.label(sounds, heard, mask), strict=True)
        ):
            if tokens is None:
                continue
            window = PreparedWindow(
                kind=SPEECH if sound.items else SILENCE,
                positions=kept,
                tokens=tuple(tokens),
                prompt=self.labels.before(sound.planned),
                text=sound.text,
                duration=round(len(sound.samples) / SAMPLE_RATE, 3),
                source=sound.items[0].name if sound.items else SILENCE,
                number=sound.planned.number,
            )
            yield window, mel[row, :, : 2 * kept] if is_mel else states[row, :kept]

    def _heard(
        self, sounds: Sequence[Sound], mel: Tensor, states: Tensor, positions: Sequence[int]
    ) -> tuple[Tensor, Tensor | None]:
        """What the teacher labels by: encoder states and their mask; anything if it need not."""
        listens = any(sound.planned.number_of_pass == 0 for sound in sounds)
        if self.settings.labels != "teacher" or not listens:
            return states, None
        if self.settings.audio_context == "dynamic":
            own = self.ear.encode(mel, positions) if self.settings.features == MEL else states
            return own, length_mask(torch.tensor(positions, device=self.device), own.shape[1])
        # In a single window, zeros after a clip make the teacher end early.
        return self.ear.encode(self.ear.log_mel(sounds, silence=True), positions), None

    def _sound(self, planned: Planned, utterances: Sequence[Utterance]) -> Sound | None:
        """The audio of a window; None if an utterance cannot be decoded."""
        seed = self.settings.seed + planned.number
        if not planned.window.items:
            return Sound(planned, [], silence(seed))
        items = [utterances[item.utterance] for item in planned.window.items]
        parts = []
        for utterance in items:
            try:
                parts.append(utterance.samples())
            except (ValueError, OSError) as error:
                self.bad.add("with unreadable audio", str(error))
                return None
        samples, speed = join(planned.window, parts), 1.0
        if planned.number_of_pass:
            rng = np.random.default_rng(seed)
            samples, speed = augment(samples, self.settings.augmentation, rng)
        return Sound(planned, items, samples[: round(WINDOW_SECONDS * SAMPLE_RATE)], speed)


def _check_context(checkpoint: Checkpoint, settings: PrepareSettings) -> None:
    """Refuses encoder states that the teacher's encoder was not trained to give.

    Raises:
        ValueError: says which setting does not go with the checkpoint.
    """
    if settings.features != STATES and settings.labels != "teacher":
        return  # the model is to be trained for what it hears now
    if (checkpoint.audio_context == "dynamic") == (settings.audio_context == "dynamic"):
        return
    raise ValueError(
        f"the teacher was trained for a {checkpoint.audio_context} audio context and cannot be "
        f"listened to in a {settings.audio_context} one; set audio_context, or finetune it on "
        "log-mel of the other first"
    )


def _key(checkpoint: Checkpoint, utterances: Sequence[Utterance], settings: PrepareSettings) -> str:
    """What the prepared data depends on, as 16 hexadecimal digits."""
    digest = hashlib.sha256(b"log-mel 3")
    if settings.features == STATES or settings.labels == "teacher":
        digest.update(fingerprint(checkpoint).encode())
    digest.update(json.dumps(_plain(settings), sort_keys=True).encode())
    for utterance in utterances:
        digest.update(f"{Path(utterance.name).name}\n{utterance.text}\n".encode())
    return digest.hexdigest()[:16]


def _plain(settings: PrepareSettings) -> dict[str, Any]:
    return dataclasses.asdict(settings)
