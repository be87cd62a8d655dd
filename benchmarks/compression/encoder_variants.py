"""The lighter encoders that encoder_depth.py measures, and how each is made and trained."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.compression.encoder_agreement import EncoderReference
from baldwhisper_convert.compression.factorize import count_parameters
from baldwhisper_convert.compression.merge import MergeSettings
from baldwhisper_convert.compression.refit import refit_encoder
from baldwhisper_convert.data.prepared import Prepared, PreparedWindow
from baldwhisper_convert.data.speech import Speech, sample
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.pipeline.model import Model
from baldwhisper_convert.pipeline.stages import run_merge
from baldwhisper_convert.pipeline.training_stages import run_distill
from baldwhisper_convert.training.objectives import LossSettings
from baldwhisper_convert.training.settings import TrainingSettings
from baldwhisper_convert.training.sharing import shared_blocks
from benchmarks.result_files import file_stem

DEV_WINDOWS, FIT_WINDOWS = 8, 24
UNTRAINED = ", not trained"
"""End of the names of variants that are fitted by least squares alone."""
BATCH, RATE, RIDGE = 4, 1e-4, 0.1
CROP = 500
"""Encoder positions (20 ms) that most windows are cut to, to save time."""


def _lower(*sizes: int) -> MergeSettings:
    """Groups of neighbours of which the lower layer is kept."""
    return MergeSettings(part="encoder", groups=sizes, alpha=1.0, beta=0.0)


_LIGHTER = {
    "5 layers, kept": _lower(2, 1, 1, 1, 1),
    "5 layers, merged": MergeSettings(part="encoder", groups=(2, 1, 1, 1, 1), alpha=1.0),
    "4 layers, kept": _lower(2, 1, 1, 2),
    "4 layers, merged": MergeSettings(part="encoder", groups=(2, 1, 1, 2), alpha=1.0),
    "3 layers, kept": _lower(2, 2, 2),
    "3 layers, merged": MergeSettings(part="encoder", groups=(2, 2, 2), alpha=1.0),
}
VARIANTS: dict[str, MergeSettings] = {
    "6 layers": MergeSettings(part="encoder", method="keep", keep=(0, 1, 2, 3, 4, 5)),
    **{name + end: plan for name, plan in _LIGHTER.items() for end in (UNTRAINED, "")},
}
"""Of whisper-base. `kept` keeps the lower layer of each group, `merged` their mean; both start with
the same neighbours."""


class Cropped:
    """Windows of log-mel, all but every fourth cut to their first `CROP` positions."""

    def __init__(self, data: Prepared) -> None:
        self.data = data
        self.is_mel, self.labelled = data.is_mel, data.labelled
        self.language, self.audio_context = data.language, data.audio_context
        self.languages = list(data.languages)
        self.windows: list[PreparedWindow] = [
            replace(window, positions=min(CROP, window.positions)) if i % 4 else window
            for i, window in enumerate(data.windows)
        ]

    def features(self, index: int) -> torch.Tensor:
        """As `Prepared.features`."""
        return self.data.features(index)[:, : 2 * self.windows[index].positions]


class Runner:
    """Makes, trains and measures the variants of one teacher.

    Args:
        teacher: the model whose encoder becomes lighter.
        audio: prepared log-mel, to fit the layers and train on.
        text: prepared log-mel with text, for the training through the decoder.
        dev: prepared log-mel with text, to measure on.
        folder: for trainings, exported models and transcripts.
        steps: of the training on states, and of the one through the decoder.
    """

    def __init__(
        self,
        teacher: Checkpoint,
        audio: Prepared,
        text: Prepared,
        dev: Prepared,
        folder: Path,
        steps: tuple[int, int],
    ) -> None:
        self.teacher, self.folder, self.steps = Model.of(teacher), folder, steps
        self.audio, self.text, self.dev = audio, text, dev
        self.prompts = Prompts.of(teacher, audio.language)
        self.module = Whisper.from_checkpoint(teacher).requires_grad_(False)

    @cached_property
    def reference(self) -> EncoderReference:
        """The teacher's states and next tokens on the development windows."""
        windows = sample(self.dev, self.prompts, DEV_WINDOWS)
        return EncoderReference(self.module, windows, has_text=True)

    def run(self, name: str) -> tuple[Checkpoint, dict[str, Any]]:
        """One variant: the last checkpoint, and what was measured on the way."""
        model, _ = run_merge(self.teacher, VARIANTS[name], None, self.folder)
        row: dict[str, Any] = {
            "layers": model.checkpoint.dims.n_audio_layer,
            "groups": [list(group) for group in model.encoder_groups],
            "parameters": count_parameters(model.checkpoint),
            "start": self.distance(model),
        }
        if model.checkpoint.dims == self.teacher.checkpoint.dims:
            return model.checkpoint, row
        began = time.process_time()
        model = replace(model, checkpoint=self.fitted(model))
        row["fit_seconds"] = round(time.process_time() - began, 1)
        row["fitted"] = self.distance(model)
        if name.endswith(UNTRAINED):
            return model.checkpoint, row
        for key, data, loss, steps in (
            ("states", self.audio, LossSettings(ce=0, kl=0, encoder=1.0), self.steps[0]),
            ("decoder", self.text, LossSettings(ce=0, kl=1.0, encoder=1.0), self.steps[1]),
        ):
            if steps:
                model, found = self.trained(model, data, loss, steps, f"{name}-{key}")
                row[key] = found | self.distance(model)
        return model.checkpoint, row

    def fitted(self, model: Model) -> Checkpoint:
        """The layers fitted to the teacher's states by least squares."""
        batches = sample(self.audio, self.prompts, FIT_WINDOWS)
        return refit_encoder(self.module, model.checkpoint, model.encoder_groups, batches, RIDGE)

    def trained(
        self, model: Model, data: Prepared, loss: LossSettings, steps: int, name: str
    ) -> tuple[Model, dict[str, Any]]:
        """A training of the layers that the teacher does not have."""
        windows = Cropped(data)
        student = Whisper.from_checkpoint(model.checkpoint).requires_grad_(False)
        shared = shared_blocks(student.encoder, self.module.encoder) or 0
        training = TrainingSettings(
            epochs=steps / max(1, len(windows.windows) // BATCH),
            batch_size=BATCH,
            learning_rate=RATE,
            freeze=(
                "decoder.*",
                "encoder.conv*",
                *(f"encoder.blocks.{i}.*" for i in range(shared)),
            ),
            checkpoint_minutes=2.0,
        )
        folder = self.folder / file_stem(name)
        began = time.process_time()
        model, metrics = run_distill(
            model, self.teacher.checkpoint, training, loss,
            Speech(windows=windows, fingerprints={}), None, folder,
        )  # fmt: skip
        seconds = time.process_time() - began
        return model, {"steps": metrics["steps"], "cpu_seconds": round(seconds, 1)}

    def distance(self, model: Model) -> dict[str, float]:
        """Error of the final states, and KL and agreement of the next token."""
        found = self.reference.compare(Whisper.from_checkpoint(model.checkpoint))
        assert found.kl is not None
        assert found.top1 is not None
        return {"error": found.error, "kl": found.kl, "top1": found.top1}
