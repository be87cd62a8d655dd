"""docs/differences.md names every option of openai-whisper, mlx-whisper and faster-whisper."""

from __future__ import annotations

import argparse
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.option_tables import option_rows


def listed(section: str, program: str) -> set[str]:
    return {name for row in option_rows(section) if program in row.programs for name in row.theirs}


def keywords(function: Callable[..., Any]) -> set[str]:
    kinds = inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind not in kinds} - {"self"}


@pytest.mark.parametrize(("program", "package"), [("o", "whisper"), ("m", "mlx_whisper")])
def test_python_options_of_openai_whisper_and_mlx_whisper(program: str, package: str) -> None:
    """`transcribe` passes what it does not know to `DecodingOptions`."""
    transcribe = importlib.import_module(f"{package}.transcribe").transcribe
    decoding = importlib.import_module(f"{package}.decoding").DecodingOptions
    assert keywords(transcribe) | keywords(decoding) == listed("Python", program)


def test_python_options_of_faster_whisper() -> None:
    transcribe = importlib.import_module("faster_whisper.transcribe")
    found = keywords(transcribe.WhisperModel.transcribe)
    found |= keywords(transcribe.BatchedInferencePipeline.transcribe)
    assert found == listed("Python", "f")


@pytest.mark.parametrize(
    ("program", "module", "main"),
    [("o", "whisper.transcribe", "cli"), ("m", "mlx_whisper.cli", "main")],
)
def test_options_of_commands(
    program: str, module: str, main: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsers: list[argparse.ArgumentParser] = []

    def stop(self: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        parsers.append(self)
        raise InterruptedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    with pytest.raises(InterruptedError):
        getattr(importlib.import_module(module), main)()
    options = {
        option.replace("_", "-")
        for action in parsers[0]._actions
        for option in action.option_strings
        if option.startswith("--") and option != "--help"
    }
    assert options == listed("Command line", program)
