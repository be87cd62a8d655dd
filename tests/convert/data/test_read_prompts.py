"""scripts/read_prompts.py: which prompts are read, with which texts."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

# scripts are run by path, so they import their helpers as top-level modules
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))

import read_prompts

TEXTS = """; a comment: with a colon

hello-world: Bonjour à tous les gens
menu/choice:   “Appuyez sur étoile,  ou raccrochez.”
again: bonjour à tous les gens
digits: Pour quitter, appuyez sur 8
short: Bonjour
monkeys: [Son de singes qui crient]
missing: Il n'y a pas de fichier
"""


def write_sound(path: Path, rate: int, codec: str, seconds: float = 1.0) -> None:
    """A tone of 500 Hz as the content of a file that has no header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(rate * seconds)) / rate
    tone = (8000 * np.sin(2 * np.pi * 500 * times)).astype(np.int16)
    with av.open(str(path), "w", format=codec) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    folder = tmp_path / "fr_CA_f_June"
    for name in ("hello-world", "menu/choice", "again", "digits", "short", "monkeys", "unknown"):
        write_sound(folder / f"{name}.g722", 16000, "g722")
    (tmp_path / "texts.txt").write_text(TEXTS, "utf-8")
    (tmp_path / "texts.txt.gz").write_bytes(gzip.compress(TEXTS.encode()))
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["read_prompts", *map(str, arguments)])
    read_prompts.main()


@pytest.mark.parametrize("texts", ["texts.txt", "texts.txt.gz"])
def test_sentences_are_read_with_their_texts(
    tmp_path: Path, sounds: Path, monkeypatch: pytest.MonkeyPatch, texts: str
) -> None:
    run(monkeypatch, sounds, "--texts", tmp_path / texts, "--output", tmp_path / "out")
    lines = (tmp_path / "out" / "metadata.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    # `again` repeats a text, and comes first.
    assert [(row["file_name"], row["text"]) for row in rows] == [
        ("again.flac", "bonjour à tous les gens"),
        ("menu-choice.flac", "Appuyez sur étoile, ou raccrochez"),
    ]
    assert {row["speaker"] for row in rows} == {"fr_CA_f_June"}
    samples, rate = soundfile.read(tmp_path / "out" / "again.flac")
    assert rate == 16000
    assert rows[0]["duration"] == pytest.approx(len(samples) / rate) == pytest.approx(1.0, abs=0.01)
    assert np.argmax(np.abs(np.fft.rfft(samples))) * rate / len(samples) == pytest.approx(
        500, abs=2
    )


def test_without_texts_all_are_read(
    tmp_path: Path, sounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sound(sounds / "blip.g722", 16000, "g722", seconds=0.2)
    run(monkeypatch, sounds, "--output", tmp_path / "out", "--speaker", "june")
    rows = (tmp_path / "out" / "metadata.jsonl").read_text("utf-8").splitlines()
    assert len(rows) == 7
    assert {(json.loads(row)["text"], json.loads(row)["speaker"]) for row in rows} == {("", "june")}


def test_mistakes_are_named(tmp_path: Path, sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.txt").write_text("nothing\n", "utf-8")
    output = ("--output", tmp_path / "out")
    with pytest.raises(SystemExit, match=r"empty\.txt: no line is `name: text`"):
        run(monkeypatch, sounds, "--texts", tmp_path / "empty.txt", *output)
    with pytest.raises(SystemExit, match="no prompts"):
        run(monkeypatch, tmp_path / "nowhere", *output)
    (sounds / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(SystemExit, match=r"broken\.wav: cannot be decoded"):
        run(monkeypatch, sounds, *output)
