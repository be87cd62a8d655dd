"""Recordings to calibrate on: which of a source are taken, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from baldwhisper_convert.data.recordings import MOST_RECORDINGS, read_recordings
from baldwhisper_mlx.config import SAMPLE_RATE


def write(path: Path, seconds: float) -> Path:
    """A constant, so that only the length tells recordings apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(seconds * SAMPLE_RATE), 0.1), SAMPLE_RATE)
    return path


def lengths(source: Path, most: int = MOST_RECORDINGS) -> list[float]:
    """Seconds of what is read, which must be samples as the runtime takes them."""
    recordings = read_recordings(source, most)
    assert all(samples.dtype == np.float32 and samples.ndim == 1 for samples in recordings)
    return [len(samples) / SAMPLE_RATE for samples in recordings]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve recordings without metadata: 0.01 s, 0.02 s, ... in the order of their paths."""
    for i in range(12):
        write(tmp_path / "clips" / f"{'ab'[i // 6]}" / f"{i:02}.wav", (i + 1) / 100)
    return tmp_path / "clips"


def test_a_folder_of_audio_needs_no_metadata(folder: Path) -> None:
    assert lengths(folder, 99) == [i / 100 for i in range(1, 13)]


def test_recordings_are_spread_evenly(folder: Path) -> None:
    assert lengths(folder) == [0.01, 0.03, 0.05, 0.07, 0.09, 0.11]
    assert lengths(folder, 1) == [0.01]
    assert lengths(folder, 5) == [0.01, 0.03, 0.05, 0.08, 0.1]


def test_hidden_files_and_other_files_are_no_recordings(folder: Path) -> None:
    (folder / "notes.txt").write_text("text")
    (folder / ".hidden").mkdir()
    write(folder / ".hidden" / "00.wav", 9)
    assert len(lengths(folder, 99)) == 12


@pytest.mark.parametrize("column", ["file_name", "path", "audio_filepath", "audio"])
def test_a_list_is_read_without_text(folder: Path, column: str) -> None:
    rows = [json.dumps({column: f"b/{i:02}.wav"}) for i in (11, 6)]
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    assert lengths(folder) == lengths(folder / "metadata.jsonl") == [0.12, 0.07]


def test_a_csv_and_a_split(folder: Path) -> None:
    (folder / "some.csv").write_text("path\na/00.wav\na/01.wav\n")
    assert lengths(folder / "some.csv") == [0.01, 0.02]
    split = write(folder / "train" / "x.wav", 0.5).parent
    (split / "metadata.jsonl").write_text('{"file_name": "x.wav", "text": "a"}')
    assert lengths(folder) == [0.5]


def test_a_single_file(folder: Path) -> None:
    assert lengths(folder / "a" / "02.wav") == [0.03]


def test_parquet_files(tmp_path: Path) -> None:
    from datasets import Audio, Dataset

    content = write(tmp_path / "a.wav", 0.2).read_bytes()
    rows = {"audio": [{"bytes": content, "path": None}] * 3}
    data = Dataset.from_dict(rows).cast_column("audio", Audio(decode=False))
    (tmp_path / "data").mkdir()
    data.to_parquet(tmp_path / "data" / "train-00000.parquet")
    assert lengths(tmp_path / "data", 2) == [0.2, 0.2]


class TestRefused:
    def test_nothing_there(self, tmp_path: Path) -> None:
        """Never looked up on the Hub: a data set of gigabytes would be downloaded for six clips."""
        for name in ("gone", "owner/speech"):
            with pytest.raises(FileNotFoundError, match=f"{name}: no such file or folder"):
                read_recordings(name)
        with pytest.raises(FileNotFoundError, match="no parquet files below it, and no audio"):
            read_recordings(tmp_path)

    def test_an_empty_list(self, tmp_path: Path) -> None:
        (tmp_path / "metadata.jsonl").touch()
        with pytest.raises(FileNotFoundError, match="lists no recordings"):
            read_recordings(tmp_path)

    def test_a_row_without_audio(self, tmp_path: Path) -> None:
        (tmp_path / "metadata.jsonl").write_text('{"text": "a"}')
        with pytest.raises(ValueError, match=r"\[0\]: without audio; expected a column file_name"):
            read_recordings(tmp_path)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        (tmp_path / "metadata.jsonl").write_text('{"file_name": "gone.wav"}')
        with pytest.raises(FileNotFoundError, match=r"gone\.wav: no such file"):
            read_recordings(tmp_path)

    def test_what_is_no_audio(self, folder: Path) -> None:
        (folder / "a" / "00.wav").write_text("text")
        with pytest.raises(ValueError, match=r"00\.wav"):
            read_recordings(folder)
