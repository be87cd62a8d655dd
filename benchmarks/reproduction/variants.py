"""The variants of reproduction.py: the paper's choices, each held against what else there is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from baldwhisper_convert.compression.factorize import FactorizeSettings
from baldwhisper_convert.compression.merge import MergeSettings
from baldwhisper_convert.training.objectives import LossSettings

LAYERS = LossSettings(ce=1.0, kl=1.0, learn_temperature=True)
"""The paper's loss of merged students: cross-entropy and KL with a learned temperature."""
VOCABULARY = LossSettings(ce=1.0, kl=0.0, embedding=1.0, projection=1.0)
"""Its loss of sheared students: cross-entropy and the two feature terms."""
PLAIN = LossSettings(ce=1.0, kl=0.0)
TOGETHER = replace(VOCABULARY, kl=1.0, learn_temperature=True)
SHEARED = FactorizeSettings(rank=96, init="svd")


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
    """Of a training of the merged student before it is sheared; None for no such training."""
    loss: LossSettings = field(default_factory=lambda: LAYERS)
    longer: int = 1
    """Times the usual number of passes: for what takes two trainings otherwise."""
    slower: float = 1
    """What the usual learning rate is divided by."""
    seed: int = 0
    """Of the training: order of the windows, prompts."""


def variants(alpha: float, beta: float) -> dict[str, Variant]:
    """All variants by name: what the paper compares with, then what else there is.

    Args:
        alpha: weight of the lower layer of a pair, as the recipe has it.
        beta: of the upper one.
    """
    merged = Variant(group="layers", merge=MergeSettings(alpha=alpha, beta=beta))
    sheared = Variant(group="vocabulary", factorize=SHEARED, loss=VOCABULARY)
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
    found["sheared, rank 96"] = sheared
    found["no feature loss"] = replace(sheared, loss=PLAIN)
    found["random start"] = replace(sheared, factorize=replace(SHEARED, init="random"))
    found["both at once"] = replace(merged, group="vocabulary", factorize=SHEARED,
                                    loss=TOGETHER, longer=2)  # fmt: skip
    found["one after the other"] = replace(merged, group="vocabulary", before=LAYERS,
                                           factorize=SHEARED, loss=VOCABULARY)  # fmt: skip
    for rank in (32, 64, 128, 192):
        form = replace(SHEARED, rank=rank)
        found[f"sheared, rank {rank}"] = replace(sheared, factorize=form)
    return found | _ours(merged, sheared)


def _ours(merged: Variant, sheared: Variant) -> dict[str, Variant]:
    joint = replace(sheared, factorize=replace(SHEARED, init="joint"))
    asked = replace(joint, loss=LAYERS)
    return {
        "joint start": joint,
        "joint start, KL": asked,
        "joint start, KL, a sixth of the rate": replace(asked, slower=6),
        "merged equally": replace(merged, merge=MergeSettings(alpha=1.0, beta=1.0)),
        "merged, upper weighs ten": replace(merged, merge=MergeSettings(alpha=0.1, beta=1.0)),
        "merged, layers compared": replace(merged, loss=replace(LAYERS, hidden=1.0)),
    }
