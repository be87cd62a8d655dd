"""What a student's encoder learns from its teacher's: the states of every layer and of the end.

No text is needed, and every encoder position of the audio is a target. The leading layers that a
student shares with its teacher, and that are frozen, run once for both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from baldwhisper_convert.data.batches import Batch
from baldwhisper_convert.model.whisper import AudioEncoder, EncoderOutput
from baldwhisper_convert.training.losses import relative_error
from baldwhisper_convert.training.sharing import Groups


@dataclass(frozen=True)
class Encoded:
    """The output of both encoders for one batch."""

    teacher: EncoderOutput
    student: EncoderOutput
    valid: Tensor
    """Encoder positions that are not padding (B, T), bool."""


def encode_both(
    student: AudioEncoder, teacher: AudioEncoder, batch: Batch, shared: int | None
) -> Encoded:
    """Encodes a batch of log-mel with both encoders, the teacher's without gradient.

    Args:
        student: the encoder that learns.
        teacher: the encoder that it learns from.
        batch: of log-mel.
        shared: leading blocks in common, from `shared_blocks`.
    """
    mask, mel = batch.audio_mask(), batch.features
    with torch.no_grad():
        embedded = teacher.embed(mel)
        taught = teacher.trace(embedded, mask)
    if shared is None:
        own = student.trace(student.embed(mel), mask)
    else:
        x = taught.layers[shared - 1] if shared else embedded
        rest = student.trace(x, mask, start=shared)
        own = EncoderOutput(taught.layers[:shared] + rest.layers, rest.state)
    return Encoded(taught, own, batch.audio_valid())


def state_errors(encoded: Encoded, groups: Groups) -> tuple[Tensor, Tensor]:
    """Relative squared errors of the student's encoder, summed over the N valid positions.

    Args:
        encoded: from `encode_both`.
        groups: for each student layer, the teacher layers it replaces.

    Returns:
        The mean over the layers, each compared with the last teacher layer of its group, and the
        error of the final states; both ().
    """
    valid = encoded.valid
    layers = [
        relative_error(layer[valid], encoded.teacher.layers[group[-1]][valid]).sum()
        for layer, group in zip(encoded.student.layers, groups, strict=True)
    ]
    final = relative_error(encoded.student.state[valid], encoded.teacher.state[valid]).sum()
    return torch.stack(layers).mean(), final
