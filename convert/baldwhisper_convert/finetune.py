"""The stage that teaches a model labelled speech: cross-entropy, and nothing to compare with."""

from __future__ import annotations

from torch import Tensor, nn

from baldwhisper_convert.batches import IGNORED, Batch
from baldwhisper_convert.losses import cross_entropy
from baldwhisper_convert.modeling import Whisper
from baldwhisper_convert.training import Terms


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
