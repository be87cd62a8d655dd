"""Prompts, ranges and token rules on the command line: they reach `transcribe`, or are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from baldwhisper_mlx.cli.main import cli
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.transcription import transcribe as transcribing
from tests.runtime.conftest import RATE, tone


@pytest.fixture
def long_wav(tmp_path: Path) -> Path:
    """40 s of a tone."""
    path = tmp_path / "long.wav"
    soundfile.write(path, tone(40), RATE)
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["transcribe", *arguments], catch_exceptions=False)


def test_options_reach_transcribe(
    model_folder: Path, wav: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: dict[str, Any] = {}

    def noted(*_: Any, **options: Any) -> Transcript:
        received.update(options)
        return Transcript("", (), None, 1.0)

    monkeypatch.setattr(transcribing, "transcribe", noted)
    result = run(
        str(wav), "-m", str(model_folder), "--hotwords", "Kokoro, Bald", "--prefix", "Once",
        "--initial-prompt", "Tea", "--carry-initial-prompt", "--clip-timestamps", "0-10,60-",
        "--word-timestamps", "--hallucination-silence-threshold", "2",
        "--suppress-tokens", "-1,50,60", "--repetition-penalty", "1.2",
        "--no-repeat-ngram-size", "3",
    )  # fmt: skip
    assert result.exit_code == 0
    expected = {
        "hotwords": "Kokoro, Bald", "prefix": "Once", "initial_prompt": "Tea",
        "carry_initial_prompt": True, "clip_timestamps": "0-10,60-",
        "hallucination_silence_threshold": 2.0, "suppress_tokens": "-1,50,60",
        "repetition_penalty": 1.2, "no_repeat_ngram_size": 3,
    }  # fmt: skip
    assert {name: received[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clip-timestamps", "10-5"], "--clip-timestamps: the range from 10 to 5 s does not end"),
        (["--clip-timestamps", "0-10,60"], "--clip-timestamps: '60' is no range such as 0-10"),
        (["--clip-timestamps", "0-10,5-9"], "begins before the one before it ends"),
        (["--hallucination-silence-threshold", "2"], "needs --word-timestamps"),
        (["--carry-initial-prompt"], "needs --initial-prompt"),
        (["--suppress-tokens", "a,b"], "--suppress-tokens: give token ids"),
        (["--repetition-penalty", "0"], "0.01<=x<=100"),
        (["--repetition-penalty", "nan"], "--repetition-penalty"),
        (["--no-repeat-ngram-size", "-1"], "--no-repeat-ngram-size"),
    ],
    ids=str,
)
def test_bad_values_are_wrong_usage(wav: Path, arguments: list[str], message: str) -> None:
    """Before a model is loaded: there is none of that name."""
    result = run(str(wav), "-m", "no/such/model", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_ids_that_the_model_does_not_have_are_an_error_before_the_first_file(
    model_folder: Path, wav: Path, long_wav: Path
) -> None:
    result = run(
        str(wav), str(long_wav), "-m", str(model_folder), "-l", "en", "--suppress-tokens", "999999"
    )
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: suppress_tokens: 999999 is no token of this model")
    assert result.stderr.count("999999") == 1


def test_what_is_cut_is_said(model_folder: Path, long_wav: Path, wav: Path) -> None:
    """Once for each file, and with its name."""
    result = run(
        str(long_wav), str(wav), "-m", str(model_folder), "-l", "en", "--temperature", "0",
        "--hotwords", "a" * 50, "--clip-timestamps", "0-3,30-60", "--batch-size", "2",
    )  # fmt: skip
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    for path in (long_wav, wav):
        cut = f"warning: {path}: hotwords: 31 of 51 tokens are used, the first ones"
        assert sum(line.startswith(cut) for line in lines) == 1
    left_out = f"warning: {wav}: clip_timestamps: the range that starts at 30 s is left out"
    assert sum(line.startswith(left_out) for line in lines) == 1


def test_all_together_with_a_real_decoder(model_folder: Path, long_wav: Path) -> None:
    """In every way to transcribe: times within the ranges, and no id twice in a window."""
    tokens = [str(token) for token in range(200, 220)]
    for way in ([], ["--batch-size", "3"]):
        result = run(
            str(long_wav), "-m", str(model_folder), "-l", "en", "--temperature", "0", "-f", "json",
            "--hotwords", "Kokoro", "--prefix", "Once", "--word-timestamps",
            "--hallucination-silence-threshold", "5", "--no-repeat-ngram-size", "1",
            "--repetition-penalty", "1.1", "--suppress-tokens", ",".join(["-1", *tokens]),
            "--clip-timestamps", "2-5,10-20", *way,
        )  # fmt: skip
        assert result.exit_code == 0, result.stderr
        found = json.loads(result.stdout)
        for segment in found["segments"]:
            start, end = segment["start"], segment["end"]
            assert 2 <= start <= end <= 5 or 10 <= start <= end <= 20
            text = [token for token in segment["tokens"] if token < 256]
            assert len(set(text)) == len(text)
            assert not set(map(str, text)) & set(tokens)
        assert np.isclose(found["duration"], 40)
