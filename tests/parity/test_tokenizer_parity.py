"""Suppressed tokens against openai-whisper's, on its own vocabularies."""

from __future__ import annotations

from pathlib import Path

import pytest

from baldwhisper_mlx.config import CONTROL_TOKENS
from baldwhisper_mlx.text.tokenizer import Tokenizer, read_ranks
from tests.runtime.conftest import tiny_config

whisper = pytest.importorskip("whisper")


@pytest.mark.parametrize("multilingual", [True, False])
@pytest.mark.parametrize("languages", [99, 100])
def test_every_id_openai_names(multilingual: bool, languages: int) -> None:
    theirs = whisper.tokenizer.get_tokenizer(
        multilingual, num_languages=languages, language="fr", task="translate"
    )
    special = {
        name: token
        for name, token in theirs.special_tokens.items()
        if token < theirs.timestamp_begin
    }
    name = "multilingual" if multilingual else "gpt2"
    ranks = read_ranks(Path(whisper.__file__).parent / "assets" / f"{name}.tiktoken")
    config = tiny_config(
        special_tokens=special,
        is_multilingual=multilingual,
        timestamp_begin=theirs.timestamp_begin,
        n_vocab=theirs.timestamp_begin + 1501,
    )
    ours = Tokenizer(ranks, config)
    assert set(CONTROL_TOKENS) < set(special)
    assert ours.non_speech_tokens == theirs.non_speech_tokens
    options = whisper.DecodingOptions()
    task = whisper.decoding.DecodingTask.__new__(whisper.decoding.DecodingTask)
    task.options, task.tokenizer = options, theirs
    assert ours.suppressed_tokens == task._get_suppress_tokens()
    assert list(ours.blank_tokens) == [*theirs.encode(" "), theirs.eot]
    assert list(ours.languages) == list(theirs.all_language_codes)
    if multilingual:
        sequence = ours.sot_sequence("fr", "translate", timestamps=False)
        assert tuple(sequence) == theirs.sot_sequence_including_notimestamps
    for text in (" Hello, world! It's 5 o'clock.", "日本語のテキスト", "naïve — “quotes” ♪"):
        assert ours.encode(text) == theirs.encode(text)
