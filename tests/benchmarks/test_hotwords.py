"""The benchmark of hotwords: which words are rare, which lists they get, what is counted."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from baldwhisper_mlx.audio.buffer import Samples
from benchmarks.accuracy import hotwords
from benchmarks.accuracy.hotwords import Clip, frequencies, lists_of_names, measure, rare_words
from tests.runtime.conftest import RATE, tiny_config, tone, write_model


def test_rare_words(tmp_path: Path) -> None:
    text = "The cat sat.\nA cat named Kokoro!\nkokoro\n"
    path = tmp_path / "sentences.txt.gz"
    path.write_bytes(gzip.compress(text.encode()))
    (tmp_path / "sentences.txt").write_text(text, encoding="utf-8")
    counts = frequencies(path)
    assert counts == frequencies(tmp_path / "sentences.txt")
    assert (counts["cat"], counts["kokoro"], counts["the"]) == (2, 2, 1)
    words = "the kokoro named bloom bloom sat 1906"
    assert rare_words(words, counts, 1) == ("named", "bloom")
    assert rare_words(words, counts, 0) == ("bloom",)


def test_lists_have_the_targets_and_no_other_word_of_the_clip() -> None:
    targets = [["aaaa", "bbbb"], ["cccc"], ["dddd", "eeee", "ffff", "gggg"]]
    references = ["aaaa xx bbbb", "cccc dddd", "dddd eeee ffff gggg aaaa"]
    lists = list(lists_of_names(targets, references, 3))
    for own, reference, (names, others) in zip(targets, references, lists, strict=True):
        assert len(names) == 3
        assert len(others) == min(3, 7 - len(set(reference.split()) - {"xx"}))
        assert set(own[:3]) <= set(names)
        assert not set(names) - set(own) & set(reference.split())
        assert not set(others) & set(reference.split())


def test_what_is_counted() -> None:
    """A model that writes every hotword, and else a word of its own."""
    clips = [
        Clip("one", np.zeros(1, np.float32), "we met kokoro", ("kokoro",)),
        Clip("two", np.zeros(2, np.float32), "we met bloom there", ("bloom", "there")),
        Clip("three", np.zeros(3, np.float32), "we met nobody", ("nobody",)),
    ]
    written = {1: "we met cocoa", 2: "we met blue there", 3: "We met nobody."}

    def transcribe(samples: Samples, names: str | None) -> str:
        text = written[len(samples)]
        return text if names is None else f"{text} {names}"

    found = measure(transcribe, clips, most=5, size=1)
    assert found["clips"] == 2  # nothing is missed in the third
    plain, named, others = found["rows"].values()
    assert (plain["targets"], plain["targets_written"]) == (2, 0)
    assert (plain["rare_words"], plain["rare_words_written"]) == (3, 1)
    assert (plain["wer"], plain["insertions"]) == (pytest.approx(100 * 2 / 7, abs=0.01), 0)
    assert (named["targets_written"], named["rare_words_written"]) == (2, 3)
    assert (named["distractors"], named["distractors_written"]) == (0, [])
    assert (others["targets_written"], others["distractors"]) == (0, 2)
    assert others["distractors_written"] == ["bloom", "kokoro"]
    assert others["insertions"] == 2
    with pytest.raises(ValueError, match="misses no rare word"):
        measure(transcribe, clips[2:], most=5, size=1)


def test_the_command(tmp_path: Path) -> None:
    model_folder = write_model(tmp_path / "tiny", tiny_config())
    data, output = tmp_path / "speech", tmp_path / "result.json"
    data.mkdir()
    rows = []
    for number in range(2):
        soundfile.write(data / f"{number}.wav", tone(1.0), RATE)
        rows.append(
            json.dumps({"file_name": f"{number}.wav", "text": f"KOKORO AND BLOOM{'S' * number}"})
        )
    (data / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "text.txt").write_text("and\n", encoding="utf-8")
    arguments = ["--model", f"tiny={model_folder}", "--data", str(data), "--names", "2"]
    arguments += ["--text", str(tmp_path / "text.txt"), "--output", str(output)]
    result = CliRunner().invoke(hotwords.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads(output.read_text(encoding="utf-8"))
    assert found["clips_with_rare_words"] == 2
    rows = found["models"]["tiny"]["rows"]
    assert list(rows) == ["without", "hotwords", "distractors only"]
    assert found["models"]["tiny"]["lists"][0]["list"] == ["bloom", "kokoro"]
    assert Counter(key for row in rows.values() for key in row)["wer"] == 3
