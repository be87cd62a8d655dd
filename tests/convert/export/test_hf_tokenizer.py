"""The tokenizer files of the Hugging Face export, against the runtime's tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from baldwhisper_convert.checkpoint.vocabulary import Vocabulary
from baldwhisper_convert.export.hf_files import tokenizer_files
from baldwhisper_convert.readers.tokenizer import find_vocabulary, read_tokenizer
from tests.support import tiny
from tests.support.tiny_vocabulary import tiny_vocabulary

OURS = tiny.tiny_checkpoint().tokenizer()


def write(vocabulary: Vocabulary, folder: Path) -> Path:
    for name, text in tokenizer_files(vocabulary, 448).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import WhisperTokenizerFast

    folder = write(tiny_vocabulary(), tmp_path_factory.mktemp("tokenizer"))
    return WhisperTokenizerFast.from_pretrained(folder, local_files_only=True)


# Hypothesis also tries strings of our source, and transformers reads "<|en|>" in a text as a token.
@given(text=st.text(max_size=60).filter(lambda text: "<|" not in text))
@example(text="Hello, world! It's 12 o'clock\n\n  and  \u3042\u3044 \U0001f600")
@settings(max_examples=200, deadline=None)
def test_encodes_like_ours(text: str, tokenizer: Any) -> None:
    ours = OURS.encode(text)
    assert list(tokenizer(text, add_special_tokens=False).input_ids) == ours
    assert tokenizer.decode(ours) == text


def test_special_tokens(tokenizer: Any) -> None:
    vocabulary = tiny_vocabulary()
    special = vocabulary.special_tokens
    for name, token in special.items():
        assert tokenizer.convert_tokens_to_ids(name) == token
    assert tokenizer.convert_tokens_to_ids("<|29.98|>") == vocabulary.n_vocab - 2
    tokenizer.set_prefix_tokens(language="french", task="translate")
    names = ("<|startoftranscript|>", "<|fr|>", "<|translate|>", "<|notimestamps|>")
    tokens = tokenizer("a").input_ids
    assert tokens[:4] == [special[name] for name in names]
    assert tokens[-1] == special["<|endoftext|>"]


def test_timestamps_are_decoded_as_such(tokenizer: Any) -> None:
    begin = tiny_vocabulary().timestamp_begin
    text = tokenizer("the dog", add_special_tokens=False).input_ids
    tokens = [begin, *text, begin + 75]
    assert tokenizer.decode(tokens, decode_with_timestamps=True) == "<|0.00|>the dog<|1.50|>"
    assert tokenizer.decode(tokens, skip_special_tokens=True) == "the dog"


@pytest.mark.parametrize("n_vocab", [51864, 51865, 51866])
def test_openais_vocabularies(n_vocab: int, tmp_path: Path) -> None:
    from transformers import WhisperTokenizerFast

    vocabulary = find_vocabulary(None, n_vocab)
    folder = write(vocabulary, tmp_path)
    assert read_tokenizer(folder, n_vocab) == vocabulary
    theirs = WhisperTokenizerFast.from_pretrained(folder, local_files_only=True)
    text = "Le c\u0153ur a ses raisons, that's it... \u4eba\u4eba\u751f\u800c\u81ea\u7531"
    dims = tiny.tiny_dims(n_vocab=n_vocab, n_audio_state=4, n_text_state=4)
    ours = tiny.tiny_checkpoint(dims, vocabulary=vocabulary).tokenizer()
    assert list(theirs(text, add_special_tokens=False).input_ids) == ours.encode(text)
    assert theirs.convert_tokens_to_ids("<|nospeech|>") == n_vocab - 1501 - 2
