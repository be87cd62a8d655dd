"""Decoder sequences: the runtime's, token for token, and never longer than the context."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_mlx.transcription.options import TranscribeOptions
from baldwhisper_mlx.transcription.prompts import PreviousText
from tests.support.tiny_speech import tiny_prompts, tiny_teacher

PROMPTS = tiny_prompts("French")
ENGLISH_ONLY = Prompts.of(tiny_teacher(is_multilingual=False))
CONTEXT = 448


def runtime_prompt(prompts: Prompts, previous: list[int], *, timestamps: bool) -> list[int]:
    """What the runtime's transcription gives its decoder for the same history."""
    loaded: Any = SimpleNamespace(
        tokenizer=prompts.tokenizer, config=SimpleNamespace(n_text_ctx=prompts.n_text_ctx)
    )
    text = PreviousText(loaded, TranscribeOptions(without_timestamps=not timestamps))
    text.append(previous)
    return text.prompt(prompts.language)


@pytest.mark.parametrize("prompts", [PROMPTS, ENGLISH_ONLY], ids=["multilingual", "english"])
@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("length", [0, 1, 222, 223, 224, 1000])
def test_sequences_open_as_the_runtime_prompts(
    prompts: Prompts, timestamps: bool, length: int
) -> None:
    previous = [i % 400 for i in range(length)]
    text = [1, 2, 3]
    sequence, start = prompts.sequence(text, timestamps=timestamps, previous=previous)
    expected = runtime_prompt(prompts, previous, timestamps=timestamps)
    assert sequence == [*expected, *text, prompts.end]
    assert sequence[start] == prompts.tokenizer.sot
    assert sequence.count(prompts.tokenizer.sot) == 1
    assert start == (1 + min(length, CONTEXT // 2 - 1) if length else 0)


@given(st.integers(0, 460), st.integers(0, 460), st.booleans())
def test_sequences_fit_the_context(n_text: int, n_previous: int, timestamps: bool) -> None:
    text, previous = [7] * n_text, list(range(n_previous))
    room = CONTEXT + 1 - len(PROMPTS.sot_sequence(timestamps=timestamps)) - 1
    if n_text > room:
        with pytest.raises(ValueError, match=f"more than the {CONTEXT} of the context"):
            PROMPTS.sequence(text, timestamps=timestamps, previous=previous)
        return
    sequence, start = PROMPTS.sequence(text, timestamps=timestamps, previous=previous)
    assert len(sequence) <= CONTEXT + 1
    assert sequence[-1] == PROMPTS.end
    assert sequence[start:-1] == [*PROMPTS.sot_sequence(timestamps=timestamps), *text]
    if start:
        kept = sequence[1:start]
        assert sequence[0] == PROMPTS.tokenizer.sot_prev
        assert kept == previous[-len(kept) :]
        assert len(kept) == min(n_previous, CONTEXT // 2 - 1, room - n_text - 1)


def test_start_of_transcript() -> None:
    names = {token: name for name, token in PROMPTS.tokenizer.special_tokens.items()}
    opened = [names[token] for token in PROMPTS.sot_sequence(timestamps=False)]
    assert opened == ["<|startoftranscript|>", "<|fr|>", "<|transcribe|>", "<|notimestamps|>"]
    assert len(PROMPTS.sot_sequence(timestamps=True)) == 3
    assert len(ENGLISH_ONLY.sot_sequence(timestamps=True)) == 1


@given(st.floats(-1, 40))
def test_timestamps_are_the_nearest(seconds: float) -> None:
    position = PROMPTS.timestamp(seconds) - PROMPTS.tokenizer.timestamp_begin
    assert 0 <= position <= 1500
    nearest = min(max(seconds, 0.0), 30.0)
    assert abs(position * 0.02 - nearest) <= 0.01 + 1e-9


def test_timestamps_can_be_left_out() -> None:
    tokens = [PROMPTS.timestamp(0), 5, 6, PROMPTS.timestamp(1)]
    assert PROMPTS.with_timestamps(tokens, True) == tokens
    assert PROMPTS.with_timestamps(tokens, False) == [5, 6]


def test_languages() -> None:
    assert PROMPTS.language == "fr"
    with pytest.raises(ValueError, match="unknown language 'klingon'"):
        tiny_prompts("klingon")
    with pytest.raises(ValueError, match="does not know fr"):
        Prompts.of(tiny_teacher(is_multilingual=False), "fr")
