"""The methods of Transcript: formats, layouts and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from baldwhisper_mlx import Segment, Transcript, Word
from baldwhisper_mlx.output.formats import FORMATS, format_of
from baldwhisper_mlx.output.subtitles import Layout, LayoutOptions

WORD = Word(0.0, 0.5, " Hi", 0.9)
PLAIN = Segment(0, 0, 0.0, 1.0, " Hi", (1, 2), 0.0, -0.3, 1.2, 0.01)
TIMED = Segment(1, 0, 1.0, 2.0, " Hi", (3,), 0.2, -0.3, 1.2, 0.01, (WORD,))


@pytest.fixture
def plain() -> Transcript:
    return Transcript(" Hi", (PLAIN,), "en", 2.0)


@pytest.fixture
def timed() -> Transcript:
    return Transcript(" Hi", (TIMED,), "en", 2.0)


def test_to_dict_has_openais_layout_and_survives_json() -> None:
    raw = Transcript(" Hi Hi", (PLAIN, TIMED), "en", 2.0).to_dict()
    assert list(raw) == ["text", "segments", "language", "duration", "version"]
    fields = "id seek start end text tokens temperature avg_logprob compression_ratio"
    assert list(raw["segments"][0]) == [*fields.split(), "no_speech_prob"]
    assert raw["segments"][1]["words"] == [
        {"start": 0.0, "end": 0.5, "word": " Hi", "probability": 0.9}
    ]
    assert json.loads(json.dumps(raw)) == raw


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_has_a_method(format: str, timed: Transcript) -> None:
    assert getattr(timed, f"to_{format}")() == timed.to_format(format)


def test_options_of_layouts_are_the_keywords() -> None:
    assert set(get_type_hints(LayoutOptions)) == set(Layout.__dataclass_fields__)


def test_layouts_reach_the_subtitles(timed: Transcript, tmp_path: Path) -> None:
    assert "<u>Hi</u>" in timed.to_srt(highlight_words=True)
    assert "<u>Hi</u>" in timed.to_vtt(highlight_words=True)
    assert r"{\k50}Hi" in timed.to_ass(highlight_words=True)
    timed.save(tmp_path / "talk.srt", highlight_words=True)
    assert (tmp_path / "talk.srt").read_text() == timed.to_srt(highlight_words=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_line_count": 2}, "max_line_count: only with max_line_width"),
        ({"max_words_per_line": 2, "max_line_width": 9}, "not both"),
        ({"max_line_width": 0}, "at least 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    timed: Transcript, options: Any, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        timed.to_srt(**options)
    with pytest.raises(ValueError, match=words):
        timed.save(tmp_path / "talk.vtt", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_layout_needs_words(plain: Transcript, timed: Transcript) -> None:
    with pytest.raises(ValueError, match="highlight_words: only with words"):
        plain.to_vtt(highlight_words=True)
    empty = Transcript("", (), None, 2.0)
    assert empty.to_vtt(highlight_words=True) == empty.to_vtt()
    assert plain.to_vtt(highlight_words=False) == plain.to_vtt()
    with pytest.raises(ValueError, match="only for subtitles, not for txt"):
        timed.save("talk.txt", highlight_words=True)


@pytest.mark.parametrize("format", FORMATS)
def test_saves_by_the_ending_of_the_name(format: str, timed: Transcript, tmp_path: Path) -> None:
    path = tmp_path / f"talk.2.{format.upper()}"
    timed.save(str(path))
    assert path.read_bytes() == timed.to_format(format).encode()
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_file_that_exists_is_kept_unless_forced(timed: Transcript, tmp_path: Path) -> None:
    path = tmp_path / "talk.srt"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"talk.srt: exists; give force=True"):
        timed.save(path)
    assert path.read_text() == "mine"
    timed.save(path, force=True)
    assert path.read_text() == timed.to_srt()


@pytest.mark.parametrize("name", ["talk", "talk.doc", "srt", ".srt.", "talk.srt/talk"])
def test_a_name_without_a_format_needs_one(name: str, timed: Transcript, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    with pytest.raises(ValueError, match="ending names no format; use one of txt, srt"):
        timed.save(path)
    timed.save(path, format="srt")
    assert path.read_text() == timed.to_srt()


def test_what_cannot_be_saved(timed: Transcript, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent: no such folder to write talk.srt in"):
        timed.save(tmp_path / "absent" / "talk.srt")
    (tmp_path / "talk.srt").mkdir()
    with pytest.raises(ValueError, match=r"talk.srt: is a folder"):
        timed.save(tmp_path / "talk.srt", force=True)
    with pytest.raises(ValueError, match=r"format must be one of txt.*not 'doc'"):
        timed.save(tmp_path / "talk.doc", format="doc")
    assert [path.name for path in tmp_path.iterdir()] == ["talk.srt"]


def test_the_ending_is_what_follows_the_last_dot() -> None:
    assert format_of("a.json.SRT") == "srt"
