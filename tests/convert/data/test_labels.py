"""Labels of windows: transcripts at their times, and the output of a scripted teacher."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from baldwhisper_convert.data import labels
from baldwhisper_convert.data.labels import Labeller, TeacherLabels, TextLabels, text_fault
from baldwhisper_convert.data.turns import parse_turns
from baldwhisper_convert.data.utterances import Utterance
from baldwhisper_convert.data.windows import Placed, Planned, Sound, Window
from tests.support.tiny_speech import tiny_prompts, tiny_window

PROMPTS = tiny_prompts()
WINDOWS_A_PASS = 4
AT = PROMPTS.timestamp


def tokens_of(text: str) -> list[int]:
    return PROMPTS.tokenizer.encode(text)


def sound(number: int, *texts: str, speed: float = 1.0, follows: int | None = None) -> Sound:
    """Window `number` of a plan of several passes; its utterances last 1 s, 0.5 s apart."""
    items = tuple(Placed(i, 1.5 * i, 1.5 * i + 1) for i in range(len(texts)))
    number_of_pass, number_in_pass = divmod(number, WINDOWS_A_PASS)
    planned = Planned(number, number_in_pass, number_of_pass, Window(items, False, follows))
    said = [Utterance("x", "x", text) for text in texts]
    return Sound(planned, said, np.zeros(16_000, np.float32), speed)


def text_labels() -> TextLabels:
    model: Any = None
    return TextLabels(model, PROMPTS, 0.3)


class Teacher:
    """Replaces `decode_greedy`: returns `outputs` by the number that the states hold."""

    def __init__(self, outputs: dict[int, list[int]]) -> None:
        self.outputs = outputs
        self.asked: list[int] = []

    def __call__(
        self, model: object, states: torch.Tensor, mask: object, prompts: object, *,
        timestamps: bool,
    ) -> list[list[int]]:  # fmt: skip
        assert mask is None
        assert timestamps
        numbers = [int(row[0, 0]) for row in states]
        self.asked += numbers
        return [self.outputs[number] for number in numbers]


def teacher_labels(
    monkeypatch: pytest.MonkeyPatch, outputs: dict[int, list[int]], max_wer: float = 0.3
) -> tuple[TeacherLabels, Teacher]:
    teacher = Teacher(outputs)
    monkeypatch.setattr(labels, "decode_greedy", teacher)
    model: Any = None
    return TeacherLabels(model, PROMPTS, max_wer), teacher


def label(labeller: Labeller, *sounds: Sound) -> list[list[int] | None]:
    states = torch.tensor([float(s.planned.number) for s in sounds])[:, None, None]
    return labeller.label(sounds, states)


def test_transcripts_stand_between_their_times() -> None:
    found = label(text_labels(), sound(0, "a fox", "the dog"), sound(1))
    first = [AT(0), *tokens_of(" a fox"), AT(1)]
    assert found == [[*first, AT(1.5), *tokens_of(" the dog"), AT(2.5)], []]


def test_transcripts_of_faster_speech_are_earlier() -> None:
    found = label(text_labels(), sound(5, "a fox", "the dog", speed=1.25))[0]
    assert found is not None
    stamps = [token for token in found if token >= AT(0)]
    assert stamps == [AT(0), AT(0.8), AT(1.2), AT(2)]


def test_transcripts_that_do_not_fit_are_left_out() -> None:
    """With start, end and timestamps a label has to fit 448 tokens; a digit here takes two."""
    fits, too_long = (" ".join(["7"] * count) for count in (218, 219))
    found = label(text_labels(), sound(0, fits), sound(1, too_long), sound(2, fits, "7"))
    assert found[0] is not None
    assert len(found[0]) == 2 * 218 + 2
    assert found[1:] == [None, None]
    PROMPTS.sequence(found[0], timestamps=True)


@pytest.mark.parametrize(
    ("hypothesis", "max_wer", "kept"),
    [
        (" one two three four", 0.0, True),
        (" One, two; three: four!", 0.0, True),
        (" one two three", 0.25, True),
        (" one two three", 0.2, False),
        (" something else it was", 0.99, False),
        (" something else it was", 1.0, True),
        ("", 0.99, False),
    ],
)
def test_labels_too_far_from_the_transcript_are_left_out(
    monkeypatch: pytest.MonkeyPatch, hypothesis: str, max_wer: float, kept: bool
) -> None:
    row = [AT(0.1), *tokens_of(hypothesis), AT(0.9)]
    labeller, _ = teacher_labels(monkeypatch, {0: row}, max_wer)
    assert label(labeller, sound(0, "ONE TWO", "THREE FOUR")) == [row if kept else None]


def test_without_transcripts_all_complete_output_is_a_label(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outputs = {0: [AT(0), *tokens_of(" un renard"), AT(1)], 1: tokens_of("7") * 224}
    labeller, _ = teacher_labels(monkeypatch, outputs, 0.0)
    assert label(labeller, sound(0, "", ""), sound(1, "")) == [outputs[0], None]


def test_labels_that_were_cut_off_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedy decoding stops at half the context; what reaches it has no end."""
    outputs = {0: tokens_of("7") * 224, 1: tokens_of("7") * 223}
    labeller, _ = teacher_labels(monkeypatch, outputs, 1e9)
    assert label(labeller, sound(0, "7"), sound(1, "7")) == [None, outputs[1]]


def test_silence_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    row = [AT(0), *tokens_of(" a"), AT(1)]
    labeller, teacher = teacher_labels(monkeypatch, {1: row})
    assert label(labeller, sound(0), sound(1, "a"), sound(2)) == [[], row, []]
    assert teacher.asked == [1]
    assert label(labeller, sound(3)) == [[]]


@pytest.mark.parametrize("together", [False, True])
def test_later_passes_repeat_the_first_label(
    monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    """At their speed; also if they share a batch with the first pass."""
    row = [AT(0), *tokens_of(" a fox"), AT(1.02), AT(2), *tokens_of(" runs"), AT(4)]
    labeller, teacher = teacher_labels(monkeypatch, {0: row, 1: tokens_of(" nonsense")})
    first = [sound(0, "a fox runs"), sound(1, "no such thing")]
    later = [sound(4, "a fox runs", speed=1.25), sound(5, "no such thing"), sound(6)]
    if together:
        found = label(labeller, *first, *later)[2:]
    else:
        label(labeller, *first)
        found = label(labeller, *later)
    faster = [AT(0), *tokens_of(" a fox"), AT(1.02 / 1.25), AT(1.6), *tokens_of(" runs"), AT(3.2)]
    assert found == [faster, None, []]
    assert teacher.asked == [0, 1]


@pytest.mark.parametrize("number", [2, 6])
def test_the_window_before_is_that_of_the_same_pass(number: int) -> None:
    labeller = text_labels()
    other_pass = (number + 3) % 8
    label(labeller, sound(number - 1, "a fox"), sound(other_pass, "no"), sound(number - 2, "no"))
    following = sound(number, "runs", follows=1).planned
    assert labeller.before(following) == tuple(tokens_of(" a fox"))
    assert labeller.before(sound(number, "runs").planned) == ()


def test_a_window_that_was_left_out_is_no_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    labeller, _ = teacher_labels(monkeypatch, {0: tokens_of(" wrong")})
    label(labeller, sound(0, "a fox"))
    assert labeller.before(sound(1, "runs", follows=0).planned) == ()


def test_resuming_takes_over_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    labeller, teacher = teacher_labels(monkeypatch, {})
    done = tiny_window(0)
    labeller.resume([done])
    assert labeller.before(sound(1, "x", follows=0).planned) == tuple(tokens_of(" fox"))
    assert label(labeller, sound(4, "fox")) == [list(done.tokens)]
    assert teacher.asked == []


def switched() -> Utterance:
    turns = [
        {"start": 0.0, "end": 0.4, "language": "en", "text": "a fox"},
        {"start": 0.4, "end": 0.7, "language": "fr", "text": "the dog"},
        {"start": 0.7, "end": 1.0, "language": "english", "text": "a fox"},
    ]
    return Utterance("x", "x", "a fox the dog a fox", turns=parse_turns(turns))


def test_a_language_token_stands_wherever_the_language_changes() -> None:
    model: Any = None
    french, english = (PROMPTS.tokenizer.languages[code] for code in ("fr", "en"))
    one = replace(sound(0, "", ""), items=[switched(), Utterance("y", "y", "", turns=parse_turns(
        [{"start": 0, "end": 1, "language": "fr", "text": "the dog"}]))])  # fmt: skip
    found = label(TextLabels(model, PROMPTS, 0.3, by_turns=True), one)[0]
    fox, dog = tokens_of(" a fox"), tokens_of(" the dog")
    assert found == [
        *[AT(0), *fox, AT(0.4), AT(0.4), french, *dog, AT(0.7), AT(0.7), english, *fox, AT(1)],
        *[AT(1.5), french, *dog, AT(2.5)],
    ]
    # They are no text, but in the prompt of a window that continues it, as at inference.
    assert PROMPTS.tokenizer.decode(found) == " a fox the dog a fox the dog"
    labeller = TextLabels(model, PROMPTS, 0.3, by_turns=True)
    label(labeller, one)
    after = sound(1, "a fox", follows=0).planned
    assert list(labeller.before(after)) == [*fox, french, *dog, english, *fox, french, *dog]


def test_without_turns_there_is_one_language_token() -> None:
    one = replace(sound(0, ""), items=[switched()])
    assert label(text_labels(), one) == [[AT(0), *tokens_of(" a fox the dog a fox"), AT(1)]]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (None, "without turns"),
        ("fr", "without turns"),
        ([{"start": 0, "end": 1, "language": "fr"}], "without turns"),
        ([{"start": 1, "end": 0, "language": "fr", "text": "a"}], "without turns"),
        ([{"start": 0, "end": 1, "language": "xx", "text": "a"}], "a turn in 'xx'"),
        ([{"start": 0, "end": 1, "language": "fr", "text": "a"}], ""),
    ],
)
def test_turns_that_cannot_be_labels_are_named(value: Any, fault: str) -> None:
    utterance = Utterance("x", "x", "a", turns=parse_turns(value))
    assert text_fault(utterance, PROMPTS, False) == ""
    found = text_fault(utterance, PROMPTS, True)
    assert fault in found
    assert bool(fault) == bool(found)
