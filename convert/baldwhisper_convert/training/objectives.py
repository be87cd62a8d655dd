"""Training objectives: what a model is compared with on a batch, and with which weights.

`Transcription` fine-tunes a model on labels. `Distillation` trains a student against a frozen
teacher, whether its layers were merged, its embedding factorized, or both. Both return `Terms`,
which loop.py sums over batches and processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from baldwhisper_convert.data.batches import IGNORED, Batch
from baldwhisper_convert.model.whisper import DecoderOutput, Whisper
from baldwhisper_convert.training.encoder_states import Encoded, encode_both, state_errors
from baldwhisper_convert.training.fused_losses import logit_distance, next_token_terms
from baldwhisper_convert.training.losses import cross_entropy, feature_distance, relative_error
from baldwhisper_convert.training.settings import ADDED
from baldwhisper_convert.training.sharing import Groups, Shared, is_frozen

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
    audio: dict[str, Tensor] = field(default_factory=dict)
    """Weighted sums over the encoder positions of the audio, `Batch.audio_positions`."""
    parts: dict[str, int] = field(default_factory=dict)
    """Positions of the metrics that are of a part of them only."""


class Objective(Protocol):
    """Computes the loss terms of a model on a batch; a module that may have parameters.

    An attribute `needs_text` of False says that audio without labels is enough.
    """

    def __call__(self, model: Whisper, batch: Batch) -> Terms: ...


class Transcription(nn.Module):
    """The objective of fine-tuning: the cross-entropy of the labels."""

    needs_text = True
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
    encoder: float = field(default=0.0, metadata=ADDED)
    """Weight of the relative squared error of the encoder's layers, each against the last teacher
    layer it replaces, and of that of its final states. It needs no text; without the other terms
    the decoder does not run."""
    temperature: float = 1.0
    """Temperature of the KL term; the initial one if it is learned."""
    learn_temperature: bool = False
    """Whether the temperature is a trainable parameter, as in the paper."""

    def __post_init__(self) -> None:
        weights = (*self._of_decoder, self.encoder)
        if min(weights) < 0 or not any(weights):
            raise ValueError("loss weights must not be negative, and at least one must be above 0")
        low, high = LEARNED_TEMPERATURE if self.learn_temperature else (0.1, 10.0)
        if not low <= self.temperature <= high:
            raise ValueError(f"temperature must be {low:g} to {high:g}, not {self.temperature}")

    @property
    def decodes(self) -> bool:
        """Whether any term needs the decoder, and so text."""
        return any(self._of_decoder)

    @property
    def _of_decoder(self) -> tuple[float, ...]:
        return (self.ce, self.kl, self.embedding, self.projection, self.hidden)


class Distillation(nn.Module):
    """The objective of a student and a frozen teacher.

    Args:
        teacher: gets frozen and put into evaluation mode.
        groups: for each decoder layer of the student, the teacher layers it replaces.
        settings: weights of the terms.
        encoder_groups: the same for its encoder layers; by default both encoders have the same.

    Raises:
        ValueError: a group names a layer that the teacher does not have.
    """

    def __init__(
        self,
        teacher: Whisper,
        groups: Groups,
        settings: LossSettings,
        encoder_groups: Groups | None = None,
    ) -> None:
        super().__init__()
        dims = teacher.dims
        encoder_groups = encoder_groups or tuple((i,) for i in range(dims.n_audio_layer))
        for part, part_groups, n_layers in (
            ("decoder", groups, dims.n_text_layer),
            ("encoder", encoder_groups, dims.n_audio_layer),
        ):
            if part_groups[-1][-1] >= n_layers:
                raise ValueError(
                    f"the student's {part} layers replace the teacher's {part_groups}, but the "
                    f"teacher has {n_layers}"
                )
        # In a list, because a module's attribute would make them the objective's parameters.
        self._teacher = [teacher.eval().requires_grad_(False)]
        self.groups, self.encoder_groups, self.settings = groups, encoder_groups, settings
        self.needs_text = settings.decodes
        self._known: WeakKeyDictionary[Whisper, Shared] = WeakKeyDictionary()
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
        """Returns every term summed over its positions.

        Raises:
            ValueError: encoder states of the teacher, but a student with another encoder; or
                nothing that the terms could teach is trained.
        """
        shared = self.check(student, is_mel=batch.is_mel)
        if not batch.is_mel or (shared.encoder and is_frozen(student.encoder)):
            states, mask = batch.encode(self.teacher)
            return self._decode(student, batch, states, states, (mask, mask), shared)
        # The student's encoder differs, or will: it computes states of its own.
        encoded = encode_both(student.encoder, self.teacher.encoder, batch, shared.blocks)
        audio = self._audio_terms(encoded)
        if not self.needs_text:
            return Terms({}, int(batch.mask.sum()), {}, audio)
        teachers, own = encoded.teacher.state, encoded.student.state
        mask = batch.audio_mask()
        terms = self._decode(student, batch, teachers, own, (mask, mask), shared)
        return replace(terms, audio=audio)

    def check(self, student: Whisper, *, is_mel: bool) -> Shared:
        """What student and teacher share; ValueError, as `forward`, for data that does not fit."""
        shared = self._shared(student)
        if not is_mel and not shared.encoder:
            raise ValueError(
                "the prepared data is the teacher's encoder states, but the student has another "
                'encoder; prepare the data with features = "mel"'
            )
        return shared

    def _audio_terms(self, encoded: Encoded) -> dict[str, Tensor]:
        """The weighted terms of the encoder's states."""
        if not self.settings.encoder:
            return {}
        layers, final = state_errors(encoded, self.encoder_groups)
        weight = self.settings.encoder
        return {"encoder_layers": weight * layers, "encoder_states": weight * final}

    def _decode(
        self,
        student: Whisper,
        batch: Batch,
        taught_states: Tensor,
        states: Tensor,
        masks: tuple[Tensor | None, Tensor | None],
        shared: Shared,
    ) -> Terms:
        """Compares both decoders on their states (B, T, d); masks: teacher's, then student's."""
        keep = batch.mask
        with torch.no_grad():
            kv = self.teacher.decoder.project_audio(taught_states)
            taught = self.teacher.decoder(batch.tokens, kv, masks[0])
            teacher_logits = self.teacher.decoder.token_embedding.as_linear(taught.state[keep])
        reusable = kv if states is taught_states else {}
        own_kv = shared.project(student, states, reusable)
        output = student.decoder(batch.tokens, own_kv, masks[1])
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

    def _shared(self, student: Whisper) -> Shared:
        """What the student shares with the teacher; determined once per student."""
        if student not in self._known:
            self._check(student)
            self._known[student] = Shared.of(student, self.teacher, self.groups)
        return self._known[student]

    def _check(self, student: Whisper) -> None:
        """Refuses terms that have nothing to teach, and parameters that nothing teaches.

        Raises:
            ValueError: as said.
        """
        n_layers = student.dims.n_audio_layer
        if self.settings.encoder and len(self.encoder_groups) != n_layers:
            raise ValueError(
                f"the student has {n_layers} encoder layers, but its groups of the teacher's are "
                f"{self.encoder_groups}"
            )
        trains = any(p.requires_grad for p in student.parameters())
        if not trains:
            return  # an evaluation
        if self.settings.encoder and is_frozen(student.encoder):
            raise ValueError(
                "loss.encoder teaches the encoder, but all of it is frozen; set loss.encoder to 0 "
                "or change training.freeze"
            )
        if not self.settings.decodes and not is_frozen(student.decoder):
            raise ValueError(
                "loss.encoder alone teaches the decoder nothing; add decoder.* to training.freeze, "
                "or give another term of the loss a weight"
            )
