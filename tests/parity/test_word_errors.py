"""The figures of benchmarks/accuracy/word_errors.py, from rows whose rates are known."""

from __future__ import annotations

import pytest

from benchmarks.accuracy.word_errors import clip_slice, report

CLIPS = [
    {"file_name": f"{i}.wav", "text": "ALPHA BRAVO CHARLIE DELTA ECHO FOX GOLF HOTEL INDIA JULIET"}
    for i in range(40)
]
RIGHT = "Alpha, bravo, Charlie; delta, echo, fox, golf, hotel, India, Juliet."
WRONG = RIGHT.replace("Juliet", "Romeo")


def rows(model: str, wrong_every: int) -> list[dict[str, object]]:
    return [
        {
            "model": model,
            "file_name": clip["file_name"],
            "text": WRONG if i % wrong_every == 0 else RIGHT,
        }
        for i, clip in enumerate(CLIPS)
    ]


def test_rates_ratios_and_intervals() -> None:
    found = report(CLIPS, rows("teacher", 4) + rows("student", 2), "teacher")
    teacher, student = found["teacher"], found["student"]
    assert (teacher["word_errors"], teacher["words"]) == (10, 400)
    assert teacher["wer"] == pytest.approx(0.025)
    assert student["word_errors"] == 2 * teacher["word_errors"]
    assert student["wer_ratio"] == pytest.approx(0.5)
    assert student["accuracy_ratio"] == pytest.approx(
        (1 - student["wer"]) / (1 - teacher["wer"]), abs=1e-4
    )
    low, high = student["wer_interval"]
    assert low < student["wer"] < high
    # every clip the teacher misses is missed by the student too, so the pairing never exceeds 1
    assert student["wer_ratio_interval"][1] <= 1.0
    assert teacher["wer_ratio_interval"] == [1.0, 1.0]
    assert student["loops"] == 0


def test_a_loop_is_counted() -> None:
    looping = rows("teacher", 4)
    looping[0]["text"] = 30 * "alpha bravo "
    assert report(CLIPS, looping, "teacher")["teacher"]["loops"] == 1


@pytest.mark.parametrize("text", ["1:2", "1::0", "-1::2", "a::2", "", "1::2::3"])
def test_bad_selections_of_clips(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # int() words it, the option names the form
        clip_slice(text)
