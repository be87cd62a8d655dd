"""What each choice contributes to the fine-tuning of a teacher with few hours of speech.

Short trainings as in levers.py, one change each, with two seeds. Interrupted runs resume with the
first unfinished training when you rerun the command.

    python -m benchmarks.reproduction.teacher_levers openai/whisper-base \\
        --speech DIR --select DIR --report DIR --output runs/teacher-levers \\
        --results benchmarks/results/reproduction-teacher-levers.json

The folders are log-mel that `baldwhisper-convert prepare` or `run` wrote; those of `--speech` are
of several passes, the first of them unchanged and the others augmented. The extra `lora` is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.data.spec_augment import SpecAugment
from baldwhisper_convert.pipeline.model import Model
from baldwhisper_convert.pipeline.training_stages import run_finetune
from baldwhisper_convert.training.settings import LoraSettings
from benchmarks.reproduction.levers import LeverSpeech, command, measures

MASKS = SpecAugment(time_masks=2, time_share=0.1, frequency_masks=2, frequency_share=0.2)
EVERY_LAYER = ("*.query", "*.key", "*.value", "*.out", "*.mlp.*")
LORA = LoraSettings(rank=32, alpha=64.0, targets=EVERY_LAYER)


@dataclass(frozen=True, kw_only=True)
class TeacherLever:
    """A fine-tuning; the defaults are the one that others are compared with."""

    learning_rate: float = 1e-4
    freeze: tuple[str, ...] = ()
    lora: LoraSettings | None = None
    masks: SpecAugment = MASKS
    augmented: bool = True
    """Whether all passes over the speech are used, or the first one as many times."""


LEVERS = {
    "all weights, peak 1e-4": TeacherLever(),
    "speech not augmented": TeacherLever(augmented=False),
    "no SpecAugment": TeacherLever(masks=SpecAugment()),
    "peak 3e-5": TeacherLever(learning_rate=3e-5),
    "peak 3e-4": TeacherLever(learning_rate=3e-4),
    "encoder frozen": TeacherLever(freeze=("encoder.*",)),
    "lower half of the encoder frozen": TeacherLever(
        freeze=("encoder.conv*", *(f"encoder.blocks.{layer}.*" for layer in range(3)))
    ),
    "LoRA": TeacherLever(lora=LORA, learning_rate=1e-3),
}


class TeacherRunner:
    """Fine-tunes a model in several ways."""

    def __init__(self, teacher: Checkpoint, speech: LeverSpeech) -> None:
        self.source, self.speech = Model.of(teacher), speech

    def run(self, lever: TeacherLever, seed: int, folder: Path) -> dict[str, Any]:
        """Fine-tunes the model and counts its word errors; the folder is for its checkpoints."""
        folder.mkdir(parents=True, exist_ok=True)
        speech, training = self.speech.training(
            augmented=lever.augmented, seed=seed, learning_rate=lever.learning_rate,
            freeze=lever.freeze, lora=lever.lora, spec_augment=lever.masks,
        )  # fmt: skip
        model, _ = run_finetune(self.source, training, speech, self.speech.select, folder)
        return measures(model, lever, self.speech.steps, self.speech)


main = command(LEVERS, TeacherRunner, "Fine-tune and measure the teachers not measured yet.")

if __name__ == "__main__":
    main()
