"""The average of models that were trained from the same one.

Weights between two fine-tunings of a model are often better than both ("model soups", Wortsman et
al., arXiv 2203.05482), and weights between a fine-tuning and its start keep more of what the start
knew ("WiSE-FT", Wortsman et al., arXiv 2109.01903). The result is as large and as fast as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint


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
        _check_form(first, other)
    total = sum(shares)
    state = {
        name: sum(
            (share / total) * one.state[name].double()
            for one, share in zip(checkpoints, shares, strict=True)
        )
        if tensor.is_floating_point()
        else tensor
        for name, tensor in first.state.items()
    }
    languages: tuple[str, ...] | None = ()
    for one in checkpoints:
        if languages is not None:
            languages = None if one.languages is None else (*languages, *one.languages)
    return replace(
        first,
        state={name: torch.as_tensor(t).to(first.state[name].dtype) for name, t in state.items()},
        languages=None if languages is None else tuple(dict.fromkeys(languages)),
        source=" + ".join(one.source for one in checkpoints),
    )


def _check_form(first: Checkpoint, other: Checkpoint) -> None:
    """Refuses models whose weights have different meanings."""
    if (first.dims, first.embedding) != (other.dims, other.embedding):
        raise ValueError(
            f"{other.source} has other layers, sizes or factors than {first.source}; only models "
            "that were trained from the same one have an average"
        )
    if first.vocabulary.ranks != other.vocabulary.ranks:
        raise ValueError(f"{other.source} has another vocabulary than {first.source}")
    for name, tensor in first.state.items():
        if not tensor.is_floating_point() and not torch.equal(tensor, other.state[name]):
            raise ValueError(
                f"{other.source} has other dense rows of the embedding than {first.source}"
            )
