"""Labelled speech as it is published: every layout, for training and for evaluations alike."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from baldwhisper_convert.data.utterances import BadRows, read_utterances
from baldwhisper_mlx.audio.speech_arrow import reason
from baldwhisper_mlx.evaluation.dataset import Source, Speech
from tests.support.tiny_layouts import (
    LAYOUTS,
    SECONDS,
    SPEAKERS,
    TEXTS,
    files,
    kaldi,
    kaldi_segments,
    saved,
    saved_splits,
    webdataset,
)
from tests.support.tiny_speech import sound


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No decoder of `datasets`, and its cache in the test's folder."""
    import datasets

    monkeypatch.setitem(sys.modules, "torchcodec", None)
    monkeypatch.setitem(sys.modules, "librosa", None)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_give_the_same_speech(tmp_path: Path, layout: str) -> None:
    source, said = str(LAYOUTS[layout](tmp_path / "data")), list[str]()
    found = list(read_utterances(source, split="test", say=said.append))
    assert [u.text for u in found] == list(TEXTS)
    assert [u.group.rpartition("/")[2] for u in found] == list(SPEAKERS)
    assert [u.seconds() for u in found] == pytest.approx(SECONDS, abs=1e-3)
    assert len({u.content() for u in found}) == 3
    clips = list(Speech(Source(name=source, split="test")))
    assert [(c.text, c.speaker) for c in clips] == list(zip(TEXTS, SPEAKERS, strict=True))
    assert len({c.digest() for c in clips}) == 3
    for number, (utterance, clip) in enumerate(zip(found, clips, strict=True)):
        samples = utterance.samples()
        np.testing.assert_array_equal(samples, clip.samples())
        assert len(samples) == pytest.approx(16_000 * SECONDS[number], abs=2)
        correlation = np.corrcoef(
            samples[: len(samples) // 2], sound(0.6, number)[: len(samples) // 2]
        )
        assert correlation[0, 1] > 0.8 or number == 2  # a third of the tone is above 8 kHz
    assert len(said) <= 1
    assert all("column" in line and source in line for line in said)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_source_may_be_relative_to_the_working_directory(
    tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = LAYOUTS[layout](tmp_path / "data").relative_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = list(read_utterances(str(source), split="test"))
    assert [len(u.samples()) / 16_000 for u in found] == pytest.approx(SECONDS, abs=1e-3)
    clips = list(Speech(Source(name=str(source), split="test")))
    assert len({clip.digest() for clip in clips}) == 3


@pytest.mark.parametrize("column", ["sentence", "transcription", "Transcript", "normalized_text"])
def test_text_columns_are_found_and_named(tmp_path: Path, column: str) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text(json.dumps({"path": "a.wav", column: "one", "speaker": "x"}) + "\n")
    said: list[str] = []
    assert [u.text for u in read_utterances(str(path), say=said.append)] == ["one"]
    assert said == [f"{path}: text from the column {column!r}"]
    said.clear()
    assert [c.text for c in Speech(Source(name=str(path)), say=said.append)] == ["one"]
    assert said == [f"{path}: text from the column {column!r}"]


def test_several_text_columns_are_an_error_unless_one_is_named_text(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    row = {"path": "a.wav", "raw_text": "One.", "normalized_text": "one", "speaker": "x"}
    path.write_text(json.dumps(row))
    with pytest.raises(ValueError, match="columns normalized_text, raw_text; name one: --text-col"):
        list(read_utterances(str(path)))
    assert [u.text for u in read_utterances(str(path), text_column="raw_text")] == ["One."]
    path.write_text(json.dumps(row | {"text": "ONE"}))
    said: list[str] = []
    assert [u.text for u in read_utterances(str(path), say=said.append)] == ["ONE"]
    assert said == [f"{path}: text from the column 'text', not from normalized_text, raw_text"]


def test_hints_name_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("recording,words\na.wav,one\n")
    with pytest.raises(
        ValueError, match=r"no column text, sentence.*it has recording, words.*--text"
    ):
        list(read_utterances(str(path)))
    with pytest.raises(ValueError, match=r"no column 'audio', file_name.*it has recording, words"):
        list(read_utterances(str(path), text_column="words"))
    with pytest.raises(ValueError, match="no column 'bam'; it has recording, words"):
        list(read_utterances(str(path), text_column="bam"))
    found = list(read_utterances(str(path), text_column="words", audio_column="recording"))
    assert [u.audio for u in found] == [str(tmp_path / "a.wav")]


def test_a_quotation_mark_swallows_no_rows_of_a_tsv(tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text('path\tsentence\na.mp3\t"Open\nb.mp3\tquote"\nc.mp3\t"both"\n')
    assert [u.text for u in read_utterances(str(path))] == ['"Open', 'quote"', '"both"']


def test_splits(tmp_path: Path) -> None:
    source = str(saved_splits(tmp_path / "splits"))
    assert [u.text for u in read_utterances(source)] == [TEXTS[2]]
    with pytest.raises(ValueError, match="no split 'dev'; it has train, test"):
        list(read_utterances(source, split="dev"))
    alone = str(saved(tmp_path / "alone"))
    assert len(list(read_utterances(alone, split="whatever"))) == 3


def test_damaged_saved_data_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved")
    next(folder.glob("*.arrow")).write_bytes(b"no arrow")
    with pytest.raises(ValueError, match=r"saved: cannot be read as a dataset"):
        list(read_utterances(str(folder)))
    (tmp_path / "bad.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"bad\.parquet: cannot be read as a dataset"):
        list(read_utterances(str(tmp_path / "bad.parquet")))


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def test_bad_rows_of_kaldi(tmp_path: Path) -> None:
    folder = kaldi(tmp_path)
    append(folder / "wav.scp", "u3 sph2pipe -f wav x.sph |\nu4 raw.ark:17\nu5\nu0 other.wav\n")
    append(folder / "wav.scp", "u7 gone.wav\n")
    append(folder / "text", "u6 where is it\nu7 a file that is not there\n")
    with pytest.raises(ValueError, match=r"row 4 \(u3\): wav.scp has a command .* not run"):
        list(read_utterances(str(folder)))
    bad = BadRows(allowed=True)
    found = list(read_utterances(str(folder), bad=bad))
    assert [u.name for u in found] == [str(tmp_path / f"audio/clip_{i}.wav") for i in range(3)] + [
        str(folder / "gone.wav")
    ]
    reasons = {what.partition("(")[2].rstrip(")"): reason for what, reason in bad.rows}
    assert reasons.keys() == {"u3", "u4", "u5", "u0", "u6"}
    assert "Kaldi archive" in reasons["u4"]
    assert reasons["u5"] == "its recording is not in wav.scp"
    assert reasons["u0"] == "is in wav.scp twice"
    assert reasons["u6"] == "is in text, but not in wav.scp"


def test_bad_segments(tmp_path: Path) -> None:
    folder = kaldi_segments(tmp_path) / "test"
    lines = ["u3 rec 1.0 0.5", "u4 rec x 2", "u5 other 0 1", "u6 rec 1.2 99", "u7 rec nan 1"]
    append(folder / "segments", "\n".join(lines) + "\n")
    append(folder / "text", "".join(f"u{i} words\n" for i in range(3, 8)))
    bad = BadRows(allowed=True)
    found = list(read_utterances(str(tmp_path), split="test", bad=bad))
    assert [what.partition("(")[2] for what, _ in bad.rows] == ["u3)", "u4)", "u5)", "u7)"]
    assert len(found) == 4
    with pytest.raises(ValueError, match=r"all\.wav \[1\.20 s to 99\.00 s\]: the recording lasts"):
        found[3].samples()


def test_cut_off_shards(tmp_path: Path) -> None:
    folder = webdataset(tmp_path / "data")
    shard = folder / "shard-00001.tar"
    shard.write_bytes(shard.read_bytes()[:20_000])
    with pytest.raises(ValueError, match=r"row 3 \(.*shard-00001\.tar\): the shard is cut off"):
        list(read_utterances(str(folder)))
    bad = BadRows(allowed=True)
    assert [u.text for u in read_utterances(str(folder), bad=bad)] == list(TEXTS[:2])
    assert len(bad.rows) == 1
    (folder / "shard-00002.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(ValueError, match=r"shard-00002\.tar: cannot be read as a tar file"):
        list(read_utterances(str(folder)))


def test_missing_audio_in_clips_is_named(tmp_path: Path) -> None:
    files(tmp_path / "clips")
    path = tmp_path / "test.tsv"
    path.write_text("path\tsentence\nclip_0.wav\tone\ngone.mp3\ttwo\n")
    assert Speech(Source(name=str(path))).missing_files() == ["gone.mp3"]


def test_a_missing_folder_that_could_be_on_the_hub_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match="speach: no such folder, and cannot be read as a Hub data"
    ):
        list(read_utterances("speach"))


def test_the_innermost_reason_is_shown() -> None:
    try:
        try:
            raise ImportError("To support encoding audio data, please install 'torchcodec'.")
        except ImportError as error:
            raise ValueError("An error occurred while generating the dataset") from error
    except ValueError as error:
        said = reason(error)
    assert said.startswith("To support encoding audio data")
    assert "download the repository, and give its folder" in said
