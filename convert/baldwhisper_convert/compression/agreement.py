"""How often and how far a student's next token differs from its teacher's.

The teacher runs once over some speech, teacher-forced, and its answers stay in memory; any
number of students are then compared with them. This is what a compressed model is judged by
before it is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from baldwhisper_convert.data.batches import Batch
from baldwhisper_convert.model.embedding import TokenEmbedding
from baldwhisper_convert.model.whisper import DecoderOutput, Whisper
from baldwhisper_convert.training.losses import kl_divergence

_CHUNK = 512  # positions whose logits are in memory at once, besides the teacher's


@dataclass(frozen=True)
class Agreement:
    """Means over positions."""

    kl: float
    """KL(teacher || student) in nats."""
    top1: float
    """Share of the positions where both have the same likeliest token."""

    def __str__(self) -> str:
        return f"KL {self.kl:6.3f}  top-1 {self.top1:.3f}"


@dataclass(frozen=True)
class Answers:
    """The teacher on one batch, at the N positions of its mask."""

    batch: Batch
    audio: Tensor
    """Encoder states (B, T, d)."""
    audio_mask: Tensor | None
    logits: Tensor
    """(N, V) float32."""


class Reference:
    """The teacher's answers over speech.

    Args:
        teacher: in evaluation mode.
        batches: the speech; a thousand positions take 0.2 GB with Whisper's vocabulary.

    Raises:
        ValueError: no positions to compare.
    """

    def __init__(self, teacher: Whisper, batches: Sequence[Batch]) -> None:
        self.answers = [_answers(teacher, batch) for batch in batches]
        self.positions = sum(len(answers.logits) for answers in self.answers)
        if not self.positions:
            raise ValueError("no positions to compare the models at; give some speech")

    @torch.no_grad()
    def compare(self, student: Whisper, head: TokenEmbedding | None = None) -> Agreement:
        """Compares a student that hears with the teacher's encoder.

        Args:
            student: in evaluation mode; its decoder is run on the teacher's encoder states.
            head: makes the logits instead of the student's own embedding.
        """
        head = head or student.decoder.token_embedding
        divergence, same = 0.0, 0
        for answers in self.answers:
            states = run_decoder(student, answers).state[answers.batch.mask]
            pairs = zip(states.split(_CHUNK), answers.logits.split(_CHUNK), strict=True)
            for state, teacher in pairs:
                logits = head.as_linear(state)
                divergence += float(kl_divergence(teacher, logits).sum())
                same += int((logits.argmax(-1) == teacher.argmax(-1)).sum())
        return Agreement(divergence / self.positions, same / self.positions)


def run_decoder(model: Whisper, answers: Answers) -> DecoderOutput:
    """The model's decoder on a batch whose audio is encoded."""
    output: DecoderOutput = model.decoder(answers.batch.tokens, answers.audio, answers.audio_mask)
    return output


@torch.no_grad()
def _answers(teacher: Whisper, batch: Batch) -> Answers:
    audio, mask = batch.encode(teacher)
    output = teacher.decoder(batch.tokens, audio, mask)
    logits = teacher.decoder.token_embedding.as_linear(output.state[batch.mask])
    return Answers(batch, audio, mask, logits)
