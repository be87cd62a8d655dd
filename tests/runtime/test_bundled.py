"""The model that comes with the package: complete, small, and accurate on speech."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import baldwhisper_mlx
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.files import BUNDLED, MODEL_FILES, find_model
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.cli.main import cli
from baldwhisper_mlx.config import SAMPLE_RATE
from benchmarks.accuracy.other_languages import SENTENCES, ranks
from tests.runtime.audio.test_vad import brown
from tests.runtime.conftest import tone
from tests.support.pages import blocks, read

SAMPLE = Path(__file__).parents[2] / "examples" / "sample.wav"
MOST_BYTES = 45_000_000


@pytest.fixture(scope="module")
def bundled() -> LoadedModel:
    return load_model()


def words(text: str) -> list[str]:
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


def test_the_sample_is_transcribed(bundled: LoadedModel) -> None:
    transcript = baldwhisper_mlx.transcribe(SAMPLE, bundled)
    assert transcript.language == "en"
    assert words(transcript.text) == words(SAMPLE.with_suffix(".txt").read_text())
    ends = [segment.end for segment in transcript.segments]
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx(transcript.duration, abs=0.5)


def test_the_readme_shows_what_the_command_prints() -> None:
    (block,) = blocks(read("README.md"), "console")
    command, *shown = block.splitlines()
    assert command == "$ baldwhisper transcribe examples/sample.wav"
    result = CliRunner().invoke(cli, ["transcribe", str(SAMPLE)])
    # Marks can differ between a CPU and a GPU.
    assert [words(line) for line in result.stdout.splitlines()] == [words(line) for line in shown]


def test_words_are_timed(bundled: LoadedModel) -> None:
    transcript = baldwhisper_mlx.transcribe(SAMPLE, bundled, word_timestamps=True)
    timed = [word for segment in transcript.segments for word in segment.words or ()]
    assert words("".join(word.word for word in timed)) == words(transcript.text)
    starts = [word.start for word in timed]
    assert starts == sorted(starts)
    assert all(word.start <= word.end <= transcript.duration + 0.5 for word in timed)
    # Spoken words take time, and follow each other within seconds.
    lengths = [word.end - word.start for word in timed]
    assert sum(length > 0.05 for length in lengths) > 0.8 * len(lengths)
    assert max(b - a for a, b in pairwise(starts)) < 3


@pytest.mark.parametrize("options", [{"vad": True}, {"vad": True, "batch_size": 4}])
def test_ways_to_transcribe_agree(bundled: LoadedModel, options: dict[str, Any]) -> None:
    """Two samples with half a minute of silence between them."""
    samples = load_audio(SAMPLE)
    gap = np.zeros(35 * SAMPLE_RATE, np.float32)
    both = np.concatenate([samples, gap, samples])
    found = baldwhisper_mlx.transcribe(both, bundled, language="en", **options)
    spoken = words(SAMPLE.with_suffix(".txt").read_text())
    written = words(found.text)
    # An unstressed article may be another one, depending on where the window starts.
    same = [a == b or {a, b} <= {"a", "the"} for a, b in zip(written, 2 * spoken, strict=True)]
    assert all(same)
    middle = len(samples) / SAMPLE_RATE
    for segment in found.segments:
        assert segment.end < middle + 1 or segment.start > middle + 34


@pytest.mark.parametrize("way", [{}, {"vad": True}, {"vad": True, "batch_size": 2}])
@pytest.mark.parametrize("level", [0.0, 0.0001, 0.1])
def test_nothing_is_made_up_over_silence_or_noise(
    bundled: LoadedModel, way: dict[str, Any], level: float
) -> None:
    samples = level * np.random.default_rng(0).standard_normal(40 * SAMPLE_RATE)
    found = baldwhisper_mlx.transcribe(samples.astype(np.float32), bundled, language="en", **way)
    assert found.text == ""


@pytest.mark.parametrize("seed", [1, 5])
def test_nothing_is_made_up_over_a_random_walk(bundled: LoadedModel, seed: int) -> None:
    """What stands out in loudness of the second gets 21 words, if only that is transcribed."""
    samples = brown(seed)
    assert baldwhisper_mlx.transcribe(samples, bundled, language="en", vad=True).text == ""


@pytest.mark.parametrize("options", [["-l", "de"], ["--task", "translate"], ["-l", "German"]])
def test_other_languages_are_refused(options: list[str]) -> None:
    result = CliRunner().invoke(cli, ["transcribe", str(SAMPLE), *options])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "--model" in result.stderr
    assert "English" in result.stderr or "only en (english)" in result.stderr


def test_it_knows_english_only(bundled: LoadedModel) -> None:
    assert bundled.config.languages == ("en",)
    result = CliRunner().invoke(cli, ["info"])
    assert "English only" in result.stdout


def test_other_languages_stay_within_reach(bundled: LoadedModel) -> None:
    """Inside an English prompt French tokens can still be written: none was cut away.

    Half of those of a French sentence are likelier than 99 % of all others where they are due. The
    others are rare words in English speech, for which this model has low-rank rows only.
    """
    found = ranks(bundled, "en", SENTENCES["French"][0])
    assert np.median(found) < 0.01 * bundled.config.n_vocab


def test_a_tone_is_no_speech(bundled: LoadedModel) -> None:
    assert baldwhisper_mlx.transcribe(tone(5), bundled, language="en").text.strip() == ""


def test_the_folder_is_complete_and_small() -> None:
    assert {path.name for path in BUNDLED.iterdir()} == {*MODEL_FILES, "README.md"}
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) <= MOST_BYTES


def test_its_card_names_what_it_is_made_of() -> None:
    card = (BUNDLED / "README.md").read_text(encoding="utf-8")
    sources = ("whisper-tiny.en", "LibriSpeech", "speechocean762", "Kathleen", "Moodist")
    for part in (*sources, "MIT", "CC BY 4.0", "CC0", "recipes/tiny-en.toml"):
        assert part in card


def test_its_files_are_described_without_a_name() -> None:
    result = CliRunner().invoke(cli, ["info"])
    assert result.exit_code == 0, result.stderr
    config = json.loads((BUNDLED / "config.json").read_text())
    assert f"{config['n_text_layer']} layers" in result.stdout


def test_a_revision_needs_a_name() -> None:
    with pytest.raises(ValueError, match="revision"):
        find_model(None, "main")
