"""Transcripts of channels, merged and written."""

from __future__ import annotations

import json

import pytest

from baldwhisper_mlx.output.formats import FORMATS
from baldwhisper_mlx.output.segment import Segment, Word
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.transcription.channels import merge_channels


def channel(language: str, *spoken: tuple[float, float, str]) -> Transcript:
    segments = tuple(
        Segment(i, 0, start, end, text, (1,), 0.0, -0.1, 1.0, 0.0,
                (Word(start, (start + end) / 2, text, 0.9), Word((start + end) / 2, end, "!", 0.9)))
        for i, (start, end, text) in enumerate(spoken)
    )  # fmt: skip
    return Transcript("".join(text for _, _, text in spoken), segments, language, 9.0)


@pytest.fixture
def call() -> Transcript:
    agent = channel("en", (0.0, 2.0, " Hello."), (5.0, 6.0, " Yes, I can & will."))
    caller = channel("fr", (2.0, 4.0, " Bonjour."), (5.5, 7.0, " Bien."))
    return merge_channels([agent, caller])


def test_merged_by_time(call: Transcript) -> None:
    assert [(s.id, s.start, s.channel) for s in call.segments] == [
        (0, 0.0, 1), (1, 2.0, 2), (2, 5.0, 1), (3, 5.5, 2),
    ]  # fmt: skip
    assert call.text == " Hello. Bonjour. Yes, I can & will. Bien."
    assert (call.language, call.duration) == ("en", 9.0)
    with pytest.raises(ValueError, match="none to merge"):
        merge_channels([])


def test_labels_in_every_format(call: Transcript) -> None:
    written = {kind: call.to_format(kind) for kind in FORMATS}
    assert written["txt"].splitlines()[:2] == ["channel 1: Hello.", "channel 2: Bonjour."]
    assert "00:02.000 --> 00:04.000\n<v Channel 2>Bonjour" in written["vtt"]
    assert "\n2\n00:00:02,000 --> 00:00:04,000\nchannel 2: Bonjour" in written["srt"]
    assert written["tsv"].splitlines()[2] == "2000\t4000\tchannel 2: Bonjour."
    assert written["lrc"].splitlines()[1] == "[00:02.00]channel 2: Bonjour.!"
    assert "0:00:02.00,0:00:04.00,Default,Channel 2,0,0,0,,Bonjour.!" in written["ass"]
    assert [s["channel"] for s in json.loads(written["json"])["segments"]] == [1, 2, 1, 2]


def test_a_subtitle_has_the_words_of_one_channel(call: Transcript) -> None:
    text = call.to_srt(max_line_width=60, max_line_count=2)
    starts = [line for line in text.splitlines() if "-->" in line]
    assert starts == sorted(starts)
    for line in text.splitlines():
        assert not ("Hello" in line and "Bonjour" in line)


def test_no_label_without_channels() -> None:
    alone = channel("en", (0.0, 2.0, " Hello."))
    assert alone.to_txt() == "Hello.\n"
    assert "channel" not in json.loads(alone.to_json())["segments"][0]
    assert "<v" not in alone.to_vtt()
