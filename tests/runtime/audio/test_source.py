"""Which sources are copied before they are decoded, and which are read themselves."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.audio.source import open_source

SPEECH = Path(__file__).parents[3] / "baldwhisper_mlx/assets/speech.flac"


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Temporary files that were made."""
    made: list[str] = []
    temporary = tempfile.TemporaryFile

    def counted(*args: Any, **options: Any) -> Any:
        made.append("file")
        return temporary(*args, **options)

    monkeypatch.setattr(tempfile, "TemporaryFile", counted)
    return made


def test_an_unbuffered_file_is_read_itself(copies: list[str]) -> None:
    expected = load_audio(SPEECH)
    with io.FileIO(SPEECH) as file:
        np.testing.assert_array_equal(load_audio(file), expected)
        assert file.read() == b""  # it was read to its end
        assert not file.closed
    assert copies == []


def test_what_is_copied(tmp_path: Path, copies: list[str]) -> None:
    expected = load_audio(SPEECH)
    behind = tmp_path / "behind"
    behind.write_bytes(b"head" + SPEECH.read_bytes())
    read, write = os.pipe()
    os.write(write, b"content")
    os.close(write)
    with io.FileIO(behind) as file, SPEECH.open("rb") as buffered, io.FileIO(read) as pipe:
        file.seek(4)  # only the rest is the recording
        np.testing.assert_array_equal(load_audio(file), expected)
        np.testing.assert_array_equal(load_audio(buffered), expected)
        with open_source(pipe) as (copy, _):
            assert copy.read() == b"content"
    assert len(copies) == 3
