"""Case and punctuation of a model's output on the words of the transcript."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baldwhisper_convert.data.utterances import read_utterances
from tests.support.tiny_speech import tiny_speech

# scripts are run by path
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))

import restore_text

WORDS = st.lists(
    st.sampled_from(("a", "cat", "sat", "on", "the", "mat", "i", "i'm")), min_size=1, max_size=8
)
WRITTEN = st.lists(
    st.sampled_from(("A", "cat,", "sat.", "on", "the", "Mat!", "I,", "I'm", "-", "hat?", "Cats")),
    max_size=8,
)


@pytest.mark.parametrize(
    ("transcript", "output", "expected"),
    [
        ("YES IT IS", "Yes, it is.", "Yes, it is."),
        ("DOCTOR SMITH PAID TEN DOLLARS", "Dr. Smith paid $10.", "Dr. Smith paid $10."),
        ("ANY ONE KNOWS", "Anyone knows!", "Anyone knows!"),
        ("MARIA LEFT US", "Marie left us.", "Maria left us."),
        ("THE ROAD IS LONG", "The row is long.", "The road is long."),
        ("IS IT MOSTLY PHONES", "Is it must leaf boss?", "Is it mostly phones?"),
        ("HE SAW IT", "He saw the it.", "He saw it."),
        ("HE SAW IT", "He saw it too.", "He saw it."),
        ("HE SAW IT THERE", "He saw it", "He saw it there"),
        ("HE CAME AND I LEFT", "he came. And I left", "He came. And I left"),
        ("AM I WHO I'M", "", "Am I who I'm."),
    ],
)
def test_words_are_right_and_written_as_the_model_writes(
    transcript: str, output: str, expected: str
) -> None:
    assert restore_text.restore(transcript, output) == expected


@given(WORDS, WRITTEN)
def test_the_words_stay(words: list[str], written: list[str]) -> None:
    """Every word of the transcript, in order and nothing else, up to case and punctuation."""
    restored = restore_text.restore(" ".join(words).upper(), " ".join(written))
    assert re.sub(r"[^a-z' ]", "", restored.lower()).split() == words
    assert restored[0].isupper()
    assert not re.search(r"\bi\b", restored)


def write_hypotheses(path: Path, texts: dict[str, str]) -> Path:
    rows = [{"run": "x", "model": "y"}, *({"file": f, "text": t} for f, t in texts.items())]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_list_can_be_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_speech(tmp_path / "speech", 3)
    before = list(read_utterances(str(folder)))
    outputs = write_hypotheses(tmp_path / "h.jsonl", {"000.wav": "The, quick brown!"})
    target = tmp_path / "lists" / "restored.jsonl"
    target.parent.mkdir()
    arguments = ["restore_text.py", str(folder), str(outputs), str(target)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", arguments)
        assert restore_text.main() == 0
    assert "3 recordings, 2 without" in capsys.readouterr().out
    after = list(read_utterances(str(target)))
    assert [u.text for u in after] == ["The, quick brown!", "Quick brown fox.", "Brown fox jumps."]
    assert [u.group for u in after] == [u.group for u in before]
    assert [len(u.samples()) for u in after] == [len(u.samples()) for u in before]


def test_outputs_of_other_recordings_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_speech(tmp_path / "speech", 2)
    outputs = write_hypotheses(tmp_path / "h.jsonl", {"other.wav": "A cat."})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["restore_text.py", str(folder), str(outputs), "x.jsonl"])
        assert restore_text.main() == 1
    assert "no output for any recording" in capsys.readouterr().err


def test_recordings_of_one_name_in_two_folders_keep_their_own_text(tmp_path: Path) -> None:
    texts = {}
    for speaker, text in (("a", "A cat sat."), ("b", "A Cat sat!")):
        folder = tiny_speech(tmp_path / "speech" / speaker, 1)
        row = json.loads((folder / "metadata.jsonl").read_text())
        texts[f"{speaker}/{row['file_name']}"] = text
    rows = [{"file_name": name, "text": "A CAT SAT"} for name in texts]
    listed = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "speech" / "metadata.jsonl").write_text(listed)
    outputs = write_hypotheses(tmp_path / "h.jsonl", texts)
    target = tmp_path / "restored.jsonl"
    assert restore_text.restore_list(str(tmp_path / "speech"), outputs, target) == (2, 2)
    assert [u.text for u in read_utterances(str(target))] == list(texts.values())


def test_outputs_of_two_models_are_an_error(tmp_path: Path) -> None:
    rows = [{"run": run, "file": "000.wav", "text": "A cat."} for run in "xy"]
    path = tmp_path / "h.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tiny_speech(tmp_path / "speech", 1)
    with pytest.raises(ValueError, match="several models"):
        restore_text.restore_list(str(folder), path, tmp_path / "restored.jsonl")
