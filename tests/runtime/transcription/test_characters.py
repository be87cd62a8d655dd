"""Characters of several tokens are not cut where a segment ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.transcription.characters import whole_characters
from baldwhisper_mlx.transcription.transcribe import transcribe
from tests.runtime.conftest import tone
from tests.support.scripted import script, timed

BEGIN = 300
PAIR = [BEGIN + 5, BEGIN + 5]


def decode(tokens: list[int]) -> str:
    return bytes(tokens).decode(errors="replace")


characters = st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")


@settings(deadline=None)
@given(st.text(characters, max_size=6), st.text(characters, min_size=1, max_size=6), st.data())
def test_a_cut_character_belongs_to_the_first_segment(
    first: str, second: str, data: st.DataObject
) -> None:
    raw = (first + second).encode()
    cut = data.draw(st.integers(0, len(raw)))
    tokens = [BEGIN, *raw[:cut], *PAIR, *raw[cut:], BEGIN + 9]
    order = whole_characters(tokens, decode, timestamp_begin=BEGIN)
    assert sorted(order) == list(range(len(tokens)))
    ordered = [tokens[index] for index in order]
    pair = ordered.index(PAIR[0])
    before, behind = ordered[1:pair], ordered[pair + 2 : -1]
    assert bytes(before + behind) == raw
    assert decode(before) + decode(behind) == first + second
    if decode(list(raw[:cut])) + decode(list(raw[cut:])) == first + second:
        assert order == list(range(len(tokens)))


@settings(deadline=None)
@given(st.lists(st.integers(0, 255) | st.integers(BEGIN, BEGIN + 5), max_size=20))
def test_any_tokens_are_kept(tokens: list[int]) -> None:
    order = whole_characters(tokens, decode, timestamp_begin=BEGIN)
    assert sorted(order) == list(range(len(tokens)))
    stamps = [index for index in order if tokens[index] >= BEGIN]
    text = [index for index in order if tokens[index] < BEGIN]
    assert stamps == sorted(stamps)
    assert text == sorted(text)


@pytest.mark.parametrize("words", [False, True])
def test_segments_of_a_transcript(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, words: bool
) -> None:
    kanji = "日".encode()
    result = timed(
        loaded,
        (0.0, b" " + kanji[:1], 1.0),
        (1.0, kanji[1:] + b" ok", 2.0),
        (2.0, " end", 3.0),
        word=0.5 if words else None,
    )
    script(monkeypatch, [result])
    found = transcribe(
        tone(5), loaded, language="en", word_timestamps=words, no_speech_threshold=None
    )
    texts = [s.text for s in found.segments]
    assert "".join(texts) == found.text == " 日 ok end"
    if words:
        assert ["".join(w.word for w in s.words or ()) for s in found.segments] == texts
    else:
        assert texts == [" 日", " ok", " end"]


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> LoadedModel:
    return load_model(model_folder, dtype="float32")
