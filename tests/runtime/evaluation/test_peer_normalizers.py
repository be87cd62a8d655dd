"""What openai-whisper's test_normalizer.py expects of its English normalizer, of ours.

| theirs | ours |
|---|---|
| test_number_normalizer | test_numbers |
| test_spelling_normalizer | test_spellings |
| test_text_normalizer | test_titles_contractions_and_units |

Numbers and spellings have no normalizer of their own here: both are steps of `whisper-english`.
"""

from __future__ import annotations

import pytest

from baldwhisper_mlx.evaluation.normalizers import load_normalizer

NUMBERS = {
    "three": "3",
    "forty two": "42",
    "six thirty five": "635",
    "nineteen eighty four": "1984",
    "twenty twenty one": "2021",
    "one point two million": "1200000",
    "six point one billions": "6100000000s",
    "300 thousand": "300000",
    "300 thousand dollars": "$300000",
    "$30 million": "$30000000",
    "€18.3 million": "€18300000",
    "£12 thousands": "£12000s",
    "two double o five": "2005",
    "four thousand thirty one": "4031",
    "fifty six thousand four hundred ten": "56410",
    "fifty six thousand four hundred and ten": "56410",
    "nineteen sixties": "1960s",
    "twenty second": "22nd",
    "eleven thousand and one hundred and forty fourth": "11144th",
    "five billion": "5000000000",
    "thousands": "1000s",
    "may fourth twenty nineteen": "may 4th 2019",
    "2 71": "2 71",
    "2.71": "2.71",
    "2 point 7": "2.7",
    "2 point 71": "2.71",
    "sixteen point 3": "16.3",
    "four point five zero dollars": "$4.50",
    "three hundred million dollars": "$300000000",
    "$30.2 million": "$30200000",
    "eighty percent": "80%",
    "sixty one per cent": "61%",
    "double oh nine": "009",
    "double zero nine": "009",
    "five one two": "512",
    "five double one": "511",
    "two triple oh two": "20002",
    "three thousandth": "3000th",
    "fifty two thousandth": "52000th",
    "minus 40": "-40",
    "positive ten thousand": "+10000",
    "three dollars and twenty cents": "$3.20",
    "5 cents": "¢5",
    "$0.75": "¢75",
    "four euros and fifteen cents": "€4.15",
    "two and a half million": "2500000",
    "sixty and a half dollars": "$60.5",
    "a320": "a 320",
    "12 th": "12th",
    "12th": "12th",
}


@pytest.mark.parametrize(("spoken", "expected"), NUMBERS.items())
def test_numbers(spoken: str, expected: str) -> None:
    assert load_normalizer("whisper-english")(spoken) == expected


@pytest.mark.parametrize(
    ("british", "american"),
    [("organisation", "organization"), ("travelling", "traveling"), ("jewellery", "jewelry")],
)
def test_spellings(british: str, american: str) -> None:
    assert load_normalizer("whisper-english")(british) == american


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Let's go", "let us go"),
        ("she's like", "she is like"),
        ("he's been like", "he has been like"),
        ("5km", "5 km"),
        ("35mm", "35 mm"),
        ("ISO9001", "iso 9001"),
        ("Mrs. Lee met Prof. Diallo Sr.", "missus lee met professor diallo senior"),
    ],
)
def test_titles_contractions_and_units(text: str, expected: str) -> None:
    assert load_normalizer("whisper-english")(text) == expected
