"""Errors of single utterances: against jiwer and by hand; loops, silence, word diffs."""

from __future__ import annotations

import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baldwhisper_mlx.evaluation.normalizers import load_normalizer
from baldwhisper_mlx.evaluation.scoring import AlignedWord, Edits, Score, has_loop, score
from baldwhisper_mlx.evaluation.word_diff import view

plain = load_normalizer("none")


def compare(reference: str, hypothesis: str) -> Score:
    return score(reference, hypothesis, plain)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "words", "characters"),
    [
        ("the cat sat", "the cat sat", Edits(3, 0, 0, 0), Edits(11, 0, 0, 0)),
        ("the cat sat", "the bat sat", Edits(2, 1, 0, 0), Edits(10, 1, 0, 0)),
        ("the cat sat", "the sat", Edits(2, 0, 1, 0), Edits(7, 0, 4, 0)),
        ("the cat sat", "the cat sat down", Edits(3, 0, 0, 1), Edits(11, 0, 0, 5)),
        ("1 two 3 four five", "one two four five six", Edits(3, 1, 1, 1), Edits(14, 1, 2, 6)),
        ("", "", Edits(), Edits()),
        ("", "thank you", Edits(0, 0, 0, 2), Edits(0, 0, 0, 9)),
        ("hello there", "", Edits(0, 0, 2, 0), Edits(0, 0, 11, 0)),
    ],
)
def test_edits_by_hand(reference: str, hypothesis: str, words: Edits, characters: Edits) -> None:
    found = compare(reference, hypothesis)
    assert found.words == words
    assert found.characters == characters


TEXT = st.lists(st.sampled_from(["a", "b", "cat", "sat", "été"]), max_size=8).map(" ".join)


@given(TEXT.filter(bool), TEXT)
def test_edits_are_jiwers(reference: str, hypothesis: str) -> None:
    found = compare(reference, hypothesis)
    expected = jiwer.process_words(reference, hypothesis)
    assert found.words == Edits(
        expected.hits, expected.substitutions, expected.deletions, expected.insertions
    )
    assert found.words.errors / found.words.total == pytest.approx(expected.wer)
    by_letter = found.characters.errors / found.characters.total
    assert by_letter == pytest.approx(jiwer.cer(reference, hypothesis))


@given(TEXT, TEXT)
def test_the_alignment_holds_both_texts_and_all_edits(reference: str, hypothesis: str) -> None:
    found = compare(reference, hypothesis)
    aligned = found.alignment
    assert [one.reference for one in aligned if one.reference is not None] == reference.split()
    assert [one.hypothesis for one in aligned if one.hypothesis is not None] == hypothesis.split()
    kinds = [one.kind for one in aligned]
    assert found.words == Edits(*(kinds.count(kind) for kind in ("=", "S", "D", "I")))
    for one in aligned:
        assert (one.kind == "=") == (one.reference == one.hypothesis)


def test_texts_are_normalized_first() -> None:
    found = score("Well, HELLO  there.", "well hello (laughs) there", load_normalizer("basic"))
    assert (found.reference, found.hypothesis) == ("well hello there", "well hello there")
    assert found.words == Edits(3, 0, 0, 0)
    assert compare("Well, hello", "well hello").words.errors == 1


def test_silence() -> None:
    assert compare("hello", "").is_empty
    assert not compare("", "").is_empty
    assert not compare("hello", "hm").is_empty
    # Nothing is left of either once normalized.
    assert not score("[noise]", "...", load_normalizer("basic")).is_empty


@pytest.mark.parametrize(
    "text",
    [
        "and so on and so on and so on and so on",
        "So I said: the the the the the the the the the the end",
        "hahahahahahahahahahahaha",
        "it was the best of times it was the best of times, "
        "It was the best of times! it was the best of times",
        "はいはいはいはいはいはいはいはいはいはいはいはい",
    ],
)
def test_loops_are_found(text: str) -> None:
    assert has_loop(text)
    assert compare("something else", text).is_loop
    assert not compare(text, text).is_loop  # the reference has the same repetition


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        "no, no, no, no!",
        "and so on and so on and so on",
        "row row row your boat gently down the stream",
        "the quick brown fox jumps over the lazy dog and runs away from the other lazy dog",
    ],
)
def test_what_people_say_is_no_loop(text: str) -> None:
    assert not has_loop(text)


def test_a_long_text_is_searched_for_phrases_of_a_sentence() -> None:
    varied = " ".join(f"word{i}" for i in range(300))
    sentence = "this sentence is about sixty letters long and comes again and again "
    assert not has_loop(varied)
    assert has_loop(varied + sentence * 4 + varied)
    assert not has_loop(varied + sentence * 3 + varied)


def test_the_view_puts_word_under_word() -> None:
    assert view(compare("the cat sat", "a cat").alignment).splitlines() == [
        "REF: the cat sat",
        "HYP: a   cat ***",
        "     S       D",
    ]
    assert view(compare("a", "a big b").alignment).splitlines()[:2] == [
        "REF: a *** *",
        "HYP: a big b",
    ]


def test_the_view_keeps_to_the_width_and_loses_nothing() -> None:
    words = [f"word{i}" for i in range(40)]
    aligned = [AlignedWord("S", word, word.upper()) for word in words]
    text = view(aligned, width=50)
    assert max(map(len, text.splitlines())) <= 50
    blocks = text.split("\n\n")
    assert len(blocks) > 5
    reference = [word for block in blocks for word in block.splitlines()[0].split()[1:]]
    assert reference == words
    # Where all is right there is no third line.
    pairs = [AlignedWord("=", "a", "a"), AlignedWord("=", "b", "b"), AlignedWord("I", None, "c")]
    right = view(pairs, width=7)
    assert right.split("\n\n")[0] == "REF: a\nHYP: a"
    # A word wider than the terminal still has its place.
    assert "x" * 80 in view([AlignedWord("D", "x" * 80, None)], width=40)


def test_wide_and_combining_letters_keep_their_columns() -> None:
    reference, hypothesis, marks = view(
        [
            AlignedWord("S", "日本", "ab"),
            AlignedWord("D", "e\u0301", None),
            AlignedWord("I", None, "z"),
        ]
    ).splitlines()
    assert reference == "REF: 日本 e\u0301 *"
    assert hypothesis == "HYP: ab   * z"
    assert marks == "     S    D I"


def test_nothing_to_align() -> None:
    assert view(compare("", "").alignment) == ""
