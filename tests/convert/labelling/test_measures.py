"""Measures of labels, and which labels are dropped."""

from __future__ import annotations

from typing import Any

import pytest

from baldwhisper_convert.labelling.measures import (
    Measures,
    Output,
    compression_ratio,
    measure,
    reason_to_drop,
)
from baldwhisper_convert.labelling.settings import LabelSettings
from baldwhisper_mlx.transcription import fallback

LOOP = "and so on, " * 30


@pytest.mark.parametrize("text", ["a fox", LOOP, "où êtes-vous"])
def test_the_compression_ratio_is_that_of_the_runtime(text: str) -> None:
    assert compression_ratio(text) == fallback.compression_ratio(text)


def test_errors_are_counted_without_case_and_punctuation() -> None:
    measures = measure(Output("The quick, brown fox.", -0.25), given="THE QUICK RED FOX")
    assert measures.wer == 0.25
    assert measures.disagreement is None
    assert measures.avg_logprob == -0.25


def test_the_second_model_is_compared_with_the_label() -> None:
    # One word of two is missing: half of the label's words, whatever was given.
    measures = measure(Output("a fox", -0.5), "a dog jumps", Output("fox", -0.1))
    assert measures.disagreement == 0.5
    assert measures.wer == pytest.approx(2 / 3)


@pytest.mark.parametrize("given", ["", "..."])
def test_without_words_there_is_no_rate(given: str) -> None:
    assert measure(Output("a fox", -0.5), given).wer is None


@pytest.mark.parametrize(
    ("output", "measures", "limits", "reason"),
    [
        (Output("a", 0), Measures(1.0, 0, 0.5, 0.5), {}, ""),
        (Output("", 0), Measures(0.0, 0), {}, "no speech found"),
        (Output("a", 0, False), Measures(1.0, 0), {}, "the label did not end"),
        (Output("a", 0), Measures(2.5, 0), {}, "compression ratio above 2.4"),
        (Output("a", 0), Measures(2.5, 0), {"max_compression_ratio": None}, ""),
        (Output("a", 0), Measures(1.0, 0, 0.3), {"max_wer": 0.3}, ""),
        (Output("a", 0), Measures(1.0, 0, 0.4), {"max_wer": 0.3}, "WER against the given text"),
        (Output("a", 0), Measures(1.0, 0), {"max_wer": 0.3}, "no given text for the WER"),
        (
            Output("a", 0),
            Measures(1.0, 0, 0.0, 0.2),
            {"max_disagreement": 0.1, "second_model": "m"},
            "disagreement of the models above 0.1",
        ),
    ],
)
def test_reasons_to_drop(
    output: Output, measures: Measures, limits: dict[str, Any], reason: str
) -> None:
    found = reason_to_drop(output, measures, LabelSettings(model="m", **limits))
    assert bool(found) == bool(reason)
    assert found.startswith(reason)


def test_a_loop_is_dropped_by_default() -> None:
    output = Output(LOOP, -0.1)
    assert reason_to_drop(output, measure(output), LabelSettings(model="m")) != ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_wer": -0.1}, "max_wer must not be negative"),
        ({"max_disagreement": 0.1}, "--second-model"),
    ],
)
def test_wrong_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelSettings(model="m", **options)
