"""How far a student's encoder is from its teacher's, before any training.

The teacher runs once over some speech, and its states are kept in memory. Any number of encoders
can then be compared with it: by their final states, for which no text is needed, and with text also
by what the teacher's decoder makes of these states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from baldwhisper_convert.data.batches import Batch
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training.fused_losses import next_token_terms
from baldwhisper_convert.training.losses import relative_error


@dataclass(frozen=True)
class EncoderAgreement:
    """Means over the positions of some speech."""

    error: float
    """Relative squared error of the final states, over the encoder positions of the audio."""
    kl: float | None
    """KL in nats of the next token, teacher against the teacher's decoder on the student's
    states; None without text."""
    top1: float | None
    """Share of the tokens at which both have the same likeliest one; None without text."""

    @property
    def distance(self) -> float:
        """What choices are ranked by: the KL, or without text the error of the states."""
        return self.error if self.kl is None else self.kl


@dataclass(frozen=True)
class _TeacherOutput:
    batch: Batch
    embedded: Tensor
    """Input of the first block (B, T, d)."""
    state: Tensor
    """Final states (B, T, d)."""
    logits: Tensor | None
    """(N, V) at the positions of the batch's mask; None without text."""


class EncoderReference:
    """The output of a teacher over some speech, to compare encoders with.

    Args:
        teacher: in evaluation mode.
        batches: log-mel; its 30 s take 6 MB at width 512.
        has_text: whether the tokens of the batches are text to compare the next tokens at.

    Raises:
        ValueError: no speech, or encoder states instead of log-mel.
    """

    def __init__(self, teacher: Whisper, batches: Sequence[Batch], *, has_text: bool) -> None:
        if not batches:
            raise ValueError("no positions to compare the encoders at; give some speech")
        if not all(batch.is_mel for batch in batches):
            raise ValueError(
                "the prepared data is encoder states, but comparing encoders needs log-mel; "
                'prepare the data with features = "mel"'
            )
        self.teacher, self.has_text = teacher, has_text
        self.positions = sum(batch.audio_positions for batch in batches)
        """Encoder positions of the audio."""
        n_layers = teacher.dims.n_audio_layer
        total = torch.zeros(n_layers, n_layers, dtype=torch.float64)
        self.outputs = [self._run_teacher(batch, total) for batch in batches]
        self.layer_similarity = (total / self.positions).float()
        """Mean cosine similarity of the outputs of the teacher's layers (layers, layers)."""

    @torch.no_grad()
    def compare(self, student: Whisper) -> EncoderAgreement:
        """Compares a student's encoder, with the teacher's convolutions, in evaluation mode."""
        error, divergence, same, tokens = 0.0, 0.0, 0, 0
        for output in self.outputs:
            batch = output.batch
            state = student.encoder.trace(output.embedded, batch.audio_mask()).state
            valid = batch.audio_valid()
            error += float(relative_error(state[valid], output.state[valid]).sum())
            if output.logits is not None:
                logits = self._logits(state, batch)
                _, kl, agree = next_token_terms(
                    output.logits, logits, torch.zeros(len(logits), dtype=torch.long)
                )
                divergence += float(kl.sum())
                same += int(agree.sum())
                tokens += len(logits)
        error /= self.positions
        if not self.has_text:
            return EncoderAgreement(error, None, None)
        return EncoderAgreement(error, divergence / tokens, same / tokens)

    @torch.no_grad()
    def _run_teacher(self, batch: Batch, similarity: Tensor) -> _TeacherOutput:
        """Runs the teacher, and adds the cosines of its layers to `similarity`."""
        embedded = self.teacher.encoder.embed(batch.features)
        encoded = self.teacher.encoder.trace(embedded, batch.audio_mask())
        valid = batch.audio_valid()
        layers = [F.normalize(layer[valid].double(), dim=-1) for layer in encoded.layers]
        units = torch.stack(layers)
        similarity += torch.einsum("ind,jnd->ij", units, units)
        logits = self._logits(encoded.state, batch) if self.has_text else None
        return _TeacherOutput(batch, embedded, encoded.state, logits)

    def _logits(self, state: Tensor, batch: Batch) -> Tensor:
        """The teacher's logits (N, V) on encoder states, at the positions of the mask."""
        decoder = self.teacher.decoder
        output = decoder(batch.tokens, state, batch.audio_mask())
        logits: Tensor = decoder.token_embedding.as_linear(output.state[batch.mask])
        return logits
