"""Measures what the parts of a run cost on this machine, each in a few seconds.

Preparing is timed on a few windows of the real speech, and training, evaluating and compressing on
models of the real form and windows of the real lengths, with random features. What is measured are
the functions that the run itself calls.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.compression.agreement import Reference
from baldwhisper_convert.compression.calibration import calibrate
from baldwhisper_convert.compression.encoder_agreement import EncoderReference
from baldwhisper_convert.compression.factorize import calibratable
from baldwhisper_convert.data.batches import collate, plan_batches
from baldwhisper_convert.data.prepare import prepare
from baldwhisper_convert.data.prepare_settings import PrepareSettings
from baldwhisper_convert.data.prepared import SPEECH, Prepared, PreparedWindow, Windows
from baldwhisper_convert.data.replay import Replay, without_replay
from baldwhisper_convert.data.speech import SAMPLE_BATCH, sample
from baldwhisper_convert.data.utterances import BadRows
from baldwhisper_convert.data.windows import WINDOW_POSITIONS
from baldwhisper_convert.model.greedy import decode_greedy
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.pipeline.planned_data import PlannedData
from baldwhisper_convert.pipeline.training_stages import move_teachers
from baldwhisper_convert.progress import PeakMemory, stopwatch, without_bars
from baldwhisper_convert.training.evaluation import FIXED, Evaluator
from baldwhisper_convert.training.loop import new_accelerator, train
from baldwhisper_convert.training.lora import add_lora
from baldwhisper_convert.training.settings import TrainingSettings

BUDGET = 6.0
"""Seconds after which a measurement takes no further step."""

_BATCHES = 8
"""Batches of training that are measured at most, from the shortest to the longest windows."""


@dataclass(frozen=True)
class Cost:
    """What was measured."""

    seconds: float
    """Of all the work, predicted."""
    memory: int
    """Largest resident memory of the process while measuring, in bytes."""


class _Enough(Exception):
    """Ends a measured training."""


class _Timed:
    """Some windows of a data set, and the time at which each step reads the first of its windows.

    Raises `_Enough` when a step begins after the budget is used up, or after `_BATCHES` steps.
    """

    def __init__(self, data: Windows, chosen: Sequence[int], per_step: int) -> None:
        self._data, self._chosen, self._per_step = data, chosen, per_step
        self.windows: Sequence[PreparedWindow] = [data.windows[i] for i in chosen]
        self.is_mel, self.labelled = data.is_mel, data.labelled
        self.language, self.audio_context = data.language, data.audio_context
        self.languages = [data.languages[i] for i in chosen]
        self.begun: list[float] = []
        self.longest: list[int] = []
        self._reads = 0

    def features(self, index: int) -> torch.Tensor:
        """As `Prepared.features`."""
        if self._reads % self._per_step == 0:
            self.begun.append(stopwatch())
            steps = len(self.begun) - 1
            if steps > 1 and (steps > _BATCHES or self.begun[-1] - self.begun[0] > BUDGET):
                raise _Enough
            self.longest.append(0)
        self._reads += 1
        self.longest[-1] = max(self.longest[-1], self.windows[index].positions)
        return self._data.features(self._chosen[index])

    def rate(self) -> float:
        """Seconds a padded position over all steps but the first, which warms up."""
        seconds = self.begun[-1] - self.begun[1]
        return seconds / (self._per_step * sum(self.longest[1:]))


def time_prepare(
    teacher: Checkpoint, data: PlannedData, settings: PrepareSettings, windows: int
) -> Cost:
    """Prepares a few windows of a data set, and predicts the time for a number of windows.

    Args:
        teacher: its encoder computes the states.
        data: the planned data.
        settings: with the folder of noise that the run uses.
        windows: that are still to be prepared.
    """
    spoken = range(len(data.speech.clips))
    dynamic = settings.audio_context == "dynamic"
    count, seconds, done = 4, 0.0, 1.0
    each = _work(data.windows, dynamic) / max(1, len(data.windows))
    fixed = _prepared_seconds(teacher, data, settings, spoken[:1])[0]
    with PeakMemory() as memory:
        while True:
            step = max(1, len(spoken) // count)
            taken, prepared = _prepared_seconds(teacher, data, settings, spoken[::step][:count])
            done = _work(prepared.windows, dynamic) + prepared.settings["report"]["dropped"] * each
            seconds = max(taken - fixed, taken * 0.2)
            if taken > BUDGET / 3 or count >= len(spoken):
                break
            count *= 4
    return Cost(fixed + seconds * each * windows / max(1.0, done), memory.peak)


def _prepared_seconds(
    teacher: Checkpoint, data: PlannedData, settings: PrepareSettings, chosen: Sequence[int]
) -> tuple[float, Prepared]:
    """Seconds in which a few utterances are prepared, and what they became."""
    utterances = [data.speech.clips[i] for i in chosen]
    with tempfile.TemporaryDirectory() as folder, without_bars():
        began = stopwatch()
        made = prepare(
            teacher, utterances, settings, Path(folder, "prepared"), bad=BadRows(allowed=True)
        )
        return stopwatch() - began, made


def _work(windows: Sequence[PreparedWindow], dynamic: bool) -> float:
    """Positions that the encoder processes for some windows."""
    return float(sum(w.positions if dynamic else WINDOW_POSITIONS for w in windows))


def time_training(
    model: Checkpoint,
    objective: torch.nn.Module,
    data: Windows,
    settings: TrainingSettings,
    steps: int,
) -> Cost:
    """Takes some steps of a training, and predicts the time of `steps` of them."""
    main, size = without_replay(data), settings.batch_size
    if isinstance(data, Replay):
        size -= data.rows(size)
    lengths = [window.positions for window in main.windows]
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    count = min(_BATCHES * size, len(order))
    timed = _Timed(main, [order[i * len(order) // count] for i in range(count)], min(size, count))
    # What a step replays takes its time, too.
    speech = dataclasses.replace(data, main=timed) if isinstance(data, Replay) else timed
    module, prompts = Whisper.from_checkpoint(model), Prompts.of(model, data.language)
    add_lora(module, settings)
    endless = dataclasses.replace(
        settings, epochs=1e6, evaluate_every=0, checkpoint_minutes=1e6, trackers=()
    )
    with tempfile.TemporaryDirectory() as folder, without_bars(), PeakMemory() as memory:
        accelerator = new_accelerator()
        move_teachers(objective, accelerator.device)
        with suppress(_Enough):
            train(
                module, objective, speech, prompts, endless, Path(folder), accelerator=accelerator
            )
    batches = plan_batches(lengths, size, settings.seed, 0)
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    return Cost(timed.rate() * padded / len(batches) * steps, memory.peak)


class _Endless(Prompts):
    """Sequences of which no decoding finds the end, so that it takes as many steps as it may."""

    @property
    def end(self) -> int:
        return -1


def time_evaluation(model: Checkpoint, objective: torch.nn.Module, data: Windows) -> Cost:
    """Evaluates some windows, and predicts the time of one evaluation on all of them.

    Decoding takes as many steps as the longest transcript of a batch has tokens, as it does once
    a model is trained.
    """
    module, prompts = Whisper.from_checkpoint(model), Prompts.of(model, data.language)
    endless = _Endless(prompts.tokenizer, prompts.n_text_ctx, prompts.language)
    device = new_accelerator().device
    module.to(device)
    move_teachers(objective, device)
    evaluator = Evaluator(data, prompts, objective, device=device)
    parts = evaluator.parts()
    order = sorted(range(len(parts)), key=lambda i: (i * 5) % len(parts))
    done, began = 0.0, stopwatch()
    with PeakMemory() as memory, torch.no_grad(), without_bars():
        for number in order:
            part = parts[number]
            evaluator.losses(module, [part])
            spoken = [i for i in part if data.windows[i].kind == SPEECH]
            if data.labelled and spoken:
                batch = collate(data, spoken, prompts, FIXED).to(device)
                states, mask = batch.encode(module)
                longest = max(len(data.windows[i].tokens) for i in spoken)
                decode_greedy(module, states, mask, endless, timestamps=False, max_tokens=longest)
            done += sum(data.windows[i].positions for i in part)
            if stopwatch() - began > BUDGET:
                break
    whole = sum(window.positions for window in data.windows)
    return Cost((stopwatch() - began) * whole / done, memory.peak)


def time_merge(model: Checkpoint, data: Windows, part: str, count: int, plans: int) -> Cost:
    """Compares a model with itself on one batch; predicts comparing `plans` on `count` windows."""
    prompts = Prompts.of(model, data.language)
    batches = sample(data, prompts, SAMPLE_BATCH)
    with _measured() as (memory, lap):
        module = Whisper.from_checkpoint(model)
        reference: Any
        if part == "encoder":
            reference = EncoderReference(module, batches, has_text=data.labelled)
        else:
            reference = Reference(module, batches)
        first = lap()
        reference.compare(module)
        each = lap()
    ratio = max(1.0, count / SAMPLE_BATCH)
    return Cost(ratio * (2 * first + plans * each), memory.peak)


def time_factorize(model: Checkpoint, data: Windows, count: int, held_out: int) -> Cost:
    """Calibrates and compares on one batch; predicts the time for numbers of windows."""
    prompts = Prompts.of(model, data.language)
    batches = sample(data, prompts, SAMPLE_BATCH)
    with _measured() as (memory, lap):
        module = calibratable(model)
        calibrate(module, batches)
        calibration = lap()
        with torch.no_grad():
            Reference(module, batches).compare(module)
        comparing = lap()
    batch_count, held = (max(1.0, n / SAMPLE_BATCH) for n in (count, held_out))
    # Input, output and both are compared.
    return Cost(batch_count * calibration + 3 * held * comparing, memory.peak)


@contextmanager
def _measured() -> Iterator[tuple[PeakMemory, Callable[[], float]]]:
    """The memory of the block, and a clock that returns the seconds since it was last read."""
    last = stopwatch()

    def lap() -> float:
        nonlocal last
        before, last = last, stopwatch()
        return last - before

    with PeakMemory() as memory, without_bars():
        yield memory, lap
