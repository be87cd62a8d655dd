"""Clips that choose and clips that are reported: apart, complete, and the same everywhere."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from baldwhisper_convert.data.utterances import BadRows, read_utterances
from tests.support.tiny_speech import tiny_speech

# scripts are run by path
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))

import split_speech


def names(path: Path) -> list[str]:
    """The files of a list, as the converter reads it."""
    utterances = read_utterances(str(path), bad=BadRows())
    return [Path(utterance.name).name for utterance in utterances]


def test_every_clip_is_in_one_part(tmp_path: Path) -> None:
    speech = tiny_speech(tmp_path / "speech", 12)
    counts = split_speech.split(str(speech), tmp_path / "lists")
    parts = {part: names(tmp_path / f"lists/{part}.jsonl") for part in split_speech.PARTS}
    assert counts == {part: len(clips) for part, clips in parts.items()}
    every = sorted(name for clips in parts.values() for name in clips)
    assert every == sorted(path.name for path in speech.glob("*.wav"))
    for part, clips in parts.items():
        assert clips
        assert {split_speech.part_of(name) for name in clips} == {part}


def test_other_columns_stay_and_the_folder_does_not_matter(tmp_path: Path) -> None:
    speech = tiny_speech(tmp_path / "speech", 12)
    split_speech.split(str(speech), tmp_path / "lists")
    moved = tmp_path / "elsewhere"
    shutil.move(speech, moved)
    split_speech.split(str(moved), tmp_path / "again")
    before = json.loads((tmp_path / "lists/report.jsonl").read_text("utf-8").splitlines()[0])
    after = json.loads((tmp_path / "again/report.jsonl").read_text("utf-8").splitlines()[0])
    assert before.pop("file_name") == str(speech / Path(after["file_name"]).name)
    assert after.pop("file_name").startswith(str(moved))
    assert before == after
    assert before["text"]


def test_what_cannot_be_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    speech = tiny_speech(tmp_path / "speech", 1)
    (clip,) = speech.glob("*.wav")
    (tmp_path / "twice").mkdir()
    shutil.copy(clip, tmp_path / "twice" / clip.name)
    rows = [
        {"file_name": str(path / clip.name), "text": "a"} for path in (speech, tmp_path / "twice")
    ]
    (tmp_path / "same.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    for source, message in [
        (speech, "1 clips are too few"),
        (tmp_path / "same.jsonl", f"two files are called {clip.name}"),
        (tmp_path / "nothing", "nothing"),
    ]:
        monkeypatch.setattr(sys, "argv", ["split_speech.py", str(source), str(tmp_path / "lists")])
        assert split_speech.main() == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "lists").exists()
