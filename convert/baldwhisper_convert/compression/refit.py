"""Least squares instead of gradients: fits the lighter encoder's layers to the teacher's states.

The last matrix of a layer's MLP is linear in its output. So with everything before it fixed, the
matrix and bias whose output is closest to the output of the teacher's last layer of the group are
the solution of a ridge regression on the activations of some speech, without text. The layers are
fitted from the first to the last, each on the outputs of the fitted ones before it.

A closed form per layer on calibration activations, as SparseGPT (Frantar and Alistarh, arXiv
2301.00774) and the reconstruction after pruning of He et al. (arXiv 1707.06168) have it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.data.batches import Batch
from baldwhisper_convert.model.layers import Block
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training.sharing import Groups, are_equal


@dataclass
class _Stream:
    """The residual streams of one batch, in both encoders."""

    mask: Tensor | None
    valid: Tensor
    teacher: Tensor
    student: Tensor


@torch.no_grad()
def refit_encoder(
    teacher: Whisper,
    student: Checkpoint,
    groups: Groups,
    batches: Sequence[Batch],
    ridge: float,
) -> Checkpoint:
    """Fits the MLPs of a student's encoder to the teacher's states.

    Layers whose input and target are those of the teacher's own layer stay as they are.

    Args:
        teacher: in evaluation mode.
        student: with fewer encoder layers than the teacher, and its convolutions.
        groups: for each encoder layer of the student, the teacher layers it replaces.
        batches: log-mel to fit on; a few hundred positions for each hidden unit are enough.
        ridge: how strongly the weights are kept where they were, relative to the mean square of
            the hidden activations.

    Returns:
        The student with new `mlp.2` matrices and biases.
    """
    model = Whisper.from_checkpoint(student)
    streams = []
    for batch in batches:
        x = teacher.encoder.embed(batch.features)
        streams.append(_Stream(batch.audio_mask(), batch.audio_valid(), x, x))
    same = True
    for block, group in zip(model.encoder.blocks, groups, strict=True):
        assert isinstance(block, Block)
        same = same and len(group) == 1 and are_equal(block, teacher.encoder.blocks[group[0]])
        for stream in streams:
            for layer in group:
                stream.teacher = teacher.encoder.blocks[layer](stream.teacher, mask=stream.mask)
        if not same:
            _refit(block, streams, ridge)
        for stream in streams:
            stream.student = stream.teacher if same else block(stream.student, mask=stream.mask)
    return dataclasses.replace(student, state=model.canonical_state())


def _refit(block: Block, streams: Sequence[_Stream], ridge: float) -> None:
    """Solves (H'H + r I) D = H'R for the change D of the last matrix and bias.

    H are the hidden activations with a column of ones, R what is missing to the target, and r is
    `ridge` times the mean of the diagonal of H'H.
    """
    last = block.mlp[2]
    assert isinstance(last, torch.nn.Linear)
    width, hidden = last.weight.shape
    moment = torch.zeros(hidden + 1, hidden + 1, dtype=torch.float64)
    product = torch.zeros(hidden + 1, width, dtype=torch.float64)
    for stream in streams:
        x, mask = stream.student, stream.mask
        y = block.attn_ln(x)
        x = x + block.attn(y, block.attn.project(y), mask)
        h = block.mlp[1](block.mlp[0](block.mlp_ln(x[stream.valid])))
        missing = stream.teacher[stream.valid] - x[stream.valid] - last(h)
        with_one = torch.cat([h, torch.ones(len(h), 1)], dim=1)
        moment += (with_one.T @ with_one).double()
        product += (with_one.T @ missing).double()
    strength = ridge * moment.diagonal().mean()
    change = torch.linalg.solve(moment + strength * torch.eye(hidden + 1).double(), product)
    last.weight.add_(change[:-1].T.float())
    last.bias.add_(change[-1].float())
