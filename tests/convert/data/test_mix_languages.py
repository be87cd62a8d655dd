"""Clips in which the language changes, of synthetic audio whose parts can be told apart by tone."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

# scripts are run by path, so they import their helpers as top-level modules
sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))

import language_turns as turns
import mix_languages as mix

from baldwhisper_convert.data.prepare import prepare
from baldwhisper_convert.data.prepare_settings import PrepareSettings
from baldwhisper_convert.data.utterances import read_utterances
from baldwhisper_convert.data.windows import WindowSettings
from baldwhisper_mlx.config import SAMPLE_RATE
from tests.support.tiny_speech import tiny_prompts, tiny_teacher

MAIN, OTHER = 300, 1500
"""Hz of the two languages."""


def tone(hz: float, seconds: float) -> np.ndarray:
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.3 * np.sin(2 * np.pi * hz * times)).astype(np.float32)


def rest(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def folder(path: Path, clips: list[tuple[str, np.ndarray]], speakers: int = 1) -> Path:
    path.mkdir()
    rows = []
    for number, (text, samples) in enumerate(clips):
        soundfile.write(path / f"{number}.wav", samples, SAMPLE_RATE)
        rows.append({"file_name": f"{number}.wav", "text": text, "speaker": number % speakers})
    (path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    main = [
        (f"clip {i}", np.concatenate([rest(0.3), tone(MAIN, 0.8 + i / 10), rest(0.5)]))
        for i in range(6)
    ]
    # Longer than a phrase, but with a pause at the comma.
    long = np.concatenate([tone(OTHER, 2.5), rest(0.3), tone(OTHER, 2.0)])
    other = [("Quand il viendra ce soir, nous partirons.", long), ("Oui.", tone(OTHER, 0.6))]
    return folder(tmp_path / "main", main, 2), folder(tmp_path / "other", other)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["mix_languages", *map(str, arguments)])
    mix.main()


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (path / "metadata.jsonl").read_text().splitlines()]


def pitch(samples: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples)))) * SAMPLE_RATE / len(samples)


def test_every_turn_is_where_its_row_says_in_its_language(
    tmp_path: Path, sources: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "mixed"
    run(monkeypatch, *sources, "--languages", "ln", "fr", "--count", 24, "--output", output)
    rows = rows_of(output)
    assert len(rows) == 24
    texts = {"ln": {f"clip {i}" for i in range(6)}}
    texts["fr"] = {"Quand il viendra ce soir, nous partirons.", "Oui."}
    texts["fr"] |= {"Quand il viendra ce soir,", "nous partirons."}
    for row in rows:
        samples, rate = soundfile.read(output / row["file_name"], dtype="float32")
        assert rate == SAMPLE_RATE
        assert row["duration"] == pytest.approx(len(samples) / rate, abs=1e-3)
        assert row["text"] == " ".join(turn["text"] for turn in row["turns"])
        assert {turn["language"] for turn in row["turns"]} == {"ln", "fr"}
        for turn in row["turns"]:
            part = samples[round(turn["start"] * rate) : round(turn["end"] * rate)]
            wanted = MAIN if turn["language"] == "ln" else OTHER
            assert pitch(part) == pytest.approx(wanted, abs=10)
            middle = part[rate // 10 : -rate // 10]
            assert np.sqrt(np.mean(middle**2)) == pytest.approx(turns.LEVEL, rel=0.15)
            assert turn["text"] in texts[turn["language"]]


def test_changes_inside_a_sentence_have_no_pause(
    tmp_path: Path, sources: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "mixed"
    run(monkeypatch, *sources, "--languages", "ln", "fr", "--count", 20, "--output", output)
    kinds = {kind: [r for r in rows_of(output) if r["change"] == kind] for kind in
             ("within", "pauses")}  # fmt: skip
    assert min(map(len, kinds.values())) > 3
    for row in kinds["within"]:
        spoken = row["turns"]
        assert [turn["language"] for turn in spoken] == ["ln", "fr", "ln"]
        assert spoken[1]["end"] - spoken[1]["start"] <= mix.LONGEST_PHRASE
        for before, after in pairwise(spoken):
            assert -0.01 <= after["start"] - before["end"] <= mix.GAP[1] + 0.01
        samples, rate = soundfile.read(output / row["file_name"])
        loud = [np.abs(block).max() > 0.01 for block in np.array_split(samples, 100)]
        assert np.mean(loud) > 0.85, rate
    gaps = [after["start"] - before["end"] for row in kinds["pauses"]
            for before, after in pairwise(row["turns"])]  # fmt: skip
    assert mix.PAUSES[0] - 0.01 <= min(gaps)
    assert max(gaps) <= mix.PAUSES[1] + 0.01
    assert {row["turns"][0]["language"] for row in kinds["pauses"]} == {"ln", "fr"}


def test_the_same_options_make_the_same_clips(
    tmp_path: Path, sources: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(monkeypatch, *sources, "--languages", "ln", "fr", "--count", 4, "--seed", seed,
            "--output", tmp_path / name)  # fmt: skip
    found = [[(tmp_path / name / f"{i:05}.flac").read_bytes() for i in range(4)] for name in "abc"]
    assert found[0] == found[1] != found[2]


def test_a_sentence_is_cut_only_where_text_and_audio_agree() -> None:
    def cut(text: str, *parts: np.ndarray) -> list[tuple[str, float]]:
        found = turns.cut_at_pauses(turns.Utterance(np.concatenate(parts), text))
        return [(part.text, round(len(part.samples) / SAMPLE_RATE, 1)) for part in found]

    a, b, gap = tone(MAIN, 1.0), tone(MAIN, 2.0), rest(0.3)
    assert cut("Abcde abcd, abcde abcde abcde abcd.", a, gap, b) == [
        ("Abcde abcd,", 1.0),
        ("abcde abcde abcde abcd.", 2.0),
    ]
    # Without punctuation, with a pause elsewhere, with another number of them: not cut.
    assert len(cut("Abcde abcd abcde abcde abcde abcd.", a, gap, b)) == 1
    assert len(cut("Abcde abcde abcde abcd, abcde abcd.", a, gap, b)) == 1
    assert len(cut("Abcde abcd, abcde abcde abcde abcd.", a, gap, a, gap, a)) == 1
    assert len(cut("Abcde abcd, abcde abcde abcde abcd.", a, rest(0.05), b)) == 1
    assert turns.cut_at_pauses(turns.Utterance(rest(0.0), "A, b.")) != []


def test_silence_at_the_ends_is_trimmed() -> None:
    samples = turns.trimmed(np.concatenate([rest(0.5), tone(MAIN, 1.0), rest(0.7)]))
    assert len(samples) / SAMPLE_RATE == pytest.approx(1.0 + 2 * turns.KEPT, abs=0.03)
    assert pitch(samples) == pytest.approx(MAIN, abs=5)


def test_the_clips_are_prepared_with_a_token_for_each_turn(
    tmp_path: Path, sources: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "mixed"
    run(monkeypatch, *sources, "--languages", "en", "fr", "--count", 4, "--output", output)
    single = WindowSettings(single=1.0, silence=0.0, pause=0.0, full=0.0)
    found = {}
    for kind in ("window", "turns"):
        settings = PrepareSettings(features="mel", windows=single, language_tokens=kind)  # type: ignore[arg-type]
        said = list(read_utterances(str(output)))
        found[kind] = prepare(tiny_teacher(), said, settings, tmp_path / kind).windows
    tokenizer = tiny_prompts().tokenizer
    languages = {token: code for code, token in tokenizer.languages.items()}
    for row, one, each in zip(rows_of(output), found["window"], found["turns"], strict=True):
        assert one.text == each.text == row["text"]
        assert not languages.keys() & set(one.tokens)
        tokens = [languages[token] for token in each.tokens if token in languages]
        spoken = ["en", *(turn["language"] for turn in row["turns"])]
        assert tokens == [b for a, b in pairwise(spoken) if a != b]
        assert tokenizer.decode(each.tokens).split() == row["text"].split()
        # The decoder may write them.
        assert languages.keys().isdisjoint(tokenizer.suppressed_tokens)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "0"], "--count at least 1"),
        (["--count", "2", "--within", "2"], "--within must be 0 to 1"),
        (["--count", "2", "--output", "."], "not empty"),
        (["--count", "2", "--languages", "fr", "fr"], "two languages that differ"),
    ],
)
def test_mistakes_are_named(
    tmp_path: Path,
    sources: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, *sources, "--languages", "ln", "fr", "--output", "new", *arguments)


def test_clips_that_are_too_long_to_join_are_an_error(
    tmp_path: Path, sources: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = folder(tmp_path / "long", [("A text", tone(OTHER, 6.0))])
    monkeypatch.setattr(mix, "LONGEST", 6.1)
    with pytest.raises(SystemExit, match="the clips are too long"):
        run(monkeypatch, sources[0], long, "--languages", "ln", "fr", "--count", "3",
            "--within", "0", "--output", tmp_path / "out")  # fmt: skip


def test_a_source_without_phrases_is_named(
    tmp_path: Path, sources: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = folder(tmp_path / "long", [("A text", tone(OTHER, 5.0))])
    with pytest.raises(SystemExit, match="no clip in fr is at most 3 s long"):
        run(monkeypatch, sources[0], long, "--languages", "ln", "fr", "--count", "3",
            "--within", "1", "--output", tmp_path / "out")  # fmt: skip


def test_a_source_without_speech_is_named(
    tmp_path: Path, sources: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mix, "trimmed", lambda samples: samples[:0])
    with pytest.raises(SystemExit, match=r"no clip in (ln|fr) has speech"):
        run(monkeypatch, *sources, "--languages", "ln", "fr", "--count", "3",
            "--output", tmp_path / "out")  # fmt: skip
