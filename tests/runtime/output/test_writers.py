"""Every format reads back to the times and texts it was written from."""

from __future__ import annotations

import csv
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.output.formats import FORMATS
from baldwhisper_mlx.output.segment import Segment, Word
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.output.writers import format_timestamp

Cue = tuple[float, float, str]

nasty = st.sampled_from(
    ["-->", "--->", "--\n>", "\n", "\n\n", "\r\n", "\t", "\u2028", "7", '"', "&", "<i>", "&lt;"]
)
texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | nasty).map("".join)
times = st.floats(0, 400_000)


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    rows = draw(st.lists(st.tuples(times, times, texts), max_size=5))
    return transcript(*[(min(a, b), max(a, b), text) for a, b, text in rows])


def transcript(*rows: Cue, words: tuple[Word, ...] | None = None) -> Transcript:
    segments = tuple(
        Segment(i, 0, start, end, text, (1,), 0.0, -0.5, 1.0, 0.1, words)
        for i, (start, end, text) in enumerate(rows)
    )
    return Transcript("".join(text for _, _, text in rows), segments, "en", 30.0)


def seconds(stamp: str) -> float:
    """Reads `[hh:]mm:ss.mmm`, with point or comma."""
    match = re.fullmatch(r"(?:(\d{2,}):)?([0-5]\d):([0-5]\d)[.,](\d{3})", stamp)
    assert match, stamp
    hours, minutes, whole, thousandths = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + whole + thousandths / 1000


def parse_cues(blocks: list[str], *, numbered: bool) -> list[Cue]:
    cues = []
    for number, block in enumerate(blocks, start=1):
        lines = block.split("\n")
        if numbered:
            assert lines.pop(0) == str(number)
        start, end = lines[0].split(" --> ")
        assert len(lines) == 2, lines
        assert "-->" not in lines[1]
        cues.append((seconds(start), seconds(end), lines[1]))
    return cues


def parse(extension: str, text: str) -> list[Cue]:
    if extension == "srt":
        blocks = re.findall(r"(\d+\n.+ --> .+\n.*\n)\n", text)
    else:
        assert text.startswith("WEBVTT\n\n")
        blocks = re.findall(r"(.+ --> .+\n.*\n)\n", text.removeprefix("WEBVTT\n\n"))
    assert "".join(f"{block}\n" for block in blocks) == text.removeprefix("WEBVTT\n\n")
    return parse_cues([block[:-1] for block in blocks], numbered=extension == "srt")


def squeezed(text: str) -> str:
    """Without what the formats may change: white space, and the dashes of arrows."""
    return re.sub(r"-{2,}>", "->", re.sub(r"[\s\x1c-\x1f]", " ", text)).replace(" ", "")


def with_text(transcript: Transcript) -> list[Segment]:
    return [s for s in transcript.segments if "".join(re.split(r"[\s\x1c-\x1f]", s.text))]


@pytest.mark.parametrize("extension", ["srt", "vtt"])
@settings(deadline=None)
@given(transcript=transcripts())
def test_subtitles_read_back(extension: str, transcript: Transcript) -> None:
    cues = parse(extension, transcript.to_format(extension))
    spoken = with_text(transcript)
    assert len(cues) == len(spoken)
    for (start, end, text), segment in zip(cues, spoken, strict=True):
        if extension == "vtt":  # as a player reads it
            assert "<" not in text
            assert re.fullmatch(r"([^&]|&amp;|&lt;)*", text)
            text = text.replace("&lt;", "<").replace("&amp;", "&")
        assert math.isclose(start, segment.start, abs_tol=0.00051)
        assert math.isclose(end, segment.end, abs_tol=0.00051)
        assert squeezed(text) == squeezed(segment.text)


@given(transcripts())
def test_tsv_has_one_row_of_three_fields_per_segment(transcript: Transcript) -> None:
    header, *rows = transcript.to_tsv().removesuffix("\n").split("\n")
    assert header == "start\tend\ttext"
    spoken = with_text(transcript)
    assert len(rows) == len(spoken)
    for row, segment in zip(rows, spoken, strict=True):
        start, end, text = next(csv.reader([row], delimiter="\t", quoting=csv.QUOTE_NONE))
        assert (int(start), int(end)) == (round(segment.start * 1e3), round(segment.end * 1e3))
        assert "".join(text.split()) == "".join(segment.text.split())


@given(transcripts())
def test_txt_has_one_line_per_segment(transcript: Transcript) -> None:
    text = transcript.to_txt()
    assert text.count("\n") == len(with_text(transcript))
    assert "".join(text.split()) == "".join("".join(s.text for s in transcript.segments).split())


@given(transcripts())
def test_json_keeps_everything(transcript: Transcript) -> None:
    assert json.loads(transcript.to_json()) == transcript.to_dict()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_json_never_holds_what_is_not_json(bad: float) -> None:
    segment = Segment(0, 0, 0.0, 1.0, "x", (1,), 0.0, bad, bad, bad, (Word(0.0, 1.0, "x", bad),))
    text = Transcript("x", (segment,), "en", 1.0).to_json()

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} in JSON")

    (raw,) = json.loads(text, parse_constant=refuse)["segments"]
    assert raw["avg_logprob"] is raw["no_speech_prob"] is raw["words"][0]["probability"] is None


@pytest.mark.parametrize("extension", FORMATS)
def test_unicode_is_kept_as_it_is(extension: str) -> None:
    assert "ɔ̀ 日本 😀" in transcript((0.0, 1.0, " ɔ̀ 日本 😀")).to_format(extension)


@pytest.mark.parametrize("extension", FORMATS)
def test_an_empty_transcript_is_a_valid_file(extension: str) -> None:
    text = transcript().to_format(extension)
    expected = {"txt": "", "srt": "", "vtt": "WEBVTT\n\n", "tsv": "start\tend\ttext\n", "lrc": ""}
    assert text == expected.get(extension, text)
    assert extension != "json" or json.loads(text)["segments"] == []
    assert extension != "ass" or "Dialogue" not in text


@pytest.mark.parametrize("extension", ["srt", "vtt"])
def test_word_times_are_used_where_known(extension: str) -> None:
    words = (Word(1.25, 1.5, " a", 0.5), Word(1.5, 1.75, " b", 0.5))
    timed = transcript((1.0, 2.0, " a b"), words=words)
    assert parse(extension, timed.to_format(extension)) == [(1.25, 1.75, "a b")]
    assert parse(extension, transcript((1.0, 2.0, ""), words=()).to_format(extension)) == []


def test_vtt_escapes_words_and_keeps_its_own_tags() -> None:
    words = (Word(1.0, 1.5, " <b>", 0.5), Word(1.5, 2.0, " R&D", 0.5), Word(2.0, 2.5, " -->", 0.5))
    timed = transcript((1.0, 2.5, " <b> R&D -->"), words=words)
    assert parse("vtt", timed.to_vtt())[0][2] == "&lt;b> R&amp;D ->"
    highlighted = timed.to_vtt(highlight_words=True)
    assert [text for _, _, text in parse("vtt", highlighted)] == [
        "<u>&lt;b></u> R&amp;D ->",
        "&lt;b> <u>R&amp;D</u> ->",
        "&lt;b> R&amp;D <u>-></u>",
    ]
    assert "<b> R&D ->" in timed.to_srt()


@pytest.mark.parametrize(
    ("time", "srt", "vtt"),
    [
        (0.0, "00:00:00,000", "00:00.000"),
        (59.9994, "00:00:59,999", "00:59.999"),
        (59.9996, "00:01:00,000", "01:00.000"),
        (3599.9996, "01:00:00,000", "01:00:00.000"),
        (360_000.5, "100:00:00,500", "100:00:00.500"),
    ],
)
def test_times_roll_over(time: float, srt: str, vtt: str) -> None:
    assert format_timestamp(time, always_include_hours=True, decimal_marker=",") == srt
    assert format_timestamp(time, always_include_hours=False, decimal_marker=".") == vtt


@given(times, times)
def test_later_times_never_read_earlier(a: float, b: float) -> None:
    a, b = sorted((a, b))
    stamps = [
        format_timestamp(time, always_include_hours=False, decimal_marker=".") for time in (a, b)
    ]
    assert seconds(stamps[0]) <= seconds(stamps[1])


@pytest.mark.parametrize("bad", [-0.5, math.nan, math.inf])
@pytest.mark.parametrize("extension", ["srt", "vtt", "tsv", "lrc", "ass"])
def test_impossible_times_are_refused(extension: str, bad: float) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        transcript((bad, 1.0, "x")).to_format(extension)
