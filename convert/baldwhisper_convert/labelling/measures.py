"""What a label is judged by, and why it is dropped."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from baldwhisper_convert.data.word_errors import words_wrong
from baldwhisper_convert.labelling.settings import LabelSettings


@dataclass(frozen=True)
class Output:
    """What a model wrote for a clip."""

    text: str
    """Without surrounding white space; empty if it found no speech."""
    avg_logprob: float
    """Mean log-probability (nats) of the tokens and of the end of text."""
    finished: bool = True
    """Whether it ended before the limit of decoding."""


@dataclass(frozen=True)
class Measures:
    """The measures of one label."""

    compression_ratio: float
    """UTF-8 bytes of the text over its zlib-compressed bytes, as in openai-whisper."""
    avg_logprob: float
    """See `Output`."""
    wer: float | None = None
    """Word error rate against the given text; None if that has no words."""
    disagreement: float | None = None
    """Word error rate of the second model's output against the label; None without one."""


def measure(output: Output, given: str = "", second: Output | None = None) -> Measures:
    """Measures a label.

    Args:
        output: the label.
        given: text that the source has for the clip; empty if none.
        second: what another model wrote.

    Example:
        >>> measure(Output("a cat", -0.1), given="A cat sat.").wer
        0.3333333333333333
    """
    return Measures(
        compression_ratio(output.text),
        output.avg_logprob,
        _rate(given, output.text),
        None if second is None else _rate(output.text, second.text),
    )


def reason_to_drop(output: Output, measures: Measures, settings: LabelSettings) -> str:
    """Why a label is not kept; empty if it is."""
    if not output.text:
        return "no speech found"
    if not output.finished:
        return "the label did not end"
    limits = (
        ("compression ratio", measures.compression_ratio, settings.max_compression_ratio),
        ("WER against the given text", measures.wer, settings.max_wer),
        ("disagreement of the models", measures.disagreement, settings.max_disagreement),
    )
    for name, value, most in limits:
        if value is not None and most is not None and value > most:
            return f"{name} above {most:g}"
    if settings.max_wer is not None and measures.wer is None:
        return "no given text for the WER"
    return ""


def compression_ratio(text: str) -> float:
    """UTF-8 bytes of a text over its zlib-compressed bytes; 0 for an empty one.

    As in openai-whisper's `utils.py`.
    """
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def _rate(reference: str, hypothesis: str) -> float | None:
    wrong, total = words_wrong(reference, hypothesis) if reference else (0, 0)
    return wrong / total if total else None
