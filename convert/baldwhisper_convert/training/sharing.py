"""What a student has in common with its teacher, which is then computed once for both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baldwhisper_convert.model.layers import KeysAndValues
from baldwhisper_convert.model.whisper import AudioEncoder, Whisper

Groups = tuple[tuple[int, ...], ...]
"""For each student layer, the teacher layers it replaces."""


@dataclass(frozen=True)
class Shared:
    """What a student has in common with its teacher when training starts."""

    encoder: bool
    """Whether the encoders are equal; the student's may still be trained."""
    blocks: int | None
    """Leading encoder blocks that are equal and frozen; None if the convolutions before them are
    not."""
    projections: dict[int, int]
    """Student layers with the frozen audio projections of a teacher layer, and that layer."""

    @classmethod
    def of(cls, student: Whisper, teacher: Whisper, groups: Groups) -> Shared:
        """Compares two models; `groups` are those of the student's decoder layers."""
        twins = {i: _twin(student, teacher, i, group) for i, group in enumerate(groups)}
        return cls(
            encoder=are_equal(student.encoder, teacher.encoder),
            blocks=shared_blocks(student.encoder, teacher.encoder),
            projections={i: twin for i, twin in twins.items() if twin is not None},
        )

    def project(
        self, student: Whisper, states: Tensor, kv: dict[int, KeysAndValues]
    ) -> dict[int, KeysAndValues]:
        """The student's keys and values of the audio; copied from the teacher where shared.

        Args:
            student: whose keys and values.
            states: of the student's encoder (B, T, d).
            kv: the teacher's, by layer; empty if they are of other states.
        """
        reused = {layer: kv[twin] for layer, twin in self.projections.items() if kv}
        rest = [i for i in range(student.dims.n_text_layer) if i not in reused]
        return reused | student.decoder.project_audio(states, rest)


def shared_blocks(student: AudioEncoder, teacher: AudioEncoder) -> int | None:
    """Number of leading blocks that are equal in both encoders and frozen in the student.

    Returns:
        None if the convolutions and positions, which come before the blocks, are not.
    """
    before = [(student.conv1, teacher.conv1), (student.conv2, teacher.conv2)]
    same = torch.equal(student.positional_embedding, teacher.positional_embedding)
    if not same or not all(is_frozen(mine) and are_equal(mine, other) for mine, other in before):
        return None
    count = 0
    for mine, other in zip(student.blocks, teacher.blocks, strict=False):
        if not (is_frozen(mine) and are_equal(mine, other)):
            break
        count += 1
    return count


def is_frozen(module: nn.Module) -> bool:
    """Whether no parameter of the module is trained."""
    return not any(parameter.requires_grad for parameter in module.parameters())


def are_equal(module: nn.Module, other: nn.Module) -> bool:
    """Whether two modules have the same weights, bit by bit."""
    a, b = list(module.parameters()), list(other.parameters())
    return len(a) == len(b) and all(map(torch.equal, a, b))


def _twin(student: Whisper, teacher: Whisper, layer: int, group: tuple[int, ...]) -> int | None:
    """The teacher layer with the same audio projections as a student layer; None if none.

    None too if the student's projections are trained, because they will not stay the same.
    """
    mine = student.decoder.blocks[layer].cross_attn
    if not (is_frozen(mine.key) and is_frozen(mine.value)):  # type: ignore[union-attr, arg-type]
        return None
    for i in group:
        other = teacher.decoder.blocks[i].cross_attn
        if are_equal(mine.key, other.key) and are_equal(mine.value, other.value):  # type: ignore[union-attr, arg-type]
            return i
    return None
