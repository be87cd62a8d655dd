"""What a vocabulary matrix is used for: statistics of a model over some speech.

Plain SVD treats every token and every direction alike. The decoder does not: it writes few of
the tokens, its final states fill few of the directions, and most changes of an input embedding
are never heard of again. A hundred clips are enough to know which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from baldwhisper_convert.data.batches import Batch
from baldwhisper_convert.model.whisper import Whisper

SMALLEST_FREQUENCY = 1e-6
"""Added to every token's, so that those never met still count."""

_CHUNK = 512  # positions whose probabilities are in memory at once


@dataclass(frozen=True)
class Calibration:
    """Statistics of the decoder's two ends. N positions, d width, V vocabulary."""

    states: Tensor
    """Final states (N, d) float32, at the positions of the batches' masks."""
    frequencies: Tensor
    """Of the tokens (V,) float64: half as counted in text, half as the model expects them."""
    sensitivity: Tensor
    """Fisher information of the next tokens about an input embedding (d, d) float64: a change x
    of the embedding of one token costs about x^T F x / 2 nats, over all positions after it."""

    @property
    def moment(self) -> Tensor:
        """Second moment of the states (d, d) float64."""
        states = self.states.double()
        return states.T @ states / len(states)


def calibrate(
    model: Whisper, batches: Sequence[Batch], counts: Tensor | None = None, *, seed: int = 0
) -> Calibration:
    """Runs a model over speech.

    Args:
        model: in evaluation mode; its embedding must require gradients, as it does unless
            frozen.
        batches: about a hundred clips.
        counts: of each token (V,) in more text than the batches', if there is.
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
    for batch in tqdm(batches, desc="calibrate", unit="batch", disable=len(batches) < 2):
        state, probabilities, gradient = _observe(model, batch, generator)
        states.append(state)
        expected += probabilities
        outer += gradient.T @ gradient
        inputs += len(gradient)
        counted = counted + batch_counts(batch, n_vocab)
    if not inputs:
        raise ValueError("no positions to calibrate on; give some speech")
    frequencies = 0.5 * counted / counted.sum() + 0.5 * expected / expected.sum()
    return Calibration(torch.cat(states), frequencies + SMALLEST_FREQUENCY, outer / inputs)


def batch_counts(batch: Batch, n_vocab: int) -> Tensor:
    """How often each token is an input or a target at the positions of a batch's mask (V,)."""
    targets = batch.targets[batch.mask & (batch.targets >= 0)]
    met = torch.cat([batch.tokens[batch.mask], targets])
    return torch.bincount(met, minlength=n_vocab).double()


def _observe(
    model: Whisper, batch: Batch, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Final states (N, d), summed probabilities (V,), and gradients of input embeddings (N, d).

    The gradient is of the log-probability of tokens drawn from the model itself, as the Fisher
    information wants it; draws at different positions are independent, so the second moment of
    their summed gradients has the sum of theirs as its mean.
    """
    with torch.no_grad():
        audio, mask = batch.encode(model)
    output = model.decoder(batch.tokens, audio, mask)
    state = output.state[batch.mask]
    detached = state.detach().requires_grad_(True)
    expected = torch.zeros(model.dims.n_vocab, dtype=torch.float64)
    for part in detached.split(_CHUNK):
        scores = model.decoder.token_embedding.as_linear(part).log_softmax(-1)
        probabilities = scores.detach().exp()
        expected += probabilities.double().sum(0)
        drawn = torch.multinomial(probabilities, 1, generator=generator)
        scores.gather(1, drawn).sum().backward()
    (gradient,) = torch.autograd.grad(state, output.embedded, detached.grad)
    return state.detach(), expected, gradient[batch.mask].double()
