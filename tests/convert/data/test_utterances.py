"""Labelled speech in every form it comes in, without torchcodec and without the network."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from baldwhisper_convert.data.turns import Turn
from baldwhisper_convert.data.utterances import BadRows, Utterance, read_utterances
from tests.support.tiny_speech import sound, tiny_speech

# Words that table readers like to take for missing values or numbers.
TEXTS = ["null", "7", "None", "NA, he said", "naïve", '"quoted"']


@pytest.fixture(autouse=True)
def no_torchcodec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec", None)


def rows(**columns: Any) -> list[dict[str, Any]]:
    return [{"file_name": f"{i}.wav", "text": text, **columns} for i, text in enumerate(TEXTS)]


def write_list(path: Path, table: list[dict[str, Any]], encoding: str = "utf-8") -> Path:
    """Writes rows in the format that the file's name asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding=encoding, newline="") as file:
        if path.suffix in (".csv", ".tsv"):
            delimiter = "," if path.suffix == ".csv" else "\t"
            # As in Common Voice, a TSV has no quoting.
            plain: dict[str, Any] = {"quoting": csv.QUOTE_NONE, "quotechar": None}
            quoting = plain if path.suffix == ".tsv" else {}
            writer = csv.DictWriter(file, list(table[0]), delimiter=delimiter, **quoting)
            writer.writeheader()
            writer.writerows(table)
        elif path.suffix == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in table)
        else:
            json.dump(table, file)
    return path


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl"])
def test_lists(tmp_path: Path, suffix: str) -> None:
    path = write_list(tmp_path / f"list.{suffix}", rows(speaker="a"))
    found = list(read_utterances(str(path)))
    assert [u.text for u in found] == TEXTS
    assert [u.audio for u in found] == [str(tmp_path / f"{i}.wav") for i in range(len(TEXTS))]
    assert {u.group for u in found} == {"a"}
    assert found[0].name == found[0].audio


def test_turns_of_a_list(tmp_path: Path) -> None:
    """Of a column of that name which holds something else, none are taken."""
    turns = [{"start": 0, "end": 0.5, "language": "fr", "text": "oui"}]
    path = write_list(tmp_path / "list.jsonl", rows(turns=turns))
    found = list(read_utterances(str(path)))
    assert [u.turns for u in found] == [(Turn(0.0, 0.5, "fr", "oui"),)] * len(TEXTS)
    path = write_list(tmp_path / "other.jsonl", rows(turns=3))
    assert {u.turns for u in read_utterances(str(path))} == {()}


def test_json_lines_in_a_json_file_and_a_byte_order_mark(tmp_path: Path) -> None:
    lines = write_list(tmp_path / "a.jsonl", rows()).rename(tmp_path / "manifest.json")
    assert [u.text for u in read_utterances(str(lines))] == TEXTS
    excel = write_list(tmp_path / "excel.csv", rows(), encoding="utf-8-sig")
    assert next(read_utterances(str(excel))).audio == str(tmp_path / "0.wav")


@pytest.mark.parametrize("column", ["audio", "file_name", "path", "audio_filepath"])
def test_names_of_the_path_column(tmp_path: Path, column: str) -> None:
    table = [{column: "x/a.wav", "text": "one"}, {column: "/else/b.wav", "text": "two"}]
    path = write_list(tmp_path / "list.jsonl", table)
    audio = [u.audio for u in read_utterances(str(path))]
    assert audio == [str(tmp_path / "x/a.wav"), "/else/b.wav"]


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    table = [{"clip": "a.wav", "sentence": "  one "}]
    path = write_list(tmp_path / "list.csv", table)
    found = list(read_utterances(str(path), text_column="sentence", audio_column="clip"))
    assert found == [Utterance(str(tmp_path / "a.wav"), str(tmp_path / "a.wav"), "one")]


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_audiofolder(tmp_path: Path, name: str) -> None:
    write_list(tmp_path / name, rows())
    found = list(read_utterances(str(tmp_path), split="any"))
    assert [u.text for u in found] == TEXTS
    assert found[2].audio == str(tmp_path / "2.wav")


def test_audiofolder_with_splits(tmp_path: Path) -> None:
    tiny_speech(tmp_path / "train", 3)
    tiny_speech(tmp_path / "dev", 2)
    train, dev = (list(read_utterances(str(tmp_path), split=s)) for s in ("train", "dev"))
    assert (len(train), len(dev)) == (3, 2)
    assert dev[0].audio == str(tmp_path / "dev" / "000.wav")
    assert dev[0].seconds() == pytest.approx(0.4)
    with pytest.raises(FileNotFoundError, match=r"metadata\.jsonl.*'test'"):
        list(read_utterances(str(tmp_path), split="test"))


@pytest.mark.parametrize(
    ("columns", "group"),
    [
        ({}, ""),
        ({"speaker": 7}, "7"),
        ({"speaker_id": 3, "chapter": "x"}, "x/3"),
        ({"run": 1, "chapter": 2, "speaker": 3, "client_id": 4}, "1/2/3/4"),
        ({"speaker": None, "chapter": 5, "gender": "f"}, "5"),
        ({"speaker": 0}, "0"),
    ],
)
def test_groups(tmp_path: Path, columns: dict[str, Any], group: str) -> None:
    path = write_list(tmp_path / "list.jsonl", rows(**columns))
    assert {u.group for u in read_utterances(str(path))} == {group}


@pytest.fixture
def parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a hub dataset is made of: audio as bytes in parquet files, with two splits."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    speech = tiny_speech(tmp_path / "speech", 3)
    content = [{"bytes": (speech / f"{i:03}.wav").read_bytes(), "path": None} for i in range(3)]
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "test"):
        columns = {
            "audio": content,
            "text": [split, "two", "three"],
            "speaker_id": [1, 1, 2],
        }
        data = datasets.Dataset.from_dict(columns)
        # One split as an Audio feature, as most of the hub's datasets, and one as plain bytes.
        if split == "train":
            data = data.cast_column("audio", datasets.Audio())
        data.to_parquet(folder / f"{split}-00000.parquet")
    return folder


@pytest.mark.parametrize("streaming", [False, True])
def test_hub_dataset(parquet: Path, streaming: bool) -> None:
    found = list(read_utterances(str(parquet), streaming=streaming))
    assert [(u.text, u.group) for u in found] == [("train", "1"), ("two", "1"), ("three", "2")]
    assert found[1].name == f"{parquet}[1]"
    assert all(isinstance(u.audio, bytes) for u in found)
    assert found[0].seconds() == pytest.approx(0.4)
    np.testing.assert_allclose(found[0].samples(), sound(0.4, 0), atol=1e-4)
    if not streaming:
        assert next(iter(read_utterances(str(parquet), split="test"))).text == "test"


def test_hub_ids_with_a_config(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    called: list[Any] = []
    # An audio file that is there is used by its path, and not read.
    there = parquet.parent / "speech" / "000.wav"
    audio = [{"bytes": None, "path": str(there)}, {"bytes": b"x", "path": "gone.wav"}]
    data = datasets.Dataset.from_dict({"sound": audio, "text": ["one", "two"]})

    def load(*args: Any, **options: Any) -> Any:
        called.append((args, options))
        return data

    monkeypatch.setattr(datasets, "load_dataset", load)
    found = list(read_utterances("owner/name:clean", split="dev", audio_column="sound"))
    assert called == [(("owner/name", "clean"), {"split": "dev", "streaming": False})]
    assert [u.audio for u in found] == [str(there), b"x"]
    assert [u.name for u in found] == [str(there), "owner/name:clean[1]"]


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/at/all", "~/no-such-folder", "no.csv"])
def test_nothing_there(source: str) -> None:
    with pytest.raises(FileNotFoundError, match="no such"):
        list(read_utterances(source))


def test_a_folder_of_bare_audio_is_refused(tmp_path: Path) -> None:
    tiny_speech(tmp_path, 1)
    (tmp_path / "metadata.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"no metadata\.jsonl or metadata\.csv"):
        list(read_utterances(str(tmp_path)))


def test_missing_columns_are_named(tmp_path: Path) -> None:
    path = write_list(tmp_path / "list.csv", rows(speaker="a"))
    with pytest.raises(ValueError, match="no column 'sentence'; it has file_name, text, speaker"):
        list(read_utterances(str(path), text_column="sentence"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", b"[{"),
        ("a.jsonl", b"[" * 100_000),
        ("a.csv", b'file_name,text\na.wav,"one\nb.wav,two\n'),
        ("a.csv", b"file_name,text,text\na.wav,one,two\n"),
        ("a.csv", "file_name,text\na.wav,one\n".encode("utf-16")),
    ],
)
def test_damaged_lists_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: cannot be read as a list"):
        list(read_utterances(str(tmp_path / name)))


BAD_ROWS = [
    {"file_name": "a.wav", "text": "good"},
    {"file_name": "b.wav", "text": "  "},
    {"file_name": "c.wav", "text": None},
    {"file_name": None, "text": "no audio"},
]


def test_bad_rows_are_an_error(tmp_path: Path) -> None:
    for bad, message in [(BAD_ROWS[1], r"b\.wav: without text"), (BAD_ROWS[3], "without audio")]:
        path = write_list(tmp_path / "list.jsonl", [BAD_ROWS[0], bad])
        with pytest.raises(ValueError, match=f"{message}; --skip-bad"):
            list(read_utterances(str(path)))


def test_bad_rows_are_counted_if_allowed(tmp_path: Path) -> None:
    path = write_list(tmp_path / "list.jsonl", BAD_ROWS)
    bad = BadRows(allowed=True)
    assert str(bad) == "none"
    assert [u.text for u in read_utterances(str(path), bad=bad)] == ["good"]
    assert bad.counts == {"without text": 2, "without audio": 1}
    assert str(bad) == (
        f"2 without text (first: {tmp_path / 'b.wav'}); 1 without audio (first: {path}, row 4)"
    )


def test_length_and_samples_of_an_utterance(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.stack([sound(0.5), sound(0.5)], axis=1), 16_000)
    by_path, by_content = (Utterance("a", audio, "") for audio in (str(path), path.read_bytes()))
    assert by_path.seconds() == by_content.seconds() == 0.5
    np.testing.assert_array_equal(by_path.samples(), by_content.samples())
    assert by_path.samples().shape == (8000,)


def test_length_of_a_stream_whose_header_does_not_say(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, sound(0.5), 16_000)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples
    content[22:26] = bytes(4)
    assert Utterance("a", bytes(content), "").seconds() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("content", [b"", b"no audio at all"])
def test_bad_audio_names_the_utterance(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match=r"set\[3\]"):
        Utterance("set[3]", content, "").seconds()
    with pytest.raises(ValueError, match=r"set\[3\]"):
        Utterance("set[3]", content, "").samples()
    (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.wav"):
        Utterance("x", str(tmp_path / "bad.wav"), "").seconds()
    with pytest.raises(FileNotFoundError, match=r"gone\.wav"):
        Utterance("x", str(tmp_path / "gone.wav"), "").seconds()


def test_speech_without_transcripts(tmp_path: Path) -> None:
    path = write_list(tmp_path / "list.csv", [{"path": "a.wav", "speaker": "x"}])
    assert [(u.text, u.group) for u in read_utterances(str(path), text_column=None)] == [("", "x")]
