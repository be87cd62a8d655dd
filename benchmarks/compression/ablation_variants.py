"""The variants of ablation.py: which choices of the method are compared."""

from __future__ import annotations

from dataclasses import dataclass, replace

from baldwhisper_convert.compression.factorize import FactorizeSettings
from baldwhisper_convert.compression.merge import MergeSettings
from baldwhisper_convert.training.objectives import LossSettings

ENCODER = ("encoder.*",)
PROJECTIONS = (*ENCODER, "*.cross_attn.key.*", "*.cross_attn.value.*")
VOCABULARY = ("decoder.token_embedding.[fdw]*",)  # factors and dense rows, or the dense weight
FROZEN = (*PROJECTIONS, *VOCABULARY)


KEPT = MergeSettings(method="keep", keep=(0, 1, 4, 5))
SHORT = FactorizeSettings()  # rank 96, joint, separate projections, no dense rows
HYBRID = replace(SHORT, dense_rows=4000)
LOSS = LossSettings(ce=0.1, kl=1.0, hidden=1.0)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to compress; the defaults are the plain variant, which others are compared with."""

    layers: MergeSettings = KEPT
    embedding: FactorizeSettings | None = HYBRID
    loss: LossSettings = LOSS
    real: float = 1.0
    """Share of the recordings, by their sources."""
    synthetic: float = 0.0
    freeze: tuple[str, ...] = FROZEN
    learning_rate: float = 3e-4
    longer: int = 1
    """How many times the usual number of steps."""


PLAIN = Variant()

VARIANTS: dict[str, Variant] = {
    "4 layers kept (0, 1, 4, 5)": PLAIN,
    "3 layers kept (0, 3, 5)": Variant(layers=MergeSettings(method="keep", keep=(0, 3, 5))),
    "3 layers, evenly spaced": Variant(layers=MergeSettings(method="even")),
    "3 layers, pairs merged, alpha 0.1": Variant(layers=MergeSettings(alpha=0.1)),
    "3 layers, pairs merged, alpha 0.5": Variant(layers=MergeSettings(alpha=0.5)),
    "dense embedding": Variant(embedding=None),
    "svd, one projection, K = 0": Variant(embedding=replace(SHORT, init="svd")),
    "joint, one projection, K = 0": Variant(embedding=replace(SHORT, projections="shared")),
    "joint, K = 0": Variant(embedding=SHORT),
    "joint with focus, K = 0": Variant(embedding=replace(SHORT, focus=0.03)),
    "joint, K = 1000": Variant(embedding=replace(SHORT, dense_rows=1000)),
    "CE": Variant(loss=LossSettings(ce=1.0, kl=0.0)),
    "CE + KL": Variant(loss=LossSettings(ce=0.1, kl=1.0)),
    "CE + KL + feature": Variant(loss=LossSettings(ce=0.1, kl=1.0, embedding=0.1, projection=0.1)),
    "synthetic speech too": Variant(synthetic=1.0),
    "vocabulary trained": Variant(freeze=PROJECTIONS),
    "projections of the audio trained": Variant(freeze=(*ENCODER, *VOCABULARY)),
    "layers 0 and 1 frozen": Variant(freeze=(*FROZEN, "decoder.blocks.[01].*")),
    "learning rate 1e-4": Variant(learning_rate=1e-4),
    "learning rate 1e-3": Variant(learning_rate=1e-3),
    "25 % of the recordings, 3x as long": Variant(real=0.25, longer=3),
    "50 % of the recordings, 3x as long": Variant(real=0.5, longer=3),
    "the recordings, 3x as long": Variant(longer=3),
    "and 25 % of the synthetic speech, 3x as long": Variant(synthetic=0.25, longer=3),
    "and the synthetic speech, 3x as long": Variant(synthetic=1.0, longer=3),
}
