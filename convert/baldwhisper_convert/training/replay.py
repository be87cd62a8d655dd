"""Keeps another language while a model is trained on one: a teacher's predictions on its speech.

A model that is fine-tuned on one language forgets the others. A part of every batch is speech of
another language, on which the model is held to the predictions of a frozen teacher, mostly of the
model that the training started from: experience replay with distillation, as in Learning without
Forgetting (Li and Hoiem, arXiv 1606.09282).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from baldwhisper_convert.data.batches import Batch
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.training.objectives import Distillation, LossSettings, Terms
from baldwhisper_convert.training.sharing import Groups

REPLAY = "replay"
"""Name of the term in the log."""
AGREEMENT = "replay_agreement"
"""Name of the share of the replayed positions at which both models choose the same token."""


class FullContext(Distillation):
    """Distillation by a teacher that encodes 30 s, to a student that encodes a clip alone.

    A Whisper model that was not trained for a dynamic audio context predicts badly in one. So what
    it knows is taken from the input that it was trained on: the clip and then silence.
    """

    def forward(self, student: Whisper, batch: Batch) -> Terms:
        """Returns every term of the decoder, summed over its positions."""
        with torch.no_grad():
            frames = 2 * self.teacher.dims.n_audio_ctx
            taught = self.teacher.encoder(followed_by_silence(batch.features, frames))
        states, mask = batch.encode(student)
        return self._decode(student, batch, taught, states, (None, mask), self._shared(student))


def followed_by_silence(mel: Tensor, frames: int) -> Tensor:
    """Extends log-mel of clips with that of silence, which is 8 decades below the loudest value.

    Args:
        mel: of prepared windows (B, n_mels, T), zero after the end of the audio.
        frames: of the result, at least T.

    Returns:
        (B, n_mels, frames).
    """
    numbers = torch.arange(1, mel.shape[2] + 1, device=mel.device)
    ends = ((mel != 0).any(1) * numbers).amax(1)
    # log10 is scaled by 4, and Whisper's log-mel has no power below 1e-10, which is -1.5.
    silence = (mel.amax((1, 2)) - 2.0).clamp(min=-1.5)[:, None, None]
    clips = torch.where(numbers <= ends[:, None, None], mel, silence)
    rest = frames - mel.shape[2]
    return torch.cat([clips, silence.expand(-1, mel.shape[1], rest)], dim=2)


class WithReplay(nn.Module):
    """An objective, and for the replayed windows of a batch the KL to another teacher.

    Every position has the same weight, whichever language it is of, times `weight`.

    Args:
        objective: of the other windows.
        teacher: of the replayed ones; gets frozen.
        groups: for each decoder layer of the model, the teacher layers that it replaces.
        weight: of the term.
        encoder_groups: the same for its encoder layers; by default both encoders have the same.
        full_context: whether the teacher needs 30 s, although the model is trained on clips alone.
    """

    def __init__(
        self,
        objective: nn.Module,
        teacher: Whisper,
        groups: Groups,
        weight: float = 1.0,
        encoder_groups: Groups | None = None,
        *,
        full_context: bool = False,
    ) -> None:
        super().__init__()
        self.objective = objective
        settings = LossSettings(ce=0.0, kl=weight)
        kind = FullContext if full_context else Distillation
        self._kl = kind(teacher, groups, settings, encoder_groups)
        self.needs_text = getattr(objective, "needs_text", True)
        self.label_silence = bool(getattr(objective, "label_silence", False))

    @property
    def teachers(self) -> list[Whisper]:
        """The frozen models, which must be on the device of the training."""
        own = [self.objective.teacher] if isinstance(self.objective, Distillation) else []
        return [*own, self._kl.teacher]

    def forward(self, model: Whisper, batch: Batch) -> Terms:
        """Returns the terms of the objective and, named `replay`, the KL, summed over positions.

        A batch without replayed windows, such as those of an evaluation, has no such term.

        Raises:
            ValueError: all windows are replayed.
        """
        if batch.replayed is None:
            terms: Terms = self.objective(model, batch)
            return terms
        if bool(batch.replayed.all()) or not bool(batch.replayed.any()):
            raise ValueError("replay: a part of a batch has windows of one language only")
        terms = self.objective(model, batch.rows(~batch.replayed))
        kept = self._kl(model, batch.rows(batch.replayed))
        return replace(
            terms,
            losses=terms.losses | {REPLAY: kept.losses["kl"]},
            positions=terms.positions + kept.positions,
            metrics=terms.metrics | {AGREEMENT: kept.metrics["agreement"]},
            parts=dict.fromkeys(terms.metrics, terms.positions) | {AGREEMENT: kept.positions},
        )
