"""Workers without Ray: what they write is complete, resumable, and read by `prepare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import soundfile

from baldwhisper_convert.data.prepare import prepare
from baldwhisper_convert.data.prepare_settings import PrepareSettings
from baldwhisper_convert.data.utterances import read_utterances
from baldwhisper_convert.labelling.shards import LabelledSet
from baldwhisper_mlx.audio.speech_dataset import SpeechData
from tests.support.tiny_labels import Scripted, label_all, worker
from tests.support.tiny_speech import sound, tiny_speech, tiny_teacher

RATE = 16_000


def by_length(samples: int) -> str:
    """A text that tells the clip."""
    return f"clip of {samples} samples"


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    return tiny_speech(tmp_path / "speech", 10)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / "train").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_row_is_labelled_once(tmp_path: Path, speech: Path) -> None:
    model = Scripted(by_length)
    summary = label_all(worker(tmp_path / "set", speech, model, batch_size=3))
    rows = rows_of(tmp_path / "set")
    assert [row["source_row"] for row in rows] == list(range(1, 11))
    assert (summary["rows"], summary["kept"], summary["dropped"]) == (10, 10, {})
    given = lines(speech / "metadata.jsonl")
    for row, before in zip(rows, given, strict=True):
        path = speech / before["file_name"]
        assert row["text"] == by_length(soundfile.info(path).frames)
        assert row["audio"] == {"bytes": path.read_bytes(), "path": path.name}
        assert row["source_text"] == before["text"]
        assert (row["file_name"], row["speaker"]) == (before["file_name"], before["speaker"])
        assert row["wer"] > 0
        assert row["avg_logprob"] == -0.5
    assert summary["seconds"] == pytest.approx(sum(row["duration"] for row in rows), rel=1e-6)
    # Batches are of clips of similar length, and none has more than 3 of the 4 of a shard.
    assert sorted(map(len, model.batches)) == [1, 1, 2, 3, 3]
    assert all(batch == sorted(batch) for batch in model.batches)


def test_prepare_reads_the_labels(tmp_path: Path, speech: Path) -> None:
    label_all(worker(tmp_path / "set", speech, Scripted(by_length)))
    utterances = list(read_utterances(str(tmp_path / "set")))
    assert [one.text for one in utterances] == [row["text"] for row in rows_of(tmp_path / "set")]
    assert [one.group for one in utterances] == [f"{i // 4}" for i in range(10)]
    prepared = prepare(tiny_teacher(), utterances, PrepareSettings(), tmp_path / "prepared")
    words = {word for window in prepared.windows for word in window.text.split()}
    assert {str(soundfile.info(file).frames) for file in speech.glob("*.wav")} <= words


def test_an_unfinished_set_is_no_data(tmp_path: Path, speech: Path) -> None:
    unfinished = worker(tmp_path / "set", speech, Scripted(by_length))
    unfinished.label_shard(0)
    with pytest.raises(FileNotFoundError, match="no parquet files below it"):
        SpeechData(str(tmp_path / "set"), split="train")
    with pytest.raises(ValueError, match=r"000001\.parquet: not a whole shard"):
        unfinished.set.finish()
    assert not unfinished.set.is_finished


def test_what_is_done_is_not_done_again(tmp_path: Path, speech: Path) -> None:
    first = worker(tmp_path / "set", speech, Scripted(by_length))
    first.label_shard(1)
    left = tmp_path / "set" / ".unfinished" / ".baldwhisper-1-aa.tmp"
    left.write_bytes(b"half a file")
    model = Scripted(by_length)
    second = worker(tmp_path / "set", speech, model)
    assert second.set.missing() == [0, 2]
    assert not left.exists()
    label_all(second)
    assert sum(map(len, model.batches)) == 6
    assert [row["source_row"] for row in rows_of(tmp_path / "set")] == list(range(1, 11))


def test_a_shard_that_is_made_twice_replaces_itself(tmp_path: Path, speech: Path) -> None:
    twice = worker(tmp_path / "set", speech, Scripted(by_length))
    twice.label_shard(0)
    assert label_all(twice)["rows"] == 10
    twice.label_shard(0)
    assert twice.set.finish()["rows"] == 10
    assert len(rows_of(tmp_path / "set")) == 10


def test_a_damaged_shard_is_named(tmp_path: Path, speech: Path) -> None:
    one = worker(tmp_path / "set", speech, Scripted(by_length))
    for shard in one.set.missing():
        one.label_shard(shard)
    path = tmp_path / "set" / ".unfinished" / "000001.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"000001\.parquet: not a whole shard.*remove it"):
        one.set.finish()
    assert not one.set.is_finished


def test_dropped_rows_are_listed_with_reasons(tmp_path: Path, speech: Path) -> None:
    def write(samples: int) -> str:
        return "" if samples < 8000 else "so on " * 40 if samples > 28000 else by_length(samples)

    second = Scripted(lambda samples: by_length(samples if samples < 20000 else 0))
    (speech / "003.wav").write_bytes(b"no audio")
    soundfile.write(speech / "004.wav", sound(31.0), RATE)
    limits = {"max_disagreement": 0.1, "skip_bad": True}
    one = worker(tmp_path / "set", speech, Scripted(write), second, **limits)
    summary = label_all(one)
    dropped = lines(tmp_path / "set" / "dropped.jsonl")
    kept = rows_of(tmp_path / "set")
    numbers = [row["row"] for row in dropped] + [row["source_row"] for row in kept]
    assert sorted(numbers) == list(range(1, 11))
    assert summary["dropped"]["unusable row"] == 2
    reasons = {row["row"]: row["reason"] for row in dropped}
    for number in range(1, 11):
        if number in (4, 5):
            continue
        samples = soundfile.info(speech / f"{number - 1:03}.wav").frames
        expected = (
            "no speech found" if samples < 8000
            else "compression ratio above 2.4" if samples > 28000
            else "disagreement of the models above 0.1" if samples >= 20000
            else None
        )  # fmt: skip
        assert reasons.get(number) == expected
    assert "31.00 s long" in next(row["error"] for row in dropped if row["row"] == 5)
    assert all(row["second_text"] == row["text"] for row in kept)
    assert kept


def test_a_bad_row_is_an_error_unless_skipped(tmp_path: Path, speech: Path) -> None:
    (speech / "002.wav").unlink()
    one = worker(tmp_path / "set", speech, Scripted(by_length))
    with pytest.raises(ValueError, match=r"002\.wav: no such file; --skip-bad skips such rows"):
        one.label_shard(0)
    assert one.set.missing() == [0, 1, 2]


def test_nothing_kept_is_an_error(tmp_path: Path, speech: Path) -> None:
    one = worker(tmp_path / "set", speech, Scripted(by_length), max_wer=0.01)
    with pytest.raises(ValueError, match=r"no label was kept; dropped\.jsonl there says why"):
        label_all(one)
    assert len(lines(tmp_path / "set" / "dropped.jsonl")) == 10
    assert not one.set.is_finished


def test_a_shard_may_keep_nothing(tmp_path: Path, speech: Path) -> None:
    gone = {soundfile.info(speech / f"{i:03}.wav").frames for i in range(4)}
    one = worker(tmp_path / "set", speech, Scripted(lambda n: "" if n in gone else by_length(n)))
    assert label_all(one)["kept"] == 6
    assert len(list(read_utterances(str(tmp_path / "set")))) == 6


def test_without_given_text_there_is_no_rate(tmp_path: Path, speech: Path) -> None:
    label_all(worker(tmp_path / "set", speech, Scripted(by_length), text_column=None))
    assert {row["wer"] for row in rows_of(tmp_path / "set")} == {None}


def test_other_settings_need_another_folder(tmp_path: Path) -> None:
    made = LabelledSet(tmp_path / "set", 1, 1)
    made.begin({"language": "en"})
    made.begin({"language": "fr"})  # nothing is labelled yet
    (tmp_path / "set" / ".unfinished" / "000000.parquet").write_bytes(b"")
    made.begin({"language": "fr"})
    with pytest.raises(FileExistsError, match="language was fr, and is en"):
        made.begin({"language": "en"})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(FileExistsError, match="holds something else"):
        LabelledSet(tmp_path / "other", 1, 1).begin({})


@pytest.mark.parametrize(("rows", "size"), [(1, 16), (600, 18), (100_000, 256)])
def test_small_sources_have_small_shards(tmp_path: Path, rows: int, size: int) -> None:
    found = LabelledSet(tmp_path, rows)
    assert found.shard_rows == size
    numbers = [number for shard in range(len(found)) for number in found.rows_of(shard)]
    assert numbers == list(range(rows))
