"""The model of the tests with real recordings."""

from __future__ import annotations

import pytest

from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from tests.support.real_data import named


@pytest.fixture(scope="session")
def base() -> LoadedModel:
    return load_model(named("BALDWHISPER_MODEL"), dtype="float32", audio_context="full")
