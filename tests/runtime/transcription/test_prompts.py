"""Hotwords, the initial prompt and the prefix: what precedes a window, and its budget."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.decoding.decoder import Decoder
from baldwhisper_mlx.decoding.result import DecodingResult
from baldwhisper_mlx.transcription.options import OptionWarning, TranscribeOptions
from baldwhisper_mlx.transcription.prompts import GivenText, PreviousText
from baldwhisper_mlx.transcription.transcribe import transcribe
from tests.runtime.audio.test_vad import RATE, SAMPLE
from tests.runtime.conftest import tone
from tests.runtime.transcription.test_second_opinion import music
from tests.support.scripted import script, timed

KEPT: dict[str, Any] = {"language": "en", "no_speech_threshold": None}


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> LoadedModel:
    """A text context of 64 tokens, one byte each: 31 for all that precedes a window."""
    return load_model(model_folder, dtype="float32")


def previous(loaded: LoadedModel, text: str = "", **options: Any) -> PreviousText:
    result = PreviousText(loaded, TranscribeOptions(**options))
    result.append(loaded.tokenizer.encode(text))
    return result


def given(loaded: LoadedModel, text: PreviousText) -> str | None:
    """The text before the start of the transcript; None if there is no <|startofprev|>."""
    prompt = text.prompt("en")
    before = prompt[: prompt.index(loaded.tokenizer.sot)]
    assert len(before) <= 32
    assert before[:1] in ([], [loaded.tokenizer.sot_prev])
    return loaded.tokenizer.decode(before[1:]) if before else None


def test_what_precedes_a_window(loaded: LoadedModel) -> None:
    after = " and so on"
    assert given(loaded, previous(loaded)) is None
    assert given(loaded, previous(loaded, after)) == " and so on"
    assert given(loaded, previous(loaded, hotwords="  Kokoro ")) == " Kokoro"
    text = previous(loaded, after, hotwords="Kokoro", initial_prompt="Tea")
    assert given(loaded, text) == " Kokoro Tea and so on"
    text.forget()
    assert given(loaded, text) == " Kokoro"
    text.append(loaded.tokenizer.encode(" more"))
    assert given(loaded, text) == " Kokoro more"
    assert text.spoken == loaded.tokenizer.encode(" and so on more")


def test_a_carried_prompt_stays_in_front(loaded: LoadedModel) -> None:
    text = previous(loaded, initial_prompt="Tea", carry_initial_prompt=True, hotwords="Hot")
    assert given(loaded, text) == " Hot Tea"
    text.append(loaded.tokenizer.encode(" " + "0123456789" * 5))
    assert given(loaded, text) == " Hot Tea" + ("0123456789" * 5)[-23:]
    text.forget()
    assert given(loaded, text) == " Hot Tea"
    text.append(loaded.tokenizer.encode(" new"))
    assert given(loaded, text) == " Hot Tea new"


@pytest.mark.parametrize("carry", [False, True])
@pytest.mark.parametrize(
    ("hotwords", "initial", "expected"),
    [
        ("a" * 40, None, " " + "a" * 30),
        ("a" * 40, "b" * 5, " " + "a" * 30),
        ("a" * 9, "b" * 39 + "c", " " + "a" * 9 + "b" * 20 + "c"),
        (None, "b" * 39 + "c", "b" * 30 + "c"),
    ],
)
def test_texts_that_are_too_long_are_cut(
    loaded: LoadedModel, hotwords: str | None, initial: str | None, expected: str, carry: bool
) -> None:
    options: dict[str, Any] = {"hotwords": hotwords, "initial_prompt": initial}
    text = previous(loaded, carry_initial_prompt=carry, **options)
    assert given(loaded, text) == expected
    text.append(loaded.tokenizer.encode("x" * 50))
    kept = expected if carry else " " + (hotwords or "")[:30] if hotwords else ""
    after = given(loaded, text)
    assert after is not None
    assert after.rstrip("x") == kept
    assert len(after) == 31


def test_a_text_that_is_cut_is_warned_of_once(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"hotwords": "a" * 9, "initial_prompt": "b" * 40, "prefix": "c" * 40}
    for way in ({}, {"batch_size": 3}):
        script(monkeypatch, [timed(loaded, (0.0, " text", 29.98))] * 6)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            transcribe(tone(80), loaded, **KEPT, **options, **way)
        messages = [str(w.message) for w in caught if issubclass(w.category, OptionWarning)]
        assert messages == [
            "initial_prompt: 21 of 41 tokens are used, the last ones; there is no room for more in "
            "the text context",
            "prefix: 16 of 41 tokens are used, the first ones; there is no room for more in the "
            "text context",
        ]
    assert not GivenText.of(loaded, TranscribeOptions(hotwords="a" * 9)).cut


@pytest.mark.parametrize("way", [{}, {"batch_size": 2}, {"batch_size": 4}])
def test_hotwords_precede_every_window(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, way: dict[str, Any]
) -> None:
    prompts = script(monkeypatch, [timed(loaded, (0.0, f" text {i}", 29.98)) for i in range(9)])
    tokenizer = loaded.tokenizer
    transcribe(
        tone(119), loaded, hotwords="Kokoro", condition_on_previous_text=False, **KEPT, **way
    )
    assert len(prompts) >= 4
    for prompt in prompts:
        before = prompt[: prompt.index(tokenizer.sot)]
        assert before == [tokenizer.sot_prev, *tokenizer.encode(" Kokoro")]


class Prefixed:
    """A decoder that continues prefixes, as the real one does, and notes them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *rest: DecodingResult) -> None:
        self.prefixes: list[tuple[int, ...]] = []

        def decode(_: Decoder, prompt: Any, options: Any, **__: Any) -> list[DecodingResult]:
            rows = prompt if isinstance(prompt[0], list) else [prompt]
            results = []
            for _row in rows:
                self.prefixes.append(options.prefix)
                result = rest[len(self.prefixes) - 1]
                tokens = [*options.prefix, *result.tokens[bool(options.prefix) :]]
                results.append(
                    DecodingResult(tokens, result.avg_logprob, result.no_speech_prob, 0.0)
                )
            return results

        monkeypatch.setattr(Decoder, "decode", decode)


@pytest.mark.parametrize("way", [{}, {"batch_size": 2}])
@pytest.mark.parametrize("timestamps", [True, False])
def test_the_prefix_begins_the_transcript_and_nothing_else(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, timestamps: bool, way: dict[str, Any]
) -> None:
    one = timed(loaded, (0.0, " there was", 29.98))
    decoder = Prefixed(monkeypatch, *[one] * 4)
    found = transcribe(
        tone(58), loaded, prefix=" Once", without_timestamps=not timestamps, **KEPT, **way
    )
    prefix = (*loaded.tokenizer.encode(" Once"),)
    if timestamps:
        prefix = (loaded.tokenizer.timestamp_begin, *prefix)
    assert decoder.prefixes[0] == prefix
    assert set(decoder.prefixes[1:]) == {()}
    assert found.text == " Once" + " there was" * len(decoder.prefixes)
    assert found.segments[0].text == " Once there was"


def test_the_prefix_waits_for_the_first_text(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first window of silence does not use it up."""
    silent = timed(loaded, (0.0, " x", 29.98), no_speech=0.9, logprob=-2.0)
    decoder = Prefixed(monkeypatch, silent, timed(loaded, (0.0, " there was", 29.98)))
    found = transcribe(music(58), loaded, language="en", prefix="Once", temperature=0.0)
    assert [bool(prefix) for prefix in decoder.prefixes] == [True, True]
    assert found.text == " Once there was"


def test_a_prefix_is_really_continued(loaded: LoadedModel) -> None:
    """With a real decoder, whose words have times from the first one on."""
    options: dict[str, Any] = {**KEPT, "temperature": 0.0, "compression_ratio_threshold": None}
    for way in ({"without_timestamps": True}, {"word_timestamps": True}):
        whole = transcribe(tone(20), loaded, prefix="The", **options, **way)
        assert whole.text.startswith(" The")
        assert len(whole.text) > len(" The")
        if "word_timestamps" in way:
            words = [word for segment in whole.segments for word in segment.words or ()]
            assert "".join(word.word for word in words).startswith(" The")


# Where nobody speaks.


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize(
    ("hotwords", "written"),
    [("Kokoro, Bald", " Kokoro"), ("Kokoro, Bald", " Bald. Kokoro!"), ("Kokoro", " ... kokoro")],
)
def test_hotwords_are_not_written_over_music(
    loaded: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    hotwords: str,
    written: str,
) -> None:
    """Whisper does not doubt it, and it is too short for a copy of a sentence."""
    script(monkeypatch, [timed(loaded, (0.0, written, 5.0))] * 4)
    options: dict[str, Any] = {"language": "en", "batch_size": batch_size}
    samples = music(50)
    assert transcribe(samples, loaded, hotwords=hotwords, **options).text == ""


def test_hotwords_that_are_spoken_are_written(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(monkeypatch, [timed(loaded, (0.0, " Kokoro", 5.0))])
    speech = load_audio(SAMPLE)[: 8 * RATE]
    assert transcribe(speech, loaded, language="en", hotwords="Kokoro").text == " Kokoro"


@pytest.mark.parametrize("options", [{"hotwords": "Kokoro"}, {"prefix": "Kokoro"}])
def test_what_hotwords_make_probable_is_decoded_without_them(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """As with a prompt: other words, probable only because of what the model was given."""
    probable = timed(loaded, (0.0, " Kokoro likes it", 20.0), no_speech=0.4, logprob=-0.3)
    other = timed(loaded, (0.0, " I am not sure", 20.0), no_speech=0.4, logprob=-1.9)
    prompts = script(monkeypatch, [probable, other])
    found = transcribe(
        music(25), loaded, language="en", condition_on_previous_text=False, **options
    )
    assert (found.text, found.segments) == ("", ())
    assert prompts[1] == loaded.tokenizer.sot_sequence("en", "transcribe", timestamps=True)


@pytest.mark.parametrize("options", [{"hotwords": "Kokoro"}, {"initial_prompt": "Kokoro"}])
@pytest.mark.parametrize(
    ("no_speech", "logprob", "kept"), [(0.64, -0.7, False), (0.1, -1.9, False), (0.1, -0.5, True)]
)
def test_a_loop_over_music_is_decoded_without_what_made_it(
    loaded: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    no_speech: float,
    logprob: float,
    kept: bool,
) -> None:
    """Given a text, the model does not doubt that somebody speaks, and at last samples anything.

    What it is sure of by itself, such as singing, is decoded again as ever.
    """
    loop = timed(loaded, (0.0, " to get a chance" * 9, 20.0), no_speech=0.16, logprob=-0.2)
    alone = timed(loaded, (0.0, " la la li lo", 20.0), no_speech=no_speech, logprob=logprob)
    anything = timed(loaded, (0.0, " ned", 20.0), no_speech=0.16, logprob=-0.3)
    prompts = script(monkeypatch, [loop, alone, anything])
    found = transcribe(music(25), loaded, language="en", **options)
    assert found.text == (" ned" if kept else "")
    assert len(prompts) == 2 + kept
    assert prompts[1] == loaded.tokenizer.sot_sequence("en", "transcribe", timestamps=True)


def test_that_is_done_after_the_best_of_several_samples_too(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Temperature 0, at which the window is decoded without the prompt, draws no samples."""
    sampled = timed(loaded, (0.0, " Kokoro likes it", 20.0), no_speech=0.4, logprob=-0.3)
    alone = timed(loaded, (0.0, " ned", 20.0), no_speech=0.4, logprob=-1.9)
    script(monkeypatch, [sampled, alone])
    options: dict[str, Any] = {"temperature": 0.5, "best_of": 2, "hotwords": "Kokoro"}
    assert transcribe(music(25), loaded, language="en", **options).text == ""


def test_the_detector_is_not_asked_of_a_loop_that_nothing_made(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = timed(loaded, (0.0, " to get a chance" * 9, 20.0), no_speech=0.16, logprob=-0.2)
    song = timed(loaded, (0.0, " la la li lo", 20.0), no_speech=0.16, logprob=-0.3)
    script(monkeypatch, [loop, song])
    assert transcribe(music(25), loaded, language="en").text == " la la li lo"


@pytest.mark.parametrize(("logprob", "kept"), [(-1.9, False), (-0.5, True)])
def test_the_test_of_silence_is_made_without_what_makes_text_probable(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, logprob: float, kept: bool
) -> None:
    """The detector takes thunder for speech, but the model does not."""
    probable = timed(loaded, (0.0, " Kokoro likes it", 5.0), no_speech=0.8, logprob=-0.5)
    alone = timed(loaded, (0.0, " I got the gun", 5.0), no_speech=0.8, logprob=logprob)
    prompts = script(monkeypatch, [probable, alone])
    speech = load_audio(SAMPLE)[: 8 * RATE]
    found = transcribe(speech, loaded, language="en", hotwords="Kokoro", temperature=0.0)
    assert found.text == (" Kokoro likes it" if kept else "")
    assert len(prompts) == 2
