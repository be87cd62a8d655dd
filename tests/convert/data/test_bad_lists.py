"""Damaged lists of speech: every row is used, or counted and named; never a crash, nothing lost."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baldwhisper_convert.data.prepare import prepare
from baldwhisper_convert.data.prepare_settings import PrepareSettings, prepared_key
from baldwhisper_convert.data.utterances import BadRows, Utterance, read_utterances
from baldwhisper_convert.data.windows import WindowSettings
from baldwhisper_mlx.audio.speech_audio import audio_of
from baldwhisper_mlx.audio.speech_dataset import decode_audio
from baldwhisper_mlx.evaluation.dataset import Clip, Source, Speech
from tests.support.tiny_speech import sound, tiny_speech, tiny_teacher

FUZZ = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
cells = st.sampled_from([
    "a.wav", "gone.wav", "", " ", '"', "one two", '"one', "NaN", "null", "\u2028", "\x00", "..",
    "x" * 300, "é", "\ud800", "😀", "a\tb", "a,b", "#", "\x1c", "/", "~", "\ufeff",
])  # fmt: skip
values: st.SearchStrategy[Any] = cells | st.none() | st.booleans() | st.integers() | st.floats() | (
    st.lists(st.integers(), max_size=2) | st.dictionaries(cells, st.integers(), max_size=2)
)  # fmt: skip
columns = st.sampled_from(["path", "text", "sentence", "audio", "speaker", "", "Text", "duration"])


def check(path: Path) -> None:
    """Reads a list for training and for an evaluation: utterances, or one error that names it."""
    bad = BadRows(allowed=True)
    try:
        found = list(read_utterances(str(path), bad=bad))
    except ValueError:
        for read in (read_utterances(str(path)), Evaluated(path)):
            with pytest.raises(ValueError, match=re.escape(str(path))):
                list(read)
        return
    for what, reason in bad.rows:
        assert what
        assert reason
    for utterance in found:
        assert utterance.text.strip()
        utterance.text.encode()
        for call in (utterance.samples, utterance.seconds):
            with contextlib.suppress(ValueError, OSError):
                call()
    clips = list(Evaluated(path))
    # Only an empty text is good for an evaluation and bad for training.
    assert len(clips) == len(found) + len(bad.rows)
    empty = sum(not clip.text and not clip.fault for clip in clips)
    assert sum(bool(clip.fault) for clip in clips) + empty == len(bad.rows)
    Speech(Source(name=str(path)), skip_bad=True).missing_files()


class Evaluated:
    """The clips of a list as an evaluation reads them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[Clip]:
        return iter(Speech(Source(name=str(self.path)), skip_bad=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.wav", sound(0.2), 16_000)
    return tmp_path


@FUZZ
@given(
    header=st.lists(columns, min_size=1, max_size=4),
    rows=st.lists(st.lists(cells, max_size=5), max_size=5),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    kind=st.sampled_from(["csv", "tsv"]),
    start=st.sampled_from(["", "\ufeff"]),
)
def test_tables(
    folder: Path, header: list[str], rows: list[list[str]], end: str, kind: str, start: str
) -> None:
    separator = "," if kind == "csv" else "\t"
    path = folder / f"list.{kind}"
    text = start + end.join(separator.join(cells) for cells in [header, *rows])
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    check(path)


@FUZZ
@given(
    rows=st.lists(st.dictionaries(columns, values, max_size=5) | values, max_size=6),
    lines=st.booleans(),
)
def test_json(folder: Path, rows: list[Any], lines: bool) -> None:
    path = folder / "list.json"
    good = [{"path": "a.wav", "text": "one"}]
    text = "\n".join(map(json.dumps, good + rows)) if lines else json.dumps(good + rows)
    path.write_text(text, encoding="utf-8")
    check(path)


@FUZZ
@given(st.binary(max_size=200), st.sampled_from(["csv", "tsv", "json", "jsonl"]))
def test_any_bytes(folder: Path, content: bytes, kind: str) -> None:
    path = folder / f"list.{kind}"
    path.write_bytes(content)
    check(path)


@FUZZ
@given(st.floats(0, 1), st.integers(1, 255), st.sampled_from(["csv", "jsonl"]))
def test_flipped_bytes_lose_no_row_silently(
    folder: Path, place: float, bits: int, kind: str
) -> None:
    rows = [("a.wav", f"word {i}") for i in range(6)]
    content = bytearray(
        "".join(f"{file},{text}\n" for file, text in [("path", "text"), *rows]).encode()
        if kind == "csv"
        else "".join(json.dumps({"path": f, "text": t}) + "\n" for f, t in rows).encode()
    )
    content[int(place * (len(content) - 1))] ^= bits
    path = folder / f"list.{kind}"
    path.write_bytes(bytes(content))
    check(path)
    bad = BadRows(allowed=True)
    try:
        found = list(read_utterances(str(path), bad=bad))
    except ValueError:
        return
    assert len(found) + len(bad.rows) >= 5  # a changed line end joins two rows


BAD: dict[str, tuple[str, str]] = {
    "text that is a number": ('{"path": "a.wav", "text": 7}', "its text is int and not a string"),
    "text that is a list": ('{"path": "a.wav", "text": ["x"]}', "its text is list and not a "),
    "text that is NaN": ('{"path": "a.wav", "text": NaN}', "without text"),
    "empty text": ('{"path": "a.wav", "text": " "}', "without text"),
    "no text": ('{"path": "a.wav"}', "without text"),
    "no audio": ('{"text": "one"}', "without audio"),
    "NaN as a path": ('{"path": NaN, "text": "one"}', "without audio"),
    "a path that is a number": ('{"path": 7, "text": "one"}', "its audio is int, and neither"),
    "no JSON": ('{"path": "a.wav", "text"', "not JSON"),
    "no object": ("[1]", "not a JSON object"),
    "a key twice": ('{"path": "a.wav", "text": "a", "text": "b"}', "a key is there twice"),
    "half a character": ('{"path": "a.wav", "text": "\\ud800"}', "not UTF-8 text"),
    "a rate of zero": ('{"audio": {"array": [0.1], "sampling_rate": 0}, "text": "x"}', "rate of 0"),
    "no rate": ('{"audio": {"array": [0.1]}, "text": "x"}', "sampling rate of None"),
    "no samples": ('{"audio": {"array": [], "sampling_rate": 16000}, "text": "x"}', "no samples"),
    "letters": ('{"audio": {"array": ["x"], "sampling_rate": 16000}, "text": "x"}', "else than"),
    "NaN samples": ('{"audio": {"array": [NaN], "sampling_rate": 16000}, "text": "x"}', "NaN"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_named_with_their_number_and_reason(folder: Path, case: str) -> None:
    line, reason = BAD[case]
    path = folder / "list.jsonl"
    good = '{"path": "a.wav", "text": "one", "speaker": 1}'
    path.write_text(f"{good}\n{line}\r\n{good}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="--skip-bad skips such utterances"):
        list(read_utterances(str(path)))
    said: list[str] = []
    bad = BadRows(allowed=True, say=said.append)
    assert [u.text for u in read_utterances(str(path), bad=bad)] == ["one", "one"]
    ((what, why),) = bad.rows
    assert "row 2" in what or "a.wav" in what
    assert reason in why
    assert said == [f"skipped: {what}: {why}"]


def test_rows_of_a_csv(folder: Path) -> None:
    path = folder / "list.csv"
    path.write_bytes(b"path,text\r\na.wav,one\r\na.wav,b\xe9b\xe9\r\na.wav,x,y\r\na.wav\r\n")
    bad = BadRows(allowed=True)
    assert len(list(read_utterances(str(path), bad=bad))) == 1
    assert [what.rpartition(", ")[2] for what, _ in bad.rows[:1]] == ["row 2"]
    reasons = ["not UTF-8 text", "more cells than columns", "without text"]
    assert [reason for _, reason in bad.rows] == reasons


def test_bad_audio_is_counted_when_speech_is_prepared(folder: Path) -> None:
    soundfile.write(folder / "empty.wav", np.zeros(0, np.float32), 16_000)
    header = bytearray((folder / "a.wav").read_bytes())
    header[24:28] = bytes(4)  # the sampling rate
    (folder / "rate.wav").write_bytes(bytes(header))
    (folder / "noise.wav").write_bytes(b"no audio")
    names = ["a.wav", "empty.wav", "rate.wav", "noise.wav", "gone.wav", "a\0.wav", ".", "a.wav"]
    path = folder / "list.jsonl"
    path.write_text("".join(json.dumps({"path": n, "text": "one"}) + "\n" for n in names))
    bad = BadRows(allowed=True)
    utterances = list(read_utterances(str(path), bad=bad))
    options = PrepareSettings(windows=WindowSettings(silence=0))
    prepared = prepare(tiny_teacher(), utterances, options, folder / "prepared", bad=bad)
    assert len(prepared) == 2
    assert len(bad.rows) == 6
    for name, (what, _) in zip(names[1:-1], bad.rows, strict=True):
        assert name.strip("\0") in what or repr(name)[1:-1] in what or str(folder) in what


def test_strangers_are_not_joined(tmp_path: Path) -> None:
    folder = tiny_speech(tmp_path, 6)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    path = tmp_path / "strangers.jsonl"
    path.write_text(
        "".join(json.dumps({k: r[k] for k in ("file_name", "text")}) + "\n" for r in rows)
    )
    said: list[str] = []
    strangers = list(read_utterances(str(path), say=said.append))
    assert len(said) == 1
    assert "6 clips have no speaker" in said[0]
    options = PrepareSettings(windows=WindowSettings(silence=0, single=0))
    prepared = prepare(tiny_teacher(), strangers, options, tmp_path / "strangers")
    assert [window.text for window in prepared.windows] == [row["text"] for row in rows]
    assert not any(window.prompt for window in prepared.windows)
    said.clear()
    speakers = list(read_utterances(str(folder), say=said.append))
    assert said == []
    joined = prepare(tiny_teacher(), speakers, options, tmp_path / "speakers")
    assert len(joined) < len(prepared)


def test_arrays_of_any_type_and_shape_are_the_same_audio() -> None:
    whole = np.round(sound(0.2) * 2**15).astype(np.int16)
    real = whole.astype(np.float32) / 2**15
    stereo = np.stack([real, real])
    arrays = [whole, whole.tolist(), whole.astype(np.int64), real, real.tolist(), stereo, stereo.T]
    decoded = [
        decode_audio(audio_of({"audio": array, "sampling_rate": 16_000}, "audio", None) or b"", "")
        for array in arrays
    ]
    for samples in decoded:
        np.testing.assert_allclose(samples, real, atol=1e-6)


@FUZZ
@given(values, values)
def test_structs_of_audio(content: Any, rate: Any) -> None:
    for audio in ({"array": content, "sampling_rate": rate}, {"bytes": content}, {"path": content}):
        with contextlib.suppress(ValueError):
            audio_of({"audio": audio}, "audio", None)


@pytest.mark.parametrize(
    "rate", [math.inf, -math.inf, math.nan, 10**400, 1e300, -16_000, True, "x"]
)
def test_impossible_rates_and_offsets(rate: Any) -> None:
    with pytest.raises(ValueError, match="its audio is an array with a sampling rate of"):
        audio_of({"audio": {"array": [0.1], "sampling_rate": rate}}, "audio", None)
    if rate != rate:
        return  # as pandas writes a cell without a number
    for key, other in (("offset", "duration"), ("duration", "offset")):
        row = {"audio_filepath": "a.wav", key: rate, other: 1.0}
        with pytest.raises(ValueError, match="its offset and duration are no seconds"):
            audio_of(row, "audio", None)


def test_data_that_was_prepared_when_strangers_were_joined_is_not_used_again() -> None:
    teacher, options = tiny_teacher(), PrepareSettings()
    alone, together = Utterance("a.wav", "a.wav", "one"), Utterance("a.wav", "a.wav", "one", "x")
    assert prepared_key(teacher, [alone], options) != prepared_key(teacher, [together], options)
