"""The model that comes with the package: there, small, whole, and able to hear."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import baldwhisper_mlx
from baldwhisper_mlx.cli import cli
from baldwhisper_mlx.load import LoadedModel, load_model
from baldwhisper_mlx.model_files import BUNDLED, MODEL_FILES, find_model

from .conftest import tone

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


def test_a_tone_is_no_speech(bundled: LoadedModel) -> None:
    assert baldwhisper_mlx.transcribe(tone(5), bundled, language="en").text.strip() == ""


def test_the_folder_is_complete_and_small() -> None:
    assert {path.name for path in BUNDLED.iterdir()} == {*MODEL_FILES, "README.md"}
    assert sum(path.stat().st_size for path in BUNDLED.iterdir()) <= MOST_BYTES


def test_its_card_names_what_it_is_made_of() -> None:
    card = (BUNDLED / "README.md").read_text(encoding="utf-8")
    for part in ("whisper-base", "MIT", "LibriSpeech", "CC BY 4.0", "recipes/base-en.toml"):
        assert part in card


def test_its_files_are_described_without_a_name() -> None:
    result = CliRunner().invoke(cli, ["info"])
    assert result.exit_code == 0, result.stderr
    config = json.loads((BUNDLED / "config.json").read_text())
    assert f"{config['n_text_layer']} layers" in result.stdout


def test_a_revision_needs_a_name() -> None:
    with pytest.raises(ValueError, match="revision"):
        find_model(None, "main")
