"""JSON output of real runs follows docs/transcript.schema.json, which allows nothing else."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from baldwhisper_mlx import Segment, Transcript, Word, load_model, transcribe
from baldwhisper_mlx.output.document import VERSION
from baldwhisper_mlx.transcription.channels import merge_channels
from tests.runtime.conftest import RATE, tone
from tests.support.pages import ROOT

SCHEMA = json.loads((ROOT / "docs/transcript.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)


def parsed(transcript: Transcript) -> Any:
    return json.loads(transcript.to_json())


def errors(document: Any) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(document)]


def complete() -> Transcript:
    """A transcript in which every field has a value."""
    word = Word(0.0, 0.5, " Hi", 0.9)
    segment = Segment(0, 0, 0.0, 1.0, " Hi", (1, 2), 0.0, -0.3, 1.2, 0.01, (word,), 1, "en")
    return Transcript(" Hi", (segment,), "en", 2.0)


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["version"]["const"] == VERSION


@pytest.fixture(scope="module")
def outputs(model_folder: Path) -> dict[str, Transcript]:
    model = load_model(model_folder)
    speech, silence = tone(2.0), np.zeros(2 * RATE, np.float32)
    options: dict[str, Any] = {"temperature": 0.0, "no_speech_threshold": None}
    options["logprob_threshold"] = None
    return {
        "plain": transcribe(speech, model, **options),
        "words": transcribe(speech, model, word_timestamps=True, **options),
        "channels": merge_channels(
            [transcribe(speech, model, word_timestamps=True, **options) for _ in range(2)]
        ),
        "sampled": transcribe(speech, model, **options | {"temperature": 1.0}),
        "batches": transcribe(np.tile(speech, 20), model, batch_size=2, **options),
        "silence": transcribe(silence, model),
        "pauses": transcribe(silence, model, vad=True),
    }


def test_real_outputs_follow_it(outputs: dict[str, Transcript]) -> None:
    for name, output in outputs.items():
        assert errors(parsed(output)) == [], name
    first = {name: output.segments[:1] for name, output in outputs.items()}
    assert first["plain"]
    assert first["words"][0].words
    assert first["channels"][0].channel == 1
    assert first["silence"] == first["pauses"] == ()
    assert outputs["silence"].language is None


def test_every_field_is_in_it() -> None:
    raw = parsed(complete())
    assert errors(raw) == []
    for part, kind in ((raw, Transcript), (raw["segments"][0], Segment)):
        # Log-probabilities of tokens are for programs, and would double the size of a file.
        assert {field.name for field in dataclasses.fields(kind)} - {"logprobs"} <= part.keys()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_become_null(bad: float) -> None:
    whole = complete()
    (segment,) = whole.segments
    word = dataclasses.replace(segment.words[0], probability=bad) if segment.words else None
    broken = dataclasses.replace(
        segment, avg_logprob=bad, compression_ratio=bad, no_speech_prob=bad, words=(word,)
    )
    raw = parsed(dataclasses.replace(whole, segments=(broken,)))
    assert errors(raw) == []
    assert raw["segments"][0]["words"][0]["probability"] is None


def places(raw: Any, *path: Any) -> list[tuple[Any, ...]]:
    """The path of every object in a document."""
    found = [path] if isinstance(raw, dict) else []
    items = raw.items() if isinstance(raw, dict) else enumerate(raw)
    for key, value in items:
        if isinstance(value, (dict, list)):
            found += places(value, *path, key)
    return found


def at(raw: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        raw = raw[key]
    return raw


OPTIONAL = {"words", "channel", "language"}


@pytest.mark.parametrize("path", places(parsed(complete())), ids=str)
def test_an_unknown_or_missing_key_is_refused(path: tuple[Any, ...]) -> None:
    raw = parsed(complete())
    for key in at(raw, path):
        short = parsed(complete())
        del at(short, path)[key]
        is_optional = len(path) == 2 and key in OPTIONAL
        assert bool(errors(short)) != is_optional, key
    at(raw, path)["colour"] = "red"
    assert len(errors(raw)) == 1


def test_a_value_of_the_wrong_kind_is_refused() -> None:
    for path in places(parsed(complete())):
        for key in at(parsed(complete()), path):
            wrong = parsed(complete())
            at(wrong, path)[key] = {"neither": "text nor number"}
            assert errors(wrong), (path, key)
