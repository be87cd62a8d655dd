"""The inputs of the tests marked `real`, which `make test-real` passes in environment variables."""

from __future__ import annotations

import os

import pytest


def named(variable: str) -> str:
    """The value of a variable; a test without its input fails, because nothing else runs it."""
    value = os.environ.get(variable)
    if not value:
        pytest.fail(f"{variable} is not set: run `make test-real` as CONTRIBUTING.md says")
    return value
