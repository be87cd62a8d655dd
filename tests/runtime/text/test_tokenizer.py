"""Ids and text, languages and prompts."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baldwhisper_mlx.text.tokenizer import Tokenizer, read_ranks
from tests.runtime.conftest import tiny_config

RANKS = {bytes([i]): i for i in range(256)}
TOKENIZER = Tokenizer(RANKS, tiny_config())


@given(st.text())
def test_text_round_trips(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_special_tokens_are_not_text() -> None:
    t = TOKENIZER
    tokens = [t.sot, *t.encode("hi"), t.eot, t.timestamp_begin + 7]
    assert t.decode(tokens) == "hi"
    assert t.decode(tokens, special=True) == "<|startoftranscript|>hi<|endoftext|>"
    assert t.sot not in t.encode("<|startoftranscript|>")


@pytest.mark.parametrize("name", ["fr", "FR", "French", " french "])
def test_languages_by_code_and_name(name: str) -> None:
    assert TOKENIZER.to_language(name) == "fr"


@pytest.mark.parametrize("name", ["de", "german", "klingon", ""])
def test_a_language_the_model_lacks(name: str) -> None:
    with pytest.raises(ValueError, match=r"en \(english\), fr \(french\)"):
        TOKENIZER.to_language(name)


def test_an_english_only_model_knows_english() -> None:
    english = Tokenizer(RANKS, tiny_config(is_multilingual=False))
    assert english.to_language("English") == "en"
    with pytest.raises(ValueError, match=r"does not know fr \(french\), only en .*--model"):
        english.to_language("fr")
    with pytest.raises(ValueError, match=r"unknown language 'xx'; .* knows en \(english\)$"):
        english.to_language("xx")


def test_a_model_knows_the_languages_of_its_config() -> None:
    french = Tokenizer(RANKS, tiny_config(languages=("fr",)))
    assert french.to_language("French") == "fr"
    assert french.known_languages == ("fr",)
    assert french.is_limited
    assert not TOKENIZER.is_limited
    for name in ("en", "English", "de"):
        with pytest.raises(ValueError, match=r"does not know .*only fr \(french\).*--model"):
            french.to_language(name)
    # Into English, from the one language that it knows.
    french.check_task("translate")
    english = Tokenizer(RANKS, tiny_config(languages=("en",)))
    with pytest.raises(ValueError, match=r"English only.*--model"):
        english.check_task("translate")
    # The language is still a token of its prompt.
    assert len(english.sot_sequence("en", "transcribe", timestamps=True)) == 3


def test_an_added_language_works_without_a_name() -> None:
    base = tiny_config()
    special = base.special_tokens | {"<|bm|>": base.timestamp_begin}
    config = tiny_config(
        special_tokens=special, n_vocab=base.n_vocab + 1, timestamp_begin=base.timestamp_begin + 1
    )
    tokenizer = Tokenizer(RANKS, config)
    assert tokenizer.to_language("bm") == "bm"
    assert special["<|bm|>"] in tokenizer.sot_sequence("bm", "transcribe", timestamps=True)


def test_prompts() -> None:
    special = TOKENIZER.special_tokens
    names = ["<|startoftranscript|>", "<|fr|>", "<|translate|>", "<|notimestamps|>"]
    assert TOKENIZER.sot_sequence("fr", "translate", timestamps=False) == [
        special[name] for name in names
    ]
    english = Tokenizer(RANKS, tiny_config(is_multilingual=False))
    assert english.sot_sequence("en", "transcribe", timestamps=True) == [TOKENIZER.sot]
    with pytest.raises(ValueError, match="English only"):
        english.sot_sequence("en", "translate", timestamps=True)
    with pytest.raises(ValueError, match="unknown task"):
        TOKENIZER.sot_sequence("fr", "summarize", timestamps=True)


def test_overlapping_ids() -> None:
    with pytest.raises(ValueError, match=r"id 256 is not below that of <\|endoftext"):
        Tokenizer(RANKS | {b"ab": 256}, tiny_config())
    config = tiny_config()
    moved = config.special_tokens | {"<|endoftext|>": 20}
    ranks = {token: rank for token, rank in RANKS.items() if rank != 20}
    with pytest.raises(ValueError, match=r"id 255 is not below that of <\|endoftext\|>, 20"):
        Tokenizer(ranks, tiny_config(special_tokens=moved))


def test_rank_files(tmp_path: Path) -> None:
    path = tmp_path / "v.tiktoken"
    path.write_bytes(base64.b64encode(b"\xc3") + b" 5\n= 6\n")
    assert read_ranks(path) == {b"\xc3": 5, b"": 6}
    for bad in (b"YQ==\n", b"!!! 3\n", b"YQ== x\n", b"\x00\x01\n", b"YQ== 2\n", b"YQ==  2 3\n"):
        path.write_bytes(b"YQ== 1\n" + bad)
        with pytest.raises(ValueError, match=r"v\.tiktoken: line 2"):
            read_ranks(path)


@pytest.mark.parametrize("blank", [b"\n", b"\r\n", b" \n"])
def test_empty_lines_of_rank_files_are_ignored(tmp_path: Path, blank: bytes) -> None:
    path = tmp_path / "v.tiktoken"
    path.write_bytes(blank + b"YQ== 0\n" + blank + b"Yg== 1\r\n" + b" 2\n" + blank)
    assert read_ranks(path) == {b"a": 0, b"b": 1, b"": 2}
