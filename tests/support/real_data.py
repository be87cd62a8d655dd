"""The inputs of the tests marked `real`, which `make test-real` passes in environment variables."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SPEECH = (
    "And so my fellow Americans ask not what your country can do for you, "
    "ask what you can do for your country."
)
"""What is said in jfk.flac."""


def named(variable: str) -> str:
    """The value of a variable; a test without its input fails, because nothing else runs it."""
    value = os.environ.get(variable)
    if not value:
        pytest.fail(f"{variable} is not set: run `make test-real` as CONTRIBUTING.md says")
    return value


def recording(name: str) -> Path:
    """A recording of faster-whisper's tests."""
    return Path(named("BALDWHISPER_PEER_AUDIO"), name)
