"""Clips that choose and clips that are reported: apart, complete, and the same everywhere."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    parts = {part: names(tmp_path / f"lists/{part}.jsonl") for part in split_speech.HALVES}
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


def test_parts_of_other_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speech = tiny_speech(tmp_path / "speech", 40, seconds=(0.1, 0.2))
    lists = tmp_path / "lists"
    shares = ["train=8", "select=1", "report=1"]
    monkeypatch.setattr(sys, "argv", ["split_speech.py", str(speech), str(lists), *shares])
    assert split_speech.main() == 0
    parts = [names(lists / f"{part}.jsonl") for part in ("train", "select", "report")]
    assert sorted(name for part in parts for name in part) == sorted(
        path.name for path in speech.glob("*.wav")
    )
    assert len(parts[0]) > len(parts[1]) + len(parts[2])


@given(names=st.lists(st.text(min_size=1), min_size=1), share=st.integers(1, 9))
def test_the_part_depends_on_name_and_shares_alone(names: list[str], share: int) -> None:
    """A part's clips are those whose digest falls into its share of the remainders."""
    shares = {"train": share, "dev": 1}
    for name in names:
        number = int(hashlib.sha256(name.encode()).hexdigest(), 16) % (share + 1)
        assert split_speech.part_of(name, shares) == ("train" if number < share else "dev")


@pytest.mark.parametrize(
    "parts", [["train=8"], ["a=1", "a=2"], ["a", "b"], ["a=0", "b=1"], ["a/b=1", "c=1"]]
)
def test_bad_shares(parts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"expected NAME=SHARE|two different parts"):
        split_speech.parse_shares(parts)


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
