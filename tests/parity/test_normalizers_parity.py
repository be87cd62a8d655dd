"""Our normalizers against openai-whisper's own."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.evaluation.normalizers import load_normalizer

openai = pytest.importorskip("whisper.normalizers")

basic, english = load_normalizer("basic"), load_normalizer("whisper-english")
openai_basic, openai_english = openai.BasicTextNormalizer(), openai.EnglishTextNormalizer()

TEXT = """
I'm gonna wanna kinda sorta dunno cause because won't can't ain't y'all ma'am he's he'd been gone
done got they've we'll Mr. Mrs. Dr. St. Capt. Gov. um, uh hmm colour honour travelled organisation
twenty-one one hundred and five 3rd first oh nought double point half $5 £3.50 10% ten dollars
cents 1,000 0.5 1990s [laughs] (noise) <b> (a [b) c] é ß æ ' . , ! ? - \u2026 \u2019
"""
SENTENCES = st.lists(st.sampled_from(TEXT.split()), max_size=12).map(" ".join)


def same(text: str, expected: str) -> None:
    assert text == " ".join(expected.split())


@settings(max_examples=300)
@given(SENTENCES)
@example("The colour cost me two thousand and five dollars, didn't it?")
def test_sentences(text: str) -> None:
    same(basic(text), openai_basic(text))
    same(english(text), openai_english(text))


@settings(max_examples=300)
@given(st.text(max_size=30))
def test_any_text(text: str) -> None:
    same(basic(text), openai_basic(text))
    same(english(text), openai_english(text))
