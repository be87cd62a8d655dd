"""Training objectives: what a model is compared with on a batch, and with which weights.

`Transcription` fine-tunes a model on labels. `Distillation` trains a student against a frozen
teacher, whether its layers were merged, its embedding factorized, or both. Both return `Terms`,
which loop.py sums over batches and processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from baldwhisper_convert.data.batches import IGNORED, Batch
from baldwhisper_convert.model.whisper import DecoderOutput, KeysAndValues, Whisper
from baldwhisper_convert.training.fused_losses import logit_distance, next_token_terms
from baldwhisper_convert.training.losses import cross_entropy, feature_distance, relative_error

Groups = tuple[tuple[int, ...], ...]
"""For each student layer, the teacher layers it replaces."""

LEARNED_TEMPERATURE = (0.5, 4.0)
"""Bounds of a learned temperature."""


@dataclass(frozen=True)
class Terms:
    """The loss terms and metrics of a batch."""

    losses: dict[str, Tensor]
    """Weighted sums over the positions."""
    positions: int
    """Number of positions that the sums are over."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Sums over the positions that are logged but not minimized."""


class Objective(Protocol):
    """Computes the loss terms of a model on a batch; a module that may have parameters."""

    def __call__(self, model: Whisper, batch: Batch) -> Terms: ...


class Transcription(nn.Module):
    """The objective of fine-tuning: the cross-entropy of the labels."""

    label_silence = True
    """Windows of silence need labels here; where there is a teacher, it says what is due."""

    def forward(self, model: Whisper, batch: Batch) -> Terms:
        """Returns the cross-entropy and the accuracy, summed over the labelled positions."""
        states, mask = batch.encode(model)
        output = model.decoder(batch.tokens, states, mask)
        labelled = batch.targets != IGNORED
        logits: Tensor = model.decoder.token_embedding.as_linear(output.state[labelled])
        targets = batch.targets[labelled]
        correct = float((logits.detach().argmax(-1) == targets).sum())
        loss = cross_entropy(logits, targets).sum()
        return Terms({"ce": loss}, int(labelled.sum()), {"accuracy": correct})


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """Weights of the loss terms; a term of weight 0 is not computed.

    Raises:
        ValueError: a negative weight, or no weight at all.
    """

    ce: float = 0.2
    """Weight lambda of the cross-entropy with the labels."""
    kl: float = 1.0
    """Weight gamma of KL(teacher || student) of the next token."""
    embedding: float = 0.0
    """Weight of the feature distance D between the token embeddings of teacher and student."""
    projection: float = 0.0
    """Weight of D between the logits of teacher and student, each minus its mean."""
    hidden: float = 0.0
    """Weight of the relative squared error of each student layer's output against that of the
    last teacher layer it replaces."""
    temperature: float = 1.0
    """Temperature of the KL term; the initial one if it is learned."""
    learn_temperature: bool = False
    """Whether the temperature is a trainable parameter, as in the paper."""

    def __post_init__(self) -> None:
        weights = (self.ce, self.kl, self.embedding, self.projection, self.hidden)
        if min(weights) < 0 or not any(weights):
            raise ValueError("loss weights must not be negative, and at least one must be above 0")
        low, high = LEARNED_TEMPERATURE if self.learn_temperature else (0.1, 10.0)
        if not low <= self.temperature <= high:
            raise ValueError(f"temperature must be {low:g} to {high:g}, not {self.temperature}")


class Distillation(nn.Module):
    """The objective of a student and a frozen teacher.

    Args:
        teacher: gets frozen and put into evaluation mode.
        groups: for each student layer, the teacher layers it replaces.
        settings: weights of the terms.

    Raises:
        ValueError: a group names a layer that the teacher does not have.
    """

    def __init__(self, teacher: Whisper, groups: Groups, settings: LossSettings) -> None:
        super().__init__()
        if groups[-1][-1] >= teacher.dims.n_text_layer:
            raise ValueError(
                f"the student's layers replace the teacher's {groups}, but the teacher has "
                f"{teacher.dims.n_text_layer}"
            )
        # In a list, because a module's attribute would make them the objective's parameters.
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
        """Temperature of the KL term; a learned one is clamped to `LEARNED_TEMPERATURE`."""
        if self.settings.learn_temperature:
            # In place: a clamp in the graph has no gradient outside the bounds, and never returns.
            with torch.no_grad():
                self.log_temperature.clamp_(*(math.log(bound) for bound in LEARNED_TEMPERATURE))
        return self.log_temperature.exp()

    def forward(self, student: Whisper, batch: Batch) -> Terms:
        """Returns every term summed over the positions of the batch's mask.

        Raises:
            ValueError: encoder states of the teacher, but a student with another encoder.
        """
        keep = batch.mask
        with torch.no_grad():
            states, mask = batch.encode(self.teacher)
            kv = self.teacher.decoder.project_audio(states)
            taught = self.teacher.decoder(batch.tokens, kv, mask)
            teacher_logits = self.teacher.decoder.token_embedding.as_linear(taught.state[keep])
        shared = self._shared(student)
        if batch.is_mel and not (shared.encoder and _is_frozen(student.encoder)):
            # The student's encoder differs, or will: it computes states of its own.
            states, _ = batch.encode(student)
            kv = {}
        elif not shared.encoder:
            raise ValueError(
                "the prepared data is the teacher's encoder states, but the student has another "
                'encoder; prepare the data with features = "mel"'
            )
        output = student.decoder(batch.tokens, self._project(student, states, kv, shared), mask)
        logits = student.decoder.token_embedding.as_linear(output.state[keep])
        return self._terms(batch, taught, teacher_logits, output, logits)

    def _terms(
        self,
        batch: Batch,
        taught: DecoderOutput,
        teacher_logits: Tensor,
        output: DecoderOutput,
        logits: Tensor,
    ) -> Terms:
        """The weighted terms; `taught` is the teacher's output, the logits are (N, V)."""
        settings, keep = self.settings, batch.mask
        terms: dict[str, Tensor] = {}
        targets = batch.targets[keep]
        ce, kl, agree = next_token_terms(
            teacher_logits, logits, targets.clamp(min=0), self.temperature
        )
        if settings.ce:
            terms["ce"] = settings.ce * (ce * (targets != IGNORED)).sum()
        if settings.kl:
            terms["kl"] = settings.kl * kl.sum()
        if settings.embedding:
            distance = feature_distance(taught.embedded[keep], output.embedded[keep])
            terms["embedding"] = settings.embedding * distance.sum()
        if settings.projection:
            distance = logit_distance(teacher_logits, logits)
            terms["projection"] = settings.projection * distance.sum()
        if settings.hidden:
            errors = [
                relative_error(layer[keep], taught.layers[group[-1]][keep])
                for layer, group in zip(output.layers, self.groups, strict=True)
            ]
            terms["hidden"] = settings.hidden * torch.stack(errors).mean(0).sum()
        return Terms(terms, int(keep.sum()), {"agreement": float(agree.sum())})

    def _shared(self, student: Whisper) -> _Shared:
        """What the student shares with the teacher; determined once per student."""
        if student not in self._known:
            twins = {i: self._twin(student, i) for i in range(student.dims.n_text_layer)}
            self._known[student] = _Shared(
                encoder=_are_equal(student.encoder, self.teacher.encoder),
                projections={i: twin for i, twin in twins.items() if twin is not None},
            )
        return self._known[student]

    def _twin(self, student: Whisper, layer: int) -> int | None:
        """The teacher layer with the same audio projections as a student layer; None if none.

        None too if the student's projections are trained, because they will not stay the same.
        """
        mine = student.decoder.blocks[layer].cross_attn
        if not (_is_frozen(mine.key) and _is_frozen(mine.value)):  # type: ignore[union-attr, arg-type]
            return None
        for i in self.groups[layer]:
            other = self.teacher.decoder.blocks[i].cross_attn
            if _are_equal(mine.key, other.key) and _are_equal(mine.value, other.value):  # type: ignore[union-attr, arg-type]
                return i
        return None

    @staticmethod
    def _project(
        student: Whisper, states: Tensor, kv: dict[int, KeysAndValues], shared: _Shared
    ) -> dict[int, KeysAndValues]:
        """The student's keys and values of the audio; copied from the teacher where shared.

        Args:
            student: whose keys and values.
            states: of the student's encoder (B, T, d).
            kv: the teacher's, by layer; empty if they are of other states.
            shared: which layers have the teacher's projections.
        """
        reused = {layer: kv[twin] for layer, twin in shared.projections.items() if kv}
        rest = [i for i in range(student.dims.n_text_layer) if i not in reused]
        return reused | student.decoder.project_audio(states, rest)


@dataclass(frozen=True)
class _Shared:
    """What a student has in common with its teacher when training starts."""

    encoder: bool
    """Whether the encoders are equal; the student's may still be trained."""
    projections: dict[int, int]
    """Student layers with the frozen audio projections of a teacher layer, and that layer."""


def _is_frozen(module: nn.Module) -> bool:
    """Whether no parameter of the module is trained."""
    return not any(parameter.requires_grad for parameter in module.parameters())


def _are_equal(module: nn.Module, other: nn.Module) -> bool:
    """Whether two modules have the same weights, bit by bit."""
    a, b = list(module.parameters()), list(other.parameters())
    return len(a) == len(b) and all(map(torch.equal, a, b))
