"""The training loop: deterministic batches, exact resume, any number of processes.

Accelerate handles devices, processes and precision. All randomness is drawn from the seed and the
number of the step, never from a generator that keeps a state. So a run that was interrupted and
resumed, or spread over several processes, takes the same steps as one that was not.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from baldwhisper_convert.data.batches import Batch, collate, epochs, per_epoch
from baldwhisper_convert.data.prepared import Windows
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.processes import Processes
from baldwhisper_convert.progress import progress_bar
from baldwhisper_convert.training.checkpoints import Progress, RunFolder
from baldwhisper_convert.training.checks import check_batches, trained_parameters
from baldwhisper_convert.training.ema import Average
from baldwhisper_convert.training.log import TrainingLog, shown
from baldwhisper_convert.training.objectives import Terms
from baldwhisper_convert.training.precision import MixedPrecision
from baldwhisper_convert.training.settings import TrainingSettings, rate

Evaluate = Callable[[Whisper], dict[str, float]]
"""Returns a model's development results; "score" is one of them, and smaller is better. All
processes call it, and may share the work."""


class Learner(nn.Module):
    """Model and objective in one module, so that data-parallel wrappers see a single forward."""

    def __init__(self, model: Whisper, objective: nn.Module) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: Batch) -> Terms:
        """Returns the objective's terms for a batch."""
        terms: Terms = self.objective(self.model, batch)
        return terms


def train(
    model: Whisper,
    objective: nn.Module,
    data: Windows,
    prompts: Prompts,
    settings: TrainingSettings,
    folder: Path,
    *,
    evaluate: Evaluate | None = None,
    accelerator: Accelerator | None = None,
) -> dict[str, Any]:
    """Trains a model in place, or resumes the interrupted run in `folder`.

    Args:
        model: ends with the weights of the best development score, or without `evaluate` with
            the last ones (averaged, if `ema` is set).
        objective: an `Objective` module.
        data: prepared windows.
        prompts: special tokens of the model's vocabulary.
        settings: learning rate, schedule, batch size and so on.
        folder: of the run: checkpoint, best weights, `log.jsonl`, curves.
        evaluate: computes development results.
        accelerator: device and processes; by default Accelerate's choice.

    Returns:
        Steps, seconds, and the best development results.

    Raises:
        ValueError: a batch size that processes and accumulation do not divide, too little
            data or data without what the trainable parameters need, or a loss or gradient that
            is not finite.
        BlockingIOError: another process is training in `folder`.
    """
    run_folder = RunFolder(folder)
    accelerator = accelerator or new_accelerator()
    if Processes.start().agree(run_folder.is_finished):
        results = run_folder.finished(model)
        accelerator.wait_for_everyone()  # the main process may remove the weights next
        return results
    with run_folder.lock() if accelerator.is_main_process else nullcontext():
        run = _Run(model, objective, data, prompts, settings, accelerator)
        with closing(run):
            return run.run(run_folder, evaluate)


def new_accelerator() -> Accelerator:
    """Creates an accelerator with Accelerate's choice of device and processes.

    Its precision is float32, see `MixedPrecision`.

    Raises:
        ValueError: torchrun started several processes, but Accelerate runs each on its own.
    """
    Processes.start()  # with its timeout; Accelerate finds the processes connected
    return Accelerator(mixed_precision="no")


class _Run:
    """One training run: the model, the optimizer and the average, prepared by Accelerate."""

    def __init__(
        self,
        model: Whisper,
        objective: nn.Module,
        data: Windows,
        prompts: Prompts,
        settings: TrainingSettings,
        accelerator: Accelerator,
    ) -> None:
        check_batches(data, settings, accelerator.num_processes)
        self.model, self.settings, self.accelerator = model, settings, accelerator
        self.data, self.prompts = data, prompts
        self._log: TrainingLog | None = None
        self.label_silence = bool(getattr(objective, "label_silence", False))
        model.set_dropout(settings.dropout)
        model.set_gradient_checkpointing(settings.gradient_checkpointing)
        groups = trained_parameters(model, objective, data, settings)
        self.late = [group.pop("late") for group in groups]
        self.steps = settings.steps(per_epoch(data, settings.batch_size))
        optimizer = torch.optim.AdamW(
            groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True
        )
        self.learner, self.optimizer = accelerator.prepare(Learner(model, objective), optimizer)
        self.precision = MixedPrecision(settings.mixed_precision, accelerator)
        self.average = Average(model, settings.ema) if settings.ema else None

    def close(self) -> None:
        """Closes the log, also after an error."""
        if self._log is not None:
            self._log.release()

    def run(self, folder: RunFolder, evaluate: Evaluate | None) -> dict[str, Any]:
        """Takes the steps that are left; returns the results."""
        settings, main = self.settings, self.accelerator.is_main_process
        progress = folder.resume(self.accelerator, self.average) or Progress()
        batches = epochs(self.data, settings.batch_size, settings.seed, start=progress.step)
        training_log = TrainingLog(folder.path, progress.step, settings, enabled=main)
        self._log = training_log
        bar = progress_bar(self.steps, "train", "step", initial=progress.step, disable=not main)
        began, saved = time.monotonic() - progress.seconds, time.monotonic()
        while progress.step < self.steps and not progress.stopped:
            epoch, windows = next(batches)
            row = self._step(progress.step, windows)
            progress.step += 1
            progress.seconds = time.monotonic() - began
            training_log.write(
                step=progress.step, epoch=epoch, seconds=round(progress.seconds, 1), **row
            )
            bar.set_postfix({"loss": f"{row['loss']:.3f}"} | shown(progress.latest))
            bar.update()
            last = progress.step == self.steps
            every = settings.evaluate_every
            if evaluate and (last or (every and progress.step % every == 0)):
                self._evaluate(evaluate, folder, progress, training_log)
            # The main process's clock decides for all, because saving needs all of them.
            due = time.monotonic() - saved > 60 * settings.checkpoint_minutes
            if not last and self._agreed(due):
                folder.save(self.accelerator, progress, self.average)
                saved = time.monotonic()
        bar.close()
        training_log.close()
        metrics = {"steps": progress.step, "seconds": round(progress.seconds, 1)} | progress.best
        if progress.step < self.steps:
            metrics["ended_early"] = f"{settings.patience} evaluations without a better result"
        self._finish(folder, progress, metrics)
        return metrics

    def _step(self, step: int, windows: Sequence[int]) -> dict[str, float]:
        """Takes an optimizer step on windows, for all processes together.

        The step's number, from 0, determines the dropout and the windows' draws. Returns the mean
        of every term over all positions, the loss, the gradient's norm and the learning rate.
        """
        settings, accelerator = self.settings, self.accelerator
        rank, processes = accelerator.process_index, accelerator.num_processes
        # Dropout differs between processes, and is the same again after a resume.
        torch.manual_seed(random.Random(f"{settings.seed}/{step}/{rank}").getrandbits(63))
        self.learner.train()
        batches = self._collate(windows[rank::processes], step)
        # The loss is a mean over the positions of all batches and processes, which have
        # different numbers of them; so the totals must be known before the first backward.
        counts = [[int(b.mask.sum()), b.audio_positions] for b in batches]
        positions = torch.tensor(counts, dtype=torch.float32).sum(0).to(accelerator.device)
        total, audio_total = accelerator.reduce(positions, "sum").tolist()
        for group, late in zip(self.optimizer.param_groups, self.late, strict=True):
            group["lr"] = settings.learning_rate * rate(step, self.steps, settings, late=late)
        sums, over = dict[str, Tensor](), dict[str, int]()
        for i, batch in enumerate(batches):
            last = i == len(batches) - 1
            # Gradients are exchanged between processes in the last batch only.
            exchange = nullcontext() if last else accelerator.no_sync(self.learner)
            with exchange, self.precision.autocast():
                terms = self.learner(batch)
            scaled = [term / total for term in terms.losses.values()]
            scaled += [term / audio_total for term in terms.audio.values()]
            # Data-parallel wrappers average gradients over processes; we want their sum.
            self.precision.backward(torch.stack(scaled).sum() * processes)
            for name, value in (terms.losses | terms.metrics | terms.audio).items():
                value = torch.as_tensor(value, dtype=torch.float32).detach()
                sums[name] = sums.get(name, torch.zeros(())) + value.cpu()
            for name in terms.metrics:
                over[name] = over.get(name, 0) + terms.parts.get(name, terms.positions)
        norm = self.precision.clip(self.learner, self.optimizer, settings.clip)
        # The logged terms are sums over all processes, too.
        values = torch.stack([*sums.values(), *(torch.tensor(float(n)) for n in over.values())])
        added = accelerator.reduce(values.to(accelerator.device), "sum").tolist()
        counts_of = dict.fromkeys(sums, total) | dict.fromkeys(terms.audio, audio_total)
        counts_of |= zip(over, added[len(sums) :], strict=True)
        row = {
            name: value / max(1.0, counts_of[name])
            for name, value in zip(sums, added[: len(sums)], strict=True)
        }
        row["loss"] = sum(row[name] for name in terms.losses | terms.audio)
        # In fp16 an infinite gradient is normal: the step is skipped and the scale lowered.
        if not math.isfinite(row["loss"]) or (
            not math.isfinite(norm) and settings.mixed_precision != "fp16"
        ):
            raise ValueError(
                f"the loss or its gradient is not finite at step {step + 1}; lower learning_rate"
            )
        self.precision.step(self.optimizer)
        self.optimizer.zero_grad()
        if self.average:
            self.average.update(self.model, step)
        return row | {"norm": norm, "lr": self.optimizer.param_groups[0]["lr"]}

    def _collate(self, windows: Sequence[int], step: int) -> list[Batch]:
        """This process's windows of a step, in as many batches as are accumulated."""
        settings = self.settings
        return [
            collate(
                self.data, windows[i :: settings.accumulate], self.prompts, settings.mix,
                seed=settings.seed, step=step, label_silence=self.label_silence,
                masks=settings.spec_augment,
            ).to(self.accelerator.device)
            for i in range(settings.accumulate)
        ]  # fmt: skip

    def _evaluate(
        self, evaluate: Evaluate, folder: RunFolder, progress: Progress, training_log: TrainingLog
    ) -> None:
        """Evaluates on the development data, in all processes; saves the best weights."""
        processes = Processes.start()
        with Average.applied(self.model, self.average):
            self.model.eval()
            # All take the main process's results: the best weights and the end must be the same.
            results = processes.agree(evaluate(self.model))
            better = results["score"] < progress.best.get("score", math.inf)
            if better and processes.main:
                folder.save_best(self.model)
        training_log.write(step=progress.step, dev=results)
        progress.latest = results
        progress.best = results | {"best_step": progress.step} if better else progress.best
        progress.evals_since_best = 0 if better else progress.evals_since_best + 1
        progress.stopped = 0 < self.settings.patience <= progress.evals_since_best

    def _agreed(self, answer: bool) -> bool:
        """Gives every process the main process's answer; their clocks may differ."""
        accelerator = self.accelerator
        flag = torch.tensor(float(answer and accelerator.is_main_process))
        return bool(accelerator.reduce(flag.to(accelerator.device), "sum").item())

    def _finish(self, folder: RunFolder, progress: Progress, metrics: dict[str, Any]) -> None:
        """Gives the model its final weights: the best ones, the average or the last ones."""
        self.accelerator.wait_for_everyone()
        if progress.best:
            folder.load_best(self.model)
        elif self.average:
            self.average.copy_to(self.model)
        self.model.set_dropout(0.0)
        self.model.eval()
        folder.finish(self.accelerator, self.model, metrics)
