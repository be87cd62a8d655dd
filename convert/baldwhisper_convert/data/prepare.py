"""Data preparation: from labelled speech to prepared windows.

Utterances are joined to windows, encoded once by the frozen encoder (or stored as log-mel, for one
that is trained) and labelled with transcripts, or the teacher's output where it is close to them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.data.augment import augment
from baldwhisper_convert.data.clips import Clips, usable_seconds
from baldwhisper_convert.data.features import AudioFeatures
from baldwhisper_convert.data.labels import LABELLERS
from baldwhisper_convert.data.pieces import PieceWork, Shard, Skip, cut
from baldwhisper_convert.data.prepare_settings import PrepareSettings, prepared_key
from baldwhisper_convert.data.prepared import (
    MEL,
    SILENCE,
    SPEECH,
    STATES,
    Prepared,
    PreparedWindow,
)
from baldwhisper_convert.data.prepared_writer import PreparedWriter
from baldwhisper_convert.data.recordings import read_noise
from baldwhisper_convert.data.suppressed import SuppressedLabels
from baldwhisper_convert.data.utterances import BadRows, Utterance
from baldwhisper_convert.data.windows import (
    WINDOW_SECONDS,
    Planned,
    Sound,
    join,
    plan_passes,
    silence,
)
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper, length_mask
from baldwhisper_convert.processes import Processes
from baldwhisper_mlx.config import SAMPLE_RATE


def prepare(
    checkpoint: Checkpoint,
    utterances: Iterable[Utterance],
    settings: PrepareSettings,
    folder: Path,
    *,
    bad: BadRows | None = None,
    batch_size: int = 8,
    device: str = "cpu",
) -> Prepared:
    """Prepares speech, or resumes an interrupted run.

    Several processes that torchrun started share the work; the result is the same, to the byte.

    Args:
        checkpoint: the teacher; its encoder computes the states.
        utterances: the speech, in the order of the recordings; audio in memory is only kept there
            while a window is made of it, if they can be iterated again, see `Reading`.
        settings: how to prepare it.
        folder: for the prepared data.
        bad: counts utterances that cannot be used.
        batch_size: windows encoded and labelled together.
        device: torch device, or `auto` for Accelerate's choice.

    Raises:
        FileExistsError: the folder holds data of other settings or audio, or something else.
        BlockingIOError: another process prepares data in the folder.
        ValueError: an utterance is bad and `bad` does not allow it, or all are bad.
    """
    processes = Processes.start()
    job = _Job(checkpoint, utterances, settings, folder, bad or BadRows(), batch_size, device)
    if processes.count > 1:
        job.pieces.work(Shard().among(processes.rank, processes.count))
        processes.wait()
    if processes.main:
        job.pieces.finish(job.report)
        job.audio.write(folder)
    processes.wait()
    return Prepared(folder)


def prepare_shard(
    checkpoint: Checkpoint,
    utterances: Iterable[Utterance],
    settings: PrepareSettings,
    folder: Path,
    shard: Shard,
    *,
    bad: BadRows | None = None,
    batch_size: int = 8,
    device: str = "cpu",
) -> None:
    """Prepares one of several shards of a set; arguments and errors as of `prepare`.

    Machines that share a disk prepare one each in the same folder; `prepare` completes the set.
    """
    processes = Processes.start()
    job = _Job(checkpoint, utterances, settings, folder, bad or BadRows(), batch_size, device)
    job.pieces.work(shard.among(processes.rank, processes.count))
    processes.wait()


class _Job:
    """One set of data to prepare: its plan, and what it depends on."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        utterances: Iterable[Utterance],
        settings: PrepareSettings,
        folder: Path,
        bad: BadRows,
        batch_size: int,
        device: str,
    ) -> None:
        builder = _WindowBuilder(checkpoint, settings, device, bad)
        # The key must not depend on whether the language is given by name or code.
        self.settings = dataclasses.replace(settings, language=builder.prompts.language)
        self.bad = bad
        quiet = not Processes.start().main
        clips = builder.clips = Clips(utterances, builder.usable, quiet=quiet)
        if not len(clips):
            raise ValueError(f"{folder}: no usable speech to prepare; bad utterances: {bad}")
        self.plan = builder.plan(clips.durations, [clip.group for clip in clips.kept])
        self.audio = clips.fingerprint
        identity = {
            "key": prepared_key(checkpoint, clips.kept, self.settings),
            "audio": self.audio,
            "features": settings.features,
            "width": builder.width,
            "settings": dataclasses.asdict(self.settings),
        }
        pieces = cut(self.plan, batch_size)
        self.pieces = PieceWork(folder, pieces, builder, identity, quiet=quiet)

    def report(self, writer: PreparedWriter) -> dict[str, Any]:
        """How the finished set was made, and what it lacks."""
        for _, reason, what in writer.skipped:
            self.bad.add(reason, what)
        plain, dropped = dataclasses.asdict(self.settings), len(self.plan) - writer.count
        return {"bad": str(self.bad), "dropped": dropped, "settings": plain}


class _WindowBuilder:
    """Builds windows from their plans: audio, features, labels."""

    def __init__(
        self, checkpoint: Checkpoint, settings: PrepareSettings, device: str, bad: BadRows
    ) -> None:
        self.settings, self.bad = settings, bad
        check_context(checkpoint, settings)
        self.recordings = read_noise(settings.augmentation.recordings)
        self.device = Processes.start().device_called(device)
        self.clips: Clips | None = None
        self.model = Whisper.from_checkpoint(checkpoint).to(self.device)
        self.prompts = Prompts.of(checkpoint, settings.language)
        self.suppressed = SuppressedLabels(self.prompts)
        kind = LABELLERS[settings.labels]
        self.labels = kind(self.model, self.prompts, settings.max_wer, settings.by_turns)
        self.labels_in_full = checkpoint.audio_context != "dynamic"
        self.audio_features = AudioFeatures(
            self.model,
            dynamic=settings.audio_context == "dynamic",
            margin=settings.windows.margin,
            device=self.device,
        )
        dims = checkpoint.dims
        self.width = dims.n_audio_state if settings.features == STATES else dims.n_mels

    def usable(self, utterance: Utterance) -> float | None:
        """Duration of an utterance in seconds; None, and counted, if it cannot be used."""
        seconds = usable_seconds(utterance, self.prompts, self.bad, self.settings.by_turns)
        if seconds is not None and self.settings.labels == "text":
            self.suppressed.add(utterance.text)
        return seconds

    def plan(self, durations: Sequence[float], groups: Sequence[str]) -> list[Planned]:
        """Plans the windows of all passes, in the order they are built."""
        self.suppressed.warn()
        return plan_passes(durations, groups, self.settings.windows, self.settings.pass_seeds)

    def build(
        self, planned: Sequence[Planned], skip: Skip
    ) -> Iterator[tuple[PreparedWindow, Tensor]]:
        """Builds windows; those without a usable label are left out.

        Args:
            planned: a batch.
            skip: called for windows with audio that cannot be decoded.
        """
        sounds = [sound for item in planned if (sound := self._sound(item, skip))]
        if not sounds:
            return
        mel = self.audio_features.log_mel(sounds)
        positions = [self.audio_features.positions(sound) for sound in sounds]
        is_mel = self.settings.features == MEL
        with torch.no_grad():
            states = mel if is_mel else self.audio_features.encode(mel, positions)
            label_states, mask = self._label_states(sounds, mel, states, positions)
        for row, (sound, kept, tokens) in enumerate(
            zip(sounds, positions, self.labels.label(sounds, label_states, mask), strict=True)
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

    def _label_states(
        self, sounds: Sequence[Sound], mel: Tensor, states: Tensor, positions: Sequence[int]
    ) -> tuple[Tensor, Tensor | None]:
        """Encoder states and mask for the teacher's labels; unused if it labels no window."""
        if self.settings.labels != "teacher" or all(s.planned.number_of_pass for s in sounds):
            return states, None
        if not self.labels_in_full:
            if self.settings.features == MEL:
                states = self.audio_features.encode(mel, positions)
            lengths = torch.tensor(positions, device=self.device)
            return states, length_mask(lengths, states.shape[1])
        # After a clip, zeros of log-mel make the teacher end its output too early.
        return self.model.encoder(self.audio_features.log_mel(sounds, silence=True)), None

    def _sound(self, planned: Planned, skip: Skip) -> Sound | None:
        """Reads and joins the audio of a window; None if an utterance cannot be decoded."""
        seed = self.settings.seed + planned.number
        if not planned.window.items:
            dynamic = self.audio_features.dynamic
            return Sound(planned, [], silence(seed, self.recordings, any_length=dynamic))
        assert self.clips is not None
        items, parts = [self.clips.kept[item.utterance] for item in planned.window.items], []
        for item in planned.window.items:
            utterance = self.clips[item.utterance]
            try:
                parts.append(utterance.samples())
            except (ValueError, OSError) as error:
                reason = "with unreadable audio"
                if not self.bad.allowed:
                    self.bad.add(reason, str(error))
                skip(planned.number, reason, str(error))
                return None
        samples, speed = join(planned.window, parts), 1.0
        if planned.number_of_pass:
            rng = np.random.default_rng(seed)
            samples, speed = augment(samples, self.settings.augmentation, rng, self.recordings)
        return Sound(planned, items, samples[: round(WINDOW_SECONDS * SAMPLE_RATE)], speed)


def check_context(checkpoint: Checkpoint, settings: PrepareSettings) -> None:
    """Checks that the teacher was trained for the audio context in which it is run.

    Raises:
        ValueError: it was not.
    """
    # A teacher labels in its own 30 s what a model is then trained on in any context.
    labels = settings.labels == "teacher" and checkpoint.audio_context == "dynamic"
    if settings.features != STATES and not labels:
        return
    if (checkpoint.audio_context == "dynamic") == (settings.audio_context == "dynamic"):
        return
    raise ValueError(
        f"the teacher was trained for a {checkpoint.audio_context} audio context and cannot be run "
        f"in a {settings.audio_context} one; change audio_context, or first finetune the teacher "
        f"on log-mel prepared for a {settings.audio_context} context"
    )
