"""Normalizers by name: what each takes away, and what is said when one is not there."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baldwhisper_mlx.evaluation.normalizers import NORMALIZERS, load_normalizer


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("none", "  Hello,\tWorld ", "Hello, World"),
        ("basic", "Hello, (noise) World [x]! Ça va?", "hello world ça va"),
        ("basic", "it's 7 o\u2019clock", "it s 7 o clock"),
        (
            "whisper-english",
            "Mr. Smith can't pay twenty-one dollars",
            "mister smith can not pay $21",
        ),
        ("whisper-english", "uh, the colour's grey", "the color is gray"),
        # Written out by the package, and not by OpenAI.
        ("whisper-english", "kinda sorta dunno cause", "kinda sorta dunno cause"),
        ("bambara", "À tɔ́gɔ kó : sìrajɛ.", "a tɔgɔ ko sirajɛ"),
        ("bambara", "(à ká) [kɛ̀nɛ] bɛ̀n-kɛ́nɛfisɛ 35", "a ka kɛnɛ bɛn-kɛnɛfisɛ 35"),
        ("bambara", "N\u2019a y\u02bca fɔ", "n'a y'a fɔ"),
    ],
)
def test_what_is_left(name: str, text: str, expected: str) -> None:
    assert load_normalizer(name)(text) == expected


@pytest.mark.parametrize("name", NORMALIZERS)
@given(text=st.text(max_size=40))
def test_single_spaces_stand_between_words(name: str, text: str) -> None:
    found = load_normalizer(name)(text)
    assert found == " ".join(found.split())


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("whisper-english", "whisper_normalizer.english", "whisper-normalizer"),
        ("bambara", "bambara_normalizer", "bambara-normalizer"),
    ],
)
def test_a_missing_package_is_named(
    name: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=f"{name}.*pip install.*evaluate.*{package}"):
        load_normalizer(name)


def test_rules_that_are_not_openais_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from whisper_normalizer import english

    class Other(english.EnglishTextNormalizer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.replacers[r"\by'know\b"] = "you know"

    monkeypatch.setattr(english, "EnglishTextNormalizer", Other)
    with pytest.raises(ValueError, match=r"other rules than OpenAI's.*pip install"):
        load_normalizer("whisper-english")


def test_an_unknown_name() -> None:
    with pytest.raises(ValueError, match="no normalizer 'french'; there are none, basic"):
        load_normalizer("french")
