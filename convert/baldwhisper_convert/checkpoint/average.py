"""The average of models that were trained from the same one.

Weights between two fine-tunings of a model are often better than both ("model soups", Wortsman et
al., arXiv 2203.05482), and weights between a fine-tuning and its start keep more of what the start
knew ("WiSE-FT", Wortsman et al., arXiv 2109.01903). The result is as large and as fast as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from baldwhisper_convert.checkpoint.checkpoint import SOURCES, Checkpoint


def average(checkpoints: Sequence[Checkpoint], shares: Sequence[float]) -> Checkpoint:
    """The weighted mean of models, with the vocabulary and audio context of the first.

    Args:
        checkpoints: two or more, of the same form.
        shares: of each, above 0; they are divided by their sum.

    Returns:
        A model for the languages of all of them.

    Raises:
        ValueError: fewer than two models, or models of different forms.
    """
    if len(checkpoints) < 2 or len(checkpoints) != len(shares):
        raise ValueError("an average needs two or more models, and a share for each")
    first, *others = checkpoints
    for other in others:
        check_same_form(other, first)
    factors = [share / sum(shares) for share in shares]
    state = {
        name: _mean([one.state[name] for one in checkpoints], factors)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in first.state.items()
    }
    known = [one.languages for one in checkpoints if one.languages is not None]
    languages = tuple(dict.fromkeys(code for codes in known for code in codes))
    return replace(
        first,
        state=state,
        languages=languages if len(known) == len(checkpoints) else None,
        source=SOURCES.join(one.source for one in checkpoints),
    )


def _mean(tensors: Sequence[torch.Tensor], factors: Sequence[float]) -> torch.Tensor:
    """The weighted sum, computed in float64."""
    total = torch.zeros_like(tensors[0], dtype=torch.float64)
    for tensor, factor in zip(tensors, factors, strict=True):
        total += factor * tensor.double()
    return total.to(tensors[0].dtype)


def check_same_form(model: Checkpoint, other: Checkpoint) -> None:
    """Refuses a model whose weights do not mean what those of another model mean.

    Raises:
        ValueError: other layers, sizes, factors of the embedding, or vocabulary.
    """
    if (model.dims, model.embedding) != (other.dims, other.embedding):
        raise ValueError(
            f"{model.source} has other layers, sizes or factors than {other.source}; both must "
            "have been trained from the same model"
        )
    if model.vocabulary.ranks != other.vocabulary.ranks:
        raise ValueError(f"{model.source} has another vocabulary than {other.source}")
    for name, tensor in model.state.items():
        if not tensor.is_floating_point() and not torch.equal(tensor, other.state[name]):
            raise ValueError(
                f"{model.source} has other dense rows of the embedding than {other.source}"
            )
