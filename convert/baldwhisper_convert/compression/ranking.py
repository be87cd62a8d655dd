"""How far the students of several plans are from their teacher, before any training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.compression.agreement import Agreement, Reference
from baldwhisper_convert.compression.encoder_agreement import EncoderAgreement, EncoderReference
from baldwhisper_convert.compression.layer_similarity import layer_similarity
from baldwhisper_convert.compression.layers import LayerPlan, Part, apply_plan
from baldwhisper_convert.data.batches import Batch
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.progress import progress_bar

Compare = Callable[[Whisper], Agreement | EncoderAgreement]
"""Measures a student."""


class Measured(Protocol):
    """What was measured of a student."""

    @property
    def distance(self) -> float:
        """From the teacher; smaller is better."""
        ...


M = TypeVar("M", bound=Measured)


def measure_plans(
    checkpoint: Checkpoint,
    plans: Sequence[LayerPlan],
    part: Part,
    batches: Sequence[Batch],
    has_text: bool,
) -> tuple[list[LayerPlan], Compare, dict[str, Any]]:
    """Measures the students of some plans.

    Args:
        checkpoint: the teacher.
        plans: of the students.
        part: whose layers the plans are for.
        batches: speech to measure with; for the encoder, log-mel.
        has_text: whether the speech has text.

    Returns:
        The plans, best first; what measures any student; and the metrics of all plans, `choices`,
        `positions` and `similarity`.

    Raises:
        ValueError: speech that the part cannot be measured with.
    """
    # The teacher runs once; every candidate is compared with its output.
    check_comparable(part, is_mel=all(batch.is_mel for batch in batches), has_text=has_text)
    teacher = Whisper.from_checkpoint(checkpoint)
    compare: Compare
    if part == "encoder":
        encoders = EncoderReference(teacher, batches, has_text=has_text)
        compare = encoders.compare
        positions, similarity = encoders.positions, encoders.layer_similarity
    else:
        reference = Reference(teacher, batches)
        compare = reference.compare
        positions, similarity = reference.positions, layer_similarity(teacher, reference)
    ranking: Sequence[tuple[LayerPlan, Agreement | EncoderAgreement]]
    ranking = rank(checkpoint, plans, compare, part)
    choices = [{"plan": str(plan)} | figures_of(found) for plan, found in ranking]
    metrics = {"positions": positions, "choices": choices, "similarity": similarity.tolist()}
    return [plan for plan, _ in ranking], compare, metrics


def check_comparable(part: Part, *, is_mel: bool, has_text: bool) -> None:
    """Checks that layers can be compared on such speech.

    Args:
        part: of the layers.
        is_mel: whether the speech is log-mel, not encoder states.
        has_text: whether it has text.

    Raises:
        ValueError: they cannot.
    """
    if part == "encoder" and not is_mel:
        raise ValueError(
            "the prepared data is encoder states, but comparing encoders needs log-mel; "
            'prepare the data with features = "mel"'
        )
    if part == "decoder" and not has_text:
        raise ValueError(
            'decoder layers are compared at the tokens of a text, but the data has labels = "none"'
        )


def rank(
    checkpoint: Checkpoint,
    plans: Sequence[LayerPlan],
    compare: Callable[[Whisper], M],
    part: Part = "decoder",
) -> list[tuple[LayerPlan, M]]:
    """Ranks the students of a teacher by their distance from it before training, smallest first.

    Args:
        checkpoint: the teacher.
        plans: of the students.
        compare: measures a student, as `Reference.compare` does.
        part: whose layers the plans are for.
    """
    measured = []
    with progress_bar(len(plans), "compare layers", "choice") as bar:
        for plan in plans:
            student = Whisper.from_checkpoint(apply_plan(checkpoint, plan, part))
            measured.append((plan, compare(student)))
            bar.update()
    return sorted(measured, key=lambda pair: pair[1].distance)


def figures_of(agreement: Agreement | EncoderAgreement) -> dict[str, float]:
    """What was measured of a student, by name."""
    return {name: value for name, value in asdict(agreement).items() if value is not None}
