"""Calibration: statistics over some speech of how a decoder uses its token embedding.

Plain SVD gives every token and every direction the same weight. The decoder does not: it writes few
of the tokens, its final states span few of the directions, and most changes of an input embedding
hardly affect its output. A hundred clips are enough to estimate this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from baldwhisper_convert.data.batches import Batch
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.progress import progress_bar

SMALLEST_FREQUENCY = 1e-6
"""Added to the frequency of every token, so that tokens that do not occur keep a weight."""

_CHUNK = 512  # positions whose probabilities are in memory at once


@dataclass(frozen=True)
class Calibration:
    """Statistics of the decoder's input and output. N positions, d width, V vocabulary."""

    states: Tensor
    """Final states (N, d) float32, at the positions of the batches' masks."""
    frequencies: Tensor
    """Frequencies of the tokens (V,) float64: the mean of counts in text and of the model's mean
    probabilities."""
    sensitivity: Tensor
    """Fisher information F of the output about an input embedding (d, d) float64: changing one
    token's input embedding by x costs about x^T F x / 2 nats over all following positions."""

    @property
    def moment(self) -> Tensor:
        """Second moment of the final states (d, d) float64."""
        states = self.states.double()
        return states.T @ states / len(states)


def calibrate(
    model: Whisper, batches: Sequence[Batch], counts: Tensor | None = None, *, seed: int = 0
) -> Calibration:
    """Runs a model over speech and collects the statistics.

    Args:
        model: in evaluation mode; its token embedding must require gradients.
        batches: about a hundred clips.
        counts: of each token (V,) in other text, added to those in the batches.
        seed: of the tokens sampled to estimate the sensitivity.

    Raises:
        ValueError: no positions, or counts of another vocabulary.
    """
    n_vocab, width = model.dims.n_vocab, model.dims.n_text_state
    if counts is not None and tuple(counts.shape) != (n_vocab,):
        raise ValueError(f"token counts of shape {list(counts.shape)}, expected [{n_vocab}]")
    generator = torch.Generator().manual_seed(seed)
    counted = torch.zeros(n_vocab, dtype=torch.float64) if counts is None else counts.double()
    expected = torch.zeros(n_vocab, dtype=torch.float64)
    outer, inputs = torch.zeros(width, width, dtype=torch.float64), 0
    states = []
    with progress_bar(len(batches), "calibrate", "batch") as bar:
        for batch in batches:
            state, probabilities, gradient = _observe(model, batch, generator)
            states.append(state)
            expected += probabilities
            outer += gradient.T @ gradient
            inputs += len(gradient)
            counted = counted + batch_counts(batch, n_vocab)
            bar.update()
    if not inputs:
        raise ValueError("no positions to calibrate on; give some speech")
    frequencies = 0.5 * counted / counted.sum() + 0.5 * expected / expected.sum()
    return Calibration(torch.cat(states), frequencies + SMALLEST_FREQUENCY, outer / inputs)


def batch_counts(batch: Batch, n_vocab: int) -> Tensor:
    """Counts each token (V,) as an input or a target at the positions of a batch's mask."""
    targets = batch.targets[batch.mask & (batch.targets >= 0)]
    ids = torch.cat([batch.tokens[batch.mask], targets])
    return torch.bincount(ids, minlength=n_vocab).double()


def _observe(
    model: Whisper, batch: Batch, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns final states (N, d), summed probabilities (V,), and gradients by inputs (N, d).

    The gradients are of log-probabilities of tokens that are sampled from the model itself, as in
    the definition of the Fisher information. Samples at different positions are independent, so
    the second moment of their summed gradient equals, in expectation, the sum of their moments.
    """
    with torch.no_grad():
        audio, mask = batch.encode(model)
    output = model.decoder(batch.tokens, audio, mask)
    state = output.state[batch.mask]
    # The logits of all positions do not fit in memory: back-propagate to the states in chunks.
    detached = state.detach().requires_grad_(True)
    expected = torch.zeros(model.dims.n_vocab, dtype=torch.float64)
    for part in detached.split(_CHUNK):
        scores = model.decoder.token_embedding.as_linear(part).log_softmax(-1)
        probabilities = scores.detach().exp()
        expected += probabilities.double().sum(0)
        sampled = torch.multinomial(probabilities, 1, generator=generator)
        scores.gather(1, sampled).sum().backward()
    # Then once through the decoder, from the states to the input embeddings.
    (gradient,) = torch.autograd.grad(state, output.embedded, detached.grad)
    return state.detach(), expected, gradient[batch.mask].double()
