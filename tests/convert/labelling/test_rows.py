"""Columns and audio of labelled rows, for every kind of source."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.audio.speech_dataset import SpeechData, decode_audio
from tests.support.tiny_labels import Scripted, label_all, worker
from tests.support.tiny_speech import sound

RATE = 16_000


def labelled(tmp_path: Path, source: Path) -> tuple[list[dict[str, Any]], Any]:
    """The rows of a labelled source, and their schema."""
    label_all(worker(tmp_path / "set", source, Scripted(lambda n: f"{n} samples")))
    table = pq.read_table(next((tmp_path / "set" / "train").iterdir()))
    return table.to_pylist(), table.schema


def write_list(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    soundfile.write(folder / "a.wav", sound(1.0), RATE)
    text = "".join(json.dumps({"file_name": "a.wav", "text": "a", **row}) + "\n" for row in rows)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_columns_keep_their_types(tmp_path: Path) -> None:
    source = write_list(
        tmp_path / "speech",
        [
            {"age": 7, "ok": True, "score": 1, "mixed": "a", "tags": ["x", "é"], "wer": 0.5},
            {"age": None, "ok": False, "score": 0.5, "mixed": 3, "tags": None, "source_wer": 1},
        ],
    )
    rows, schema = labelled(tmp_path, source)
    types = {name: str(schema.field(name).type) for name in ("age", "ok", "score", "mixed", "tags")}
    assert types == {
        "age": "int64", "ok": "bool", "score": "double", "mixed": "string", "tags": "string",
    }  # fmt: skip
    assert (rows[0]["mixed"], rows[1]["mixed"]) == ("a", "3")
    assert json.loads(rows[0]["tags"]) == ["x", "é"]
    assert rows[1]["age"] is None
    # Names of ours do not replace those of the source.
    assert rows[0]["wer"] != 0.5
    assert rows[0]["source_source_wer"] == 0.5
    assert rows[1]["source_wer"] == 1


def test_a_part_of_a_recording_is_cut_out(tmp_path: Path) -> None:
    folder = tmp_path / "kaldi"
    folder.mkdir()
    soundfile.write(folder / "long.wav", sound(3.0), RATE, subtype="PCM_16")
    (folder / "wav.scp").write_text("long long.wav\n")
    (folder / "segments").write_text("one long 0.5 1.25\ntwo long 1.5 3.0\n")
    (folder / "text").write_text("one a fox\ntwo a dog\n")
    rows, _ = labelled(tmp_path, folder)
    assert [row["utterance"] for row in rows] == ["one", "two"]
    whole = load_audio(folder / "long.wav")
    cut = load_audio(io.BytesIO(rows[0]["audio"]["bytes"]))
    np.testing.assert_allclose(cut, whole[RATE // 2 : RATE + RATE // 4], atol=2**-15)


def test_parquet_with_audio_and_other_features(tmp_path: Path) -> None:
    content = io.BytesIO()
    soundfile.write(content, sound(1.0), RATE, format="WAV")
    features = datasets.Features(
        audio=datasets.Audio(), sentence=datasets.Value("string"), votes=datasets.Value("int16")
    )
    audio = {"bytes": content.getvalue(), "path": "a.wav"}
    table = pa.Table.from_pylist(
        [
            {"audio": audio, "sentence": "a fox", "votes": 3},
            {"audio": audio, "sentence": "a dog", "votes": 4},
        ],
        schema=features.arrow_schema,
    )
    (tmp_path / "hub").mkdir()
    pq.write_table(table, tmp_path / "hub" / "train.parquet")
    rows, schema = labelled(tmp_path, tmp_path / "hub")
    assert [row["sentence"] for row in rows] == ["a fox", "a dog"]
    assert str(schema.field("votes").type) == "int16"
    assert rows[0]["audio"]["bytes"] == content.getvalue()
    again = SpeechData(str(tmp_path / "set"), split="train")
    assert again.columns.text == "text"
    found = again[1].audio
    assert found is not None
    assert len(decode_audio(found, "second")) == RATE


def test_a_row_without_given_text_is_labelled(tmp_path: Path) -> None:
    source = write_list(tmp_path / "speech", [{}, {"text": None}, {"text": ""}])
    rows, _ = labelled(tmp_path, source)
    assert [row["text"] for row in rows] == ["16000 samples"] * 3
    assert rows[0]["wer"] == 2.0
    assert rows[1]["wer"] is None
    assert rows[2]["wer"] is None


def test_sources_reach_other_processes(tmp_path: Path) -> None:
    """A worker gets the opened source, pickled."""
    listed = write_list(tmp_path / "list", [{}, {"speaker": "b"}])
    label_all(worker(tmp_path / "set", listed, Scripted(lambda n: f"{n} samples")))
    shard = tmp_path / "shards" / "0.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as tar:
        tar.add(listed / "a.wav", "a.wav")
        (tmp_path / "a.txt").write_text("a", encoding="utf-8")
        tar.add(tmp_path / "a.txt", "a.txt")
    for source, text in ((listed, "a"), (tmp_path / "set", "16000 samples"), (shard.parent, "a")):
        column = "txt" if source == shard.parent else "text"
        data = SpeechData(str(source), split="train", text_column=column)
        there = pickle.loads(pickle.dumps(data))
        assert len(there) == len(data)
        item = there[0]
        assert (item.text, item.fault) == (text, "")
        assert len(decode_audio(item.audio, "first")) == RATE
        assert item.where == f"{source}, row 1"
