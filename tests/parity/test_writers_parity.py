"""The writers' output against openai-whisper's, byte for byte (JSON: value for value)."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.output.formats import FORMATS
from baldwhisper_mlx.output.segment import Segment, Word
from baldwhisper_mlx.output.subtitles import Layout
from baldwhisper_mlx.output.transcript import Transcript

utils = pytest.importorskip("whisper.utils")

# Where OpenAI's files do not read back: line breaks, arrows but the plain one, & and < in WebVTT,
# and segments without text.
line = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="&<")
    | st.just("\t")
)
text = st.lists(line | st.sampled_from([" --> ", "é ü ", " 日本語", " a\tb "]), max_size=4).map(
    "".join
)
text = text.filter(lambda t: "--->" not in t and bool(t.strip()))
time = st.floats(0, 200_000, allow_nan=False)


@st.composite
def transcripts(draw: st.DrawFn, words: bool = False) -> Transcript:
    segments = []
    for index in range(draw(st.integers(0, 4))):
        start, end = sorted((draw(time), draw(time)))
        cut = tuple(
            Word(start + i / 100, start + (i + 1) / 100, f" w{i}", draw(st.floats(0, 1)))
            for i in range(draw(st.integers(1, 3)))
        )
        segments.append(
            Segment(
                id=index,
                seek=draw(st.integers(0, 10**6)),
                start=start,
                end=end,
                text="".join(word.word for word in cut) if words else draw(text),
                tokens=tuple(draw(st.lists(st.integers(0, 51864), max_size=4))),
                temperature=draw(st.sampled_from([0.0, 0.2, 1.0])),
                avg_logprob=draw(st.floats(-10, 0)),
                compression_ratio=draw(st.floats(0, 10)),
                no_speech_prob=draw(st.floats(0, 1)),
                words=cut if words else None,
            )
        )
    return Transcript("".join(s.text for s in segments), tuple(segments), "en", 30.0)


def theirs(result: dict[str, Any], extension: str, **layout: Any) -> str:
    file = io.StringIO()
    utils.get_writer(extension, ".").write_result(result, file=file, **layout)
    return file.getvalue()


@pytest.mark.parametrize("extension", ["txt", "srt", "vtt", "tsv"])
@pytest.mark.parametrize("words", [False, True])
@settings(deadline=None)
@given(data=st.data())
def test_text_formats_equal_openai(extension: str, words: bool, data: st.DataObject) -> None:
    transcript = data.draw(transcripts(words))
    assert transcript.to_format(extension) == theirs(transcript.to_dict(), extension)


@pytest.mark.parametrize("extension", ["srt", "vtt"])
@settings(deadline=None, max_examples=300)
@given(
    transcript=transcripts(words=True),
    layout=st.fixed_dictionaries(
        {
            "highlight_words": st.booleans(),
            "max_line_width": st.none() | st.integers(1, 12),
            "max_line_count": st.none() | st.integers(1, 3),
            "max_words_per_line": st.none() | st.integers(1, 3),
        }
    ),
)
def test_layouts_equal_openai(
    extension: str, transcript: Transcript, layout: dict[str, Any]
) -> None:
    ours = transcript.to_format(extension, Layout(**layout))
    assert ours == theirs(transcript.to_dict(), extension, **layout)


@settings(deadline=None)
@given(transcripts() | transcripts(words=True))
def test_json_equals_openai(transcript: Transcript) -> None:
    got = json.loads(transcript.to_json())
    assert got == json.loads(theirs(transcript.to_dict(), "json"))
    assert list(got)[:3] == ["text", "segments", "language"]


def test_every_format_of_openai_is_there(tmp_path: Path) -> None:
    utils.get_writer("all", str(tmp_path))(Transcript("", (), "en", 0.0).to_dict(), "clip.wav")
    assert {path.suffix[1:] for path in tmp_path.iterdir()} <= set(FORMATS)
