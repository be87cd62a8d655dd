"""The variants of reproduction.py: the paper's choices, each held against what else there is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from baldwhisper_convert.distill import LossSettings
from baldwhisper_convert.factorize import FactorizeSettings
from baldwhisper_convert.merge import MergeSettings

LAYERS = LossSettings(ce=1.0, kl=1.0, learn_temperature=True)
"""The paper's loss of merged students: cross-entropy and KL with a learned temperature."""
VOCABULARY = LossSettings(ce=1.0, kl=0.0, embedding=1.0, projection=1.0)
"""Its loss of sheared students: cross-entropy and the two feature terms."""
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
    loss: LossSettings = field(default_factory=lambda: LAYERS)
    longer: int = 1
    """Times the usual number of passes: for what takes two trainings otherwise."""
    slower: float = 1
    """What the usual learning rate is divided by."""
    seed: int = 0
    """Of the training: order of the windows, prompts."""


def variants(alpha: float, beta: float) -> dict[str, Variant]:
    """All variants by name.

    Args:
        alpha: weight of the lower layer of a pair, as the recipe has it.
        beta: of the upper one.
    """
    merged = MergeSettings(alpha=alpha, beta=beta)
    found = {"merged": Variant(group="layers", merge=merged)}
    found["merged, another seed"] = replace(found["merged"], seed=1)
    for name, weights in (("merged equally", (1.0, 1.0)), ("merged, upper weighs ten", (0.1, 1.0))):
        if weights != (alpha, beta):
            layers = MergeSettings(alpha=weights[0], beta=weights[1])
            found[name] = Variant(group="layers", merge=layers)
    for method, name in (("upper", "upper"), ("lower", "lower"), ("even", "evenly spaced")):
        if method == "lower" and beta == 0:
            continue  # the same weights as "merged"
        layers = MergeSettings(method=method)  # type: ignore[arg-type]
        found[f"{name} layers kept"] = Variant(group="layers", merge=layers)
    for seed in range(3):
        layers = MergeSettings(method="random", seed=seed)
        found[f"random layers kept, seed {seed}"] = Variant(group="layers", merge=layers)
    found["merged, no KL"] = Variant(
        group="layers", merge=merged, loss=LossSettings(ce=1.0, kl=0.0)
    )
    found["sheared, rank 96"] = Variant(group="vocabulary", factorize=SHEARED, loss=VOCABULARY)
    found["no feature loss"] = Variant(
        group="vocabulary", factorize=SHEARED, loss=LossSettings(ce=1.0, kl=0.0)
    )
    found["random start"] = Variant(
        group="vocabulary", factorize=replace(SHEARED, init="random"), loss=VOCABULARY
    )
    found["joint start, KL"] = Variant(
        group="vocabulary", factorize=replace(SHEARED, init="joint"), loss=LAYERS
    )
    found["joint start, KL, a sixth of the rate"] = replace(found["joint start, KL"], slower=6)
    for rank in (32, 64, 128, 192):
        form = replace(SHEARED, rank=rank)
        found[f"sheared, rank {rank}"] = Variant(
            group="vocabulary", factorize=form, loss=VOCABULARY
        )
    found["both at once"] = Variant(
        group="vocabulary", merge=merged, factorize=SHEARED, loss=TOGETHER, longer=2
    )
    found["joint start"] = Variant(
        group="vocabulary", factorize=replace(SHEARED, init="joint"), loss=VOCABULARY
    )
    found["merged, layers compared"] = Variant(
        group="layers", merge=merged, loss=replace(LAYERS, hidden=1.0)
    )
    return found
