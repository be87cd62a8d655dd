"""How far a student's next-token distribution is from its teacher's, before any training.

The teacher runs once over some speech, teacher-forced, and its logits are kept in memory. Any
number of students can then be compared with it.
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

_CHUNK = 512  # positions whose student logits are in memory at once


@dataclass(frozen=True)
class Agreement:
    """Means over positions."""

    kl: float
    """KL(teacher || student) in nats."""
    top1: float
    """Share of the positions at which both have the same likeliest token."""

    @property
    def distance(self) -> float:
        """What choices are ranked by: the KL."""
        return self.kl

    def __str__(self) -> str:
        return f"KL {self.kl:6.3f}  top-1 {self.top1:.3f}"


@dataclass(frozen=True)
class TeacherOutput:
    """The teacher's output for one batch, at the N positions of its mask."""

    batch: Batch
    audio: Tensor
    """Encoder states (B, T, d)."""
    audio_mask: Tensor | None
    logits: Tensor
    """(N, V) float32."""


class Reference:
    """The teacher's output over some speech, to compare students with.

    Args:
        teacher: in evaluation mode.
        batches: the speech; a thousand positions take 0.2 GB with Whisper's vocabulary.

    Raises:
        ValueError: the batches have no positions to compare at.
    """

    def __init__(self, teacher: Whisper, batches: Sequence[Batch]) -> None:
        self.outputs = [_run_teacher(teacher, batch) for batch in batches]
        self.positions = sum(len(output.logits) for output in self.outputs)
        if not self.positions:
            raise ValueError("no positions to compare the models at; give some speech")

    @torch.no_grad()
    def compare(self, student: Whisper, head: TokenEmbedding | None = None) -> Agreement:
        """Compares the decoder of a student with the teacher's.

        Args:
            student: in evaluation mode; its decoder runs on the teacher's encoder states.
            head: computes the logits; by default the student's own embedding.
        """
        head = head or student.decoder.token_embedding
        divergence, same = 0.0, 0
        for output in self.outputs:
            states = run_decoder(student, output).state[output.batch.mask]
            pairs = zip(states.split(_CHUNK), output.logits.split(_CHUNK), strict=True)
            for state, teacher in pairs:
                logits = head.as_linear(state)
                divergence += float(kl_divergence(teacher, logits).sum())
                same += int((logits.argmax(-1) == teacher.argmax(-1)).sum())
        return Agreement(divergence / self.positions, same / self.positions)


def run_decoder(model: Whisper, reference: TeacherOutput) -> DecoderOutput:
    """Runs a model's decoder on the teacher's encoder states of a batch."""
    output: DecoderOutput = model.decoder(
        reference.batch.tokens, reference.audio, reference.audio_mask
    )
    return output


@torch.no_grad()
def _run_teacher(teacher: Whisper, batch: Batch) -> TeacherOutput:
    audio, mask = batch.encode(teacher)
    output = teacher.decoder(batch.tokens, audio, mask)
    logits = teacher.decoder.token_embedding.as_linear(output.state[batch.mask])
    return TeacherOutput(batch, audio, mask, logits)
