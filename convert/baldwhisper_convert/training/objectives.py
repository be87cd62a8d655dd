"""The stage that teaches a student: what it is compared with, and by how much.

One objective for every student: merged, sheared, both. The teacher is frozen; the loop itself
is training.py's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from baldwhisper_convert.data.batches import IGNORED, Batch
from baldwhisper_convert.model.whisper import KeysAndValues, Whisper
from baldwhisper_convert.training.fused_losses import logit_distance, next_token_terms
from baldwhisper_convert.training.losses import cross_entropy, feature_distance, relative_error

Groups = tuple[tuple[int, ...], ...]

LEARNED_TEMPERATURE = (0.5, 4.0)
"""Bounds of a temperature that is learned."""


@dataclass(frozen=True)
class Terms:
    """What an objective makes of a batch."""

    losses: dict[str, Tensor]
    """Weighted sums over the positions."""
    positions: int
    metrics: dict[str, float] = field(default_factory=dict)
    """Sums over the positions of what is only watched."""


class Objective(Protocol):
    """Compares a model with what it should do; may have parameters of its own."""

    def __call__(self, model: Whisper, batch: Batch) -> Terms: ...


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """Weights of the loss terms; a term of weight 0 is not computed.

    Raises:
        ValueError: a negative weight, or no weight at all.
    """

    ce: float = 0.2
    """lambda: cross-entropy with the labels."""
    kl: float = 1.0
    """gamma: KL(teacher || student) of the next token."""
    embedding: float = 0.0
    """D between the token embeddings of teacher and student."""
    projection: float = 0.0
    """D between the logits of teacher and student, each less its mean."""
    hidden: float = 0.0
    """Relative squared error of each student layer against the last teacher layer it stands
    for."""
    temperature: float = 1.0
    """Of the KL term; the initial one if it is learned."""
    learn_temperature: bool = False
    """Whether the temperature is a parameter, as in the paper."""

    def __post_init__(self) -> None:
        weights = (self.ce, self.kl, self.embedding, self.projection, self.hidden)
        if min(weights) < 0 or not any(weights):
            raise ValueError("loss weights must not be negative, nor all 0")
        low, high = LEARNED_TEMPERATURE if self.learn_temperature else (0.1, 10.0)
        if not low <= self.temperature <= high:
            raise ValueError(f"temperature must be {low:g} to {high:g}, not {self.temperature}")


class Distillation(nn.Module):
    """The objective of a student under a frozen teacher.

    Args:
        teacher: is frozen here.
        groups: for each student layer, the teacher layers it stands for.
        settings: weights of the terms.

    Raises:
        ValueError: a group names a layer that the teacher does not have.
    """

    def __init__(self, teacher: Whisper, groups: Groups, settings: LossSettings) -> None:
        super().__init__()
        if groups[-1][-1] >= teacher.dims.n_text_layer:
            raise ValueError(
                f"the student stands for teacher layers {groups}, but the teacher has "
                f"{teacher.dims.n_text_layer}"
            )
        # In a list, the teacher's weights are not the objective's parameters.
        self._teacher = [teacher.eval().requires_grad_(False)]
        self.groups, self.settings = groups, settings
        self._known: WeakKeyDictionary[Whisper, _Shared] = WeakKeyDictionary()
        self.log_temperature = nn.Parameter(
            torch.tensor(math.log(settings.temperature)), requires_grad=settings.learn_temperature
        )

    @property
    def teacher(self) -> Whisper:
        """The teacher."""
        return self._teacher[0]

    @property
    def temperature(self) -> Tensor:
        """Of the KL term, kept within `LEARNED_TEMPERATURE` if it is learned."""
        if self.settings.learn_temperature:
            # In place: a clamp in the graph has no gradient that would lead back from outside.
            with torch.no_grad():
                self.log_temperature.clamp_(*(math.log(bound) for bound in LEARNED_TEMPERATURE))
        return self.log_temperature.exp()

    def forward(self, student: Whisper, batch: Batch) -> Terms:
        """Sums of every term over the batch's positions, and how many positions there are."""
        settings, keep = self.settings, batch.mask
        with torch.no_grad():
            states, mask = batch.encode(self.teacher)
            kv = self.teacher.decoder.project_audio(states)
            taught = self.teacher.decoder(batch.tokens, kv, mask)
            wanted = self.teacher.decoder.token_embedding.as_linear(taught.state[keep])
        own_states = states
        shared = self._shared(student)
        if batch.is_mel and not (shared.encoder and _is_frozen(student.encoder)):
            own_states, _ = batch.encode(student)
            kv = {}
        elif not shared.encoder:
            raise ValueError(
                "the prepared data has the teacher's encoder states, but the student's encoder "
                "is another; prepare log-mel"
            )
        output = student.decoder(batch.tokens, self._project(student, own_states, kv, shared), mask)
        logits = student.decoder.token_embedding.as_linear(output.state[keep])
        terms: dict[str, Tensor] = {}
        targets = batch.targets[keep]
        labelled = targets != IGNORED
        ce, kl, agree = next_token_terms(wanted, logits, targets.clamp(min=0), self.temperature)
        if settings.ce:
            terms["ce"] = settings.ce * (ce * labelled).sum()
        if settings.kl:
            terms["kl"] = settings.kl * kl.sum()
        if settings.embedding:
            distance = feature_distance(taught.embedded[keep], output.embedded[keep])
            terms["embedding"] = settings.embedding * distance.sum()
        if settings.projection:
            terms["projection"] = settings.projection * logit_distance(wanted, logits).sum()
        if settings.hidden:
            errors = [
                relative_error(own[keep], taught.layers[group[-1]][keep])
                for own, group in zip(output.layers, self.groups, strict=True)
            ]
            terms["hidden"] = settings.hidden * torch.stack(errors).mean(0).sum()
        return Terms(terms, int(keep.sum()), {"agreement": float(agree.sum())})

    def _shared(self, student: Whisper) -> _Shared:
        """What the student has from the teacher and keeps; asked once for each student."""
        if student not in self._known:
            self._known[student] = _Shared(
                encoder=_are_equal(student.encoder, self.teacher.encoder),
                projections={
                    layer: twin
                    for layer in range(student.dims.n_text_layer)
                    if (twin := self._twin(student, layer)) is not None
                },
            )
        return self._known[student]

    def _twin(self, student: Whisper, layer: int) -> int | None:
        """The teacher's layer whose projections of the audio a student's layer keeps."""
        own = student.decoder.blocks[layer].cross_attn
        if not (_is_frozen(own.key) and _is_frozen(own.value)):  # type: ignore[union-attr, arg-type]
            return None
        for i in self.groups[layer]:
            other = self.teacher.decoder.blocks[i].cross_attn
            if _are_equal(own.key, other.key) and _are_equal(own.value, other.value):  # type: ignore[union-attr, arg-type]
                return i
        return None

    @staticmethod
    def _project(
        student: Whisper, states: Tensor, kv: dict[int, KeysAndValues], shared: _Shared
    ) -> dict[int, KeysAndValues]:
        """The student's keys and values of the audio; the teacher's where they are the same.

        A frozen projection that was kept from the teacher need not be computed twice.
        """
        own = {layer: kv[twin] for layer, twin in shared.projections.items() if kv}
        rest = [i for i in range(student.dims.n_text_layer) if i not in own]
        return own | student.decoder.project_audio(states, rest)


@dataclass(frozen=True)
class _Shared:
    """What a student has in common with its teacher for good."""

    encoder: bool
    projections: dict[int, int]
    """Student's layer to the teacher's layer whose projections of the audio it has."""


def _is_frozen(module: nn.Module) -> bool:
    return not any(parameter.requires_grad for parameter in module.parameters())


def _are_equal(module: nn.Module, other: nn.Module) -> bool:
    own, theirs = list(module.parameters()), list(other.parameters())
    return len(own) == len(theirs) and all(map(torch.equal, own, theirs))


class Transcription(nn.Module):
    """The objective: - log p of the labels, in both modes and after prompts."""

    def forward(self, model: Whisper, batch: Batch) -> Terms:
        """The sum over the batch's labelled positions, and how many there are."""
        states, mask = batch.encode(model)
        output = model.decoder(batch.tokens, states, mask)
        labelled = batch.targets != IGNORED
        logits: Tensor = model.decoder.token_embedding.as_linear(output.state[labelled])
        targets = batch.targets[labelled]
        right = float((logits.detach().argmax(-1) == targets).sum())
        loss = cross_entropy(logits, targets).sum()
        return Terms({"ce": loss}, int(labelled.sum()), {"accuracy": right})
