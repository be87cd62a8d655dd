"""Whole recordings through both programs, with the same random weights.

Random weights write nonsense, but they write it deterministically: windows, prompts, rules,
fallbacks and segments all have to agree for the nonsense to be the same.
"""

from __future__ import annotations

from typing import Any

import pytest

import baldwhisper_mlx
from baldwhisper_mlx.checkpoint.load import LoadedModel
from tests.parity.test_features_parity import speechlike

whisper_transcribe = pytest.importorskip("whisper.transcribe")
whisper_tokenizer = pytest.importorskip("whisper.tokenizer")

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "prompt": {"initial_prompt": "the quick brown fox"},
    "prompt in every window": {
        "initial_prompt": "the quick brown fox",
        "carry_initial_prompt": True,
    },
    "other tokens suppressed": {"suppress_tokens": "-1,64,65,66,67,68,69,70,71,72"},
    "symbols allowed": {"suppress_tokens": "70"},
    "unconditioned": {"condition_on_previous_text": False},
    "beams": {"beam_size": 3, "patience": 2.0, "length_penalty": 0.6},
    "text only": {"without_timestamps": True},
    "translate": {"task": "translate", "language": "french"},
    "silence skipped": {"no_speech_threshold": 0.0, "logprob_threshold": 0.0},
}


@pytest.mark.usefixtures("same_vocabulary")
@pytest.mark.parametrize("name", OPTIONS)
def test_recording(loaded: LoadedModel, multilingual: Any, name: str) -> None:
    options = {"language": "en"} | OPTIONS[name]
    samples = speechlike(16_000 * 33, seed=4)
    expected = whisper_transcribe.transcribe(
        multilingual, samples, temperature=0.0, fp16=False, **options
    )
    ours = baldwhisper_mlx.transcribe(samples, loaded, temperature=0.0, **options).to_dict()
    assert ours["text"] == expected["text"]
    assert ours["language"] == whisper_tokenizer.TO_LANGUAGE_CODE.get(
        expected["language"], expected["language"]
    )
    # Ours has no segment without text, and none that ends after the audio (docs/differences.md).
    spoken = [segment for segment in expected["segments"] if segment["text"].strip()]
    assert [segment["id"] for segment in ours["segments"]] == list(range(len(spoken)))
    for mine, theirs in zip(ours["segments"], spoken, strict=True):
        for key in ("seek", "text", "tokens", "temperature"):
            assert mine[key] == theirs[key], key
        assert mine["end"] == pytest.approx(min(theirs["end"], 33.0), abs=2e-3)
        if theirs["start"] < 33.0:
            assert mine["start"] == pytest.approx(theirs["start"], abs=2e-3)
        else:  # behind the end of the audio
            assert mine["start"] < 33.0
        for key in ("avg_logprob", "compression_ratio", "no_speech_prob"):
            assert mine[key] == pytest.approx(theirs[key], abs=2e-3), key
    if name != "silence skipped":
        assert expected["segments"]


@pytest.mark.usefixtures("same_vocabulary")
def test_language_detection(loaded: LoadedModel, multilingual: Any) -> None:
    samples = speechlike(16_000 * 31, seed=5)
    expected = whisper_transcribe.transcribe(multilingual, samples, temperature=0.0, fp16=False)
    assert (
        baldwhisper_mlx.transcribe(samples, loaded, temperature=0.0).language
        == (expected["language"])
    )
