"""Fixtures of several tests of training."""

from __future__ import annotations

import pytest
import torch

from baldwhisper_convert.data.prepared import Prepared
from baldwhisper_convert.model.whisper import Whisper
from tests.support.tiny_prepared import tiny_prepared, tiny_student, tiny_teacher


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Several threads are slower than one in models this small."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Sixteen windows: four steps an epoch."""
    return tiny_prepared(tmp_path_factory.mktemp("states") / "data", 16)


@pytest.fixture
def teacher() -> Whisper:
    return tiny_teacher()


@pytest.fixture
def student() -> Whisper:
    return tiny_student()
