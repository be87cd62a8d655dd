"""What the tests of openai-whisper (o) and faster-whisper (f) expect of tokenizers, of ours.

| theirs, in test_tokenizer.py | ours |
|---|---|
| o: test_tokenizer | test_language_tokens_are_below_the_timestamps |
| o: test_multilingual_tokenizer | test_both_vocabularies_write_any_language |
| o, f: test_split_on_unicode | test_half_a_character_stands_alone |
| f: test_suppressed_tokens_minus_1 | test_what_is_never_written |
| f: test_supported_languages, in test_transcribe.py | test_an_english_model_knows_english |

Both of OpenAI's vocabularies are in the package.
"""

from __future__ import annotations

import pytest

from baldwhisper_mlx.checkpoint.files import BUNDLED
from baldwhisper_mlx.config import N_TIMESTAMPS, ModelConfig
from baldwhisper_mlx.text.openai_vocabulary import (
    ENGLISH_ONLY_SIZE,
    rank_file,
    special_token_ids,
)
from baldwhisper_mlx.text.tokenizer import Tokenizer, read_ranks
from baldwhisper_mlx.transcription.word_splitting import TimedToken, split_words
from tests.runtime.conftest import tiny_config

MULTILINGUAL_SIZE = 51_865


def openai_tokenizer(n_vocab: int) -> Tokenizer:
    ranks = read_ranks(rank_file(n_vocab))
    config = tiny_config(
        n_vocab=n_vocab,
        special_tokens=special_token_ids(len(ranks), n_vocab),
        is_multilingual=n_vocab != ENGLISH_ONLY_SIZE,
        timestamp_begin=n_vocab - N_TIMESTAMPS,
    )
    return Tokenizer(ranks, config)


ENGLISH, MULTILINGUAL = map(openai_tokenizer, (ENGLISH_ONLY_SIZE, MULTILINGUAL_SIZE))


@pytest.mark.parametrize("tokenizer", [ENGLISH, MULTILINGUAL])
def test_language_tokens_are_below_the_timestamps(tokenizer: Tokenizer) -> None:
    for timestamps in (True, False):
        prompt = tokenizer.sot_sequence("en", "transcribe", timestamps=timestamps)
        assert prompt[0] == tokenizer.sot
    ids = list(tokenizer.languages.values())
    assert len(ids) == len(set(ids)) >= 99
    assert max(ids) < tokenizer.timestamp_begin


@pytest.mark.parametrize(
    "text",
    [
        "한국어로 말하는 문장입니다.",
        "日本語の文です。",
        "Это предложение.",
        "Αυτή είναι μια πρόταση.",
    ],
)
def test_both_vocabularies_write_any_language(text: str) -> None:
    english, multilingual = ENGLISH.encode(text), MULTILINGUAL.encode(text)
    assert ENGLISH.decode(english) == MULTILINGUAL.decode(multilingual) == text
    assert len(english) > len(multilingual)


@pytest.mark.parametrize("language", ["ja", "fr"])
def test_half_a_character_stands_alone(language: str) -> None:
    """The first byte of an é is no character; the é after it, of two tokens or one, is whole."""
    tokenizer = MULTILINGUAL
    byte = read_ranks(rank_file(MULTILINGUAL_SIZE))[b"\xc3"]
    before, after = tokenizer.encode(" elle est l'"), tokenizer.encode("école")
    assert tokenizer.decode([byte]) == "\ufffd"
    tokens = [TimedToken(token, 0.0, 0.0, 1.0) for token in [*before, byte, *after]]
    found = split_words(tokens, tokenizer.decode, language)
    parts = [token.token for _, part in found for token in part]
    assert parts == [*before, byte, *after]
    texts = [text for text, _ in found]
    assert "".join(texts) == " elle est l'\ufffdécole"
    if language == "ja":  # where every character is a word
        assert texts[:5] == [" elle", " est", " l", "'", "\ufffd"]
        assert [len(part) for _, part in found[:5]] == [1, 1, 1, 1, 1]
        assert "".join(texts[5:]) == "école"
    else:
        assert texts == [" elle", " est", " l", "'\ufffdécole"]


def test_what_is_never_written() -> None:
    """Marks that annotate, and the tokens of prompts; but what is spoken, and end of text."""
    suppressed = set(ENGLISH.suppressed_tokens)
    assert len(suppressed) == 90
    assert sorted(suppressed) == list(ENGLISH.suppressed_tokens)
    special = ENGLISH.special_tokens
    control = {token for token in suppressed if token >= ENGLISH.eot}
    names = ("startoftranscript", "translate", "transcribe", "startoflm", "startofprev", "nospeech")
    assert control == {special[f"<|{name}|>"] for name in names}
    for mark in ('"', "#", "(", ")", "[", "]", "{", "*", "♪", " [", " (", " -", " '", "((", "--"):
        assert ENGLISH.encode(mark)[0] in suppressed, mark
    for spoken in (".", ",", "?", "!", "'", "-", "$", "%", "&", " a", "5", " the"):
        assert not suppressed & set(ENGLISH.encode(spoken)), spoken


def test_an_english_model_knows_english() -> None:
    assert ENGLISH.known_languages == ("en",)
    assert len(MULTILINGUAL.known_languages) == 99
    bundled = Tokenizer(
        read_ranks(BUNDLED / "vocabulary.tiktoken"), ModelConfig.from_file(BUNDLED / "config.json")
    )
    assert bundled.known_languages == ("en",)
