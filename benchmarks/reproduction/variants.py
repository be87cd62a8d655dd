"""The variants of the reproduction: the paper's choices, and others to compare them with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from baldwhisper_convert.compression.factorize import FactorizeSettings
from baldwhisper_convert.compression.merge import MergeSettings
from baldwhisper_convert.training.objectives import LossSettings

LAYERS = LossSettings(ce=1.0, kl=1.0, learn_temperature=True)
"""The paper's loss of merged students: cross-entropy and KL with a learned temperature."""
VOCABULARY = LossSettings(ce=1.0, kl=0.0, embedding=1.0, projection=1.0)
"""Its loss of factorized ("sheared") students: cross-entropy and two feature terms."""
PLAIN = LossSettings(ce=1.0, kl=0.0)
TOGETHER = replace(VOCABULARY, kl=1.0, learn_temperature=True)
FACTORIZED = FactorizeSettings(rank=96, init="svd")
OTHER_RANKS = (32, 64, 128, 192)
EARLIER_NAMES = {f"factorized, rank {rank}": f"sheared, rank {rank}" for rank in (96, *OTHER_RANKS)}
EARLIER_NAMES["sequential"] = "one after the other"
"""Variants that were renamed, and what files of earlier runs call them."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A student, what it starts from, and how it is trained."""

    group: str
    """What it is compared with: the first variant of its group."""
    merge: MergeSettings | None = None
    """How the teacher's layers are made fewer; None to start from the recipe's merged and trained
    student."""
    factorize: FactorizeSettings | None = None
    before: LossSettings | None = None
    """Of a training of the merged student before it is factorized; None for no such training."""
    loss: LossSettings = field(default_factory=lambda: LAYERS)
    longer: int = 1
    """How many times the usual number of passes: for what replaces two trainings."""
    slower: float = 1
    """Divisor of the usual learning rate."""
    seed: int = 0
    """Of the training: order of the windows, prompts."""


def variants(alpha: float, beta: float) -> dict[str, Variant]:
    """All variants by name: the paper's comparisons, then others.

    Args:
        alpha: weight of the lower layer of a pair, as the recipe has it.
        beta: of the upper one.
    """
    merged = Variant(group="layers", merge=MergeSettings(alpha=alpha, beta=beta))
    factorized = Variant(group="vocabulary", factorize=FACTORIZED, loss=VOCABULARY)
    found = {"merged": merged, "merged, another seed": replace(merged, seed=1)}
    kept = {"upper": "upper", "even": "evenly spaced", "lower": "lower"}
    if beta == 0:
        del kept["lower"]  # the same weights as "merged"
    for method, name in kept.items():
        layers = MergeSettings(method=method)  # type: ignore[arg-type]
        found[f"{name} layers kept"] = replace(merged, merge=layers)
    for seed in range(3):
        layers = MergeSettings(method="random", seed=seed)
        found[f"random layers kept, seed {seed}"] = replace(merged, merge=layers)
    found["merged, no KL"] = replace(merged, loss=PLAIN)
    found["factorized, rank 96"] = factorized
    found["no feature loss"] = replace(factorized, loss=PLAIN)
    found["random start"] = replace(factorized, factorize=replace(FACTORIZED, init="random"))
    found["both at once"] = replace(merged, group="vocabulary", factorize=FACTORIZED,
                                    loss=TOGETHER, longer=2)  # fmt: skip
    found["sequential"] = replace(merged, group="vocabulary", before=LAYERS,
                                           factorize=FACTORIZED, loss=VOCABULARY)  # fmt: skip
    for rank in OTHER_RANKS:
        form = replace(FACTORIZED, rank=rank)
        found[f"factorized, rank {rank}"] = replace(factorized, factorize=form)
    return found | _ours(merged, factorized)


def _ours(merged: Variant, factorized: Variant) -> dict[str, Variant]:
    joint = replace(factorized, factorize=replace(FACTORIZED, init="joint"))
    with_kl = replace(joint, loss=LAYERS)
    return {
        "joint start": joint,
        "joint start, KL": with_kl,
        "joint start, KL, a sixth of the rate": replace(with_kl, slower=6),
        "merged equally": replace(merged, merge=MergeSettings(alpha=1.0, beta=1.0)),
        "merged, upper weighs ten": replace(merged, merge=MergeSettings(alpha=0.1, beta=1.0)),
        "merged, layers compared": replace(merged, loss=replace(LAYERS, hidden=1.0)),
    }
