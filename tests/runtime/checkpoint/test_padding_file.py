"""padding.safetensors: written, read, refused where it does not fit, and used where it is there."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner

import baldwhisper_mlx
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.calibrate import write_padding
from baldwhisper_mlx.checkpoint.describe import describe_model
from baldwhisper_mlx.checkpoint.files import PADDING_FORMAT
from baldwhisper_mlx.checkpoint.load import load_model
from baldwhisper_mlx.checkpoint.padding_file import PIECES, SPEECH
from baldwhisper_mlx.cli.main import cli
from baldwhisper_mlx.config import PADDING_FILE, SAMPLE_RATE
from baldwhisper_mlx.model.whisper import AudioEncoder
from tests.runtime.audio.test_vad import SAMPLE
from tests.runtime.conftest import tone


@pytest.fixture
def folder(tmp_path: Path, model_folder: Path) -> Path:
    """A model folder with constants."""
    copy = tmp_path / "model"
    shutil.copytree(model_folder, copy)
    assert write_padding(copy, [tone(3), tone(2.5)]) == copy / PADDING_FILE
    return copy


def test_a_folder_with_constants_is_padded_by_default(folder: Path) -> None:
    padding = load_model(folder).model.padding
    assert padding is not None
    assert (padding.stride, padding.tail) == (8, 100)
    assert padding.keys.shape == padding.values.shape == (1, 2, 188, 16)
    assert padding.states.shape == (1500, 32)
    assert padding.keys.dtype == mx.float32
    assert load_model(folder, audio_context="padded").model.padding is not None
    assert load_model(folder, audio_context="full").model.padding is None
    assert load_model(folder, dtype="float16").model.padding.states.dtype == mx.float16


def test_the_file_is_small_and_says_what_it_holds(folder: Path) -> None:
    tensors, metadata = mx.load(str(folder / PADDING_FILE), return_metadata=True)
    assert {x.dtype for x in tensors.values()} == {mx.float16}
    expected = {"format": PADDING_FORMAT, "clips": "2", "stride": "8", "tail": "100"}
    assert metadata == expected
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_without_the_file(model_folder: Path, tmp_path: Path) -> None:
    """Only if it is asked for, and then from the speech that comes with the package."""
    assert load_model(model_folder).model.padding is None
    computed = load_model(model_folder, audio_context="padded").model.padding
    assert computed is not None
    assert [path.name for path in model_folder.iterdir() if path.name == PADDING_FILE] == []
    copy = Path(shutil.copytree(model_folder, tmp_path / "copy"))
    write_padding(copy)
    stored = load_model(copy).model.padding
    assert (computed.stride, computed.tail) == (stored.stride, stored.tail)
    for name in ("keys", "values", "states"):
        first, second = (np.array(getattr(p, name)) for p in (computed, stored))
        np.testing.assert_allclose(first, second, rtol=2e-3, atol=1e-3)


def test_the_speech_that_comes_with_the_package() -> None:
    """It is the beginning of the repository's example."""
    samples = load_audio(SPEECH)
    assert len(samples) == max(PIECES) * SAMPLE_RATE
    np.testing.assert_array_equal(samples, load_audio(SAMPLE)[: len(samples)])


def test_an_unknown_context(model_folder: Path) -> None:
    with pytest.raises(ValueError, match="full or padded, not 'short'"):
        load_model(model_folder, audio_context="short")  # type: ignore[arg-type]


def test_a_model_with_another_context_needs_none(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"audio_context": "dynamic"}))
    with pytest.raises(ValueError, match="trained for a dynamic audio context"):
        load_model(folder)
    (folder / PADDING_FILE).unlink()
    assert load_model(folder).model.padding is None
    for context in ("full", "padded"):
        with pytest.raises(ValueError, match="runs in that one only"):
            load_model(folder, audio_context=context)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "format 'other' instead of"),
        ({"stride": "x"}, "stride 'x'"),
        ({"stride": "0"}, "stride '0'"),
        ({"stride": "60"}, "stride '60'"),
        ({"tail": "0"}, "tail '0'"),
        ({"stride": "4"}, r"keys \[1, 2, 188, 16\] instead of \[1, 2, 375, 16\]"),
    ],
)
def test_files_that_are_refused(folder: Path, changes: dict[str, str], message: str) -> None:
    path = folder / PADDING_FILE
    tensors, metadata = mx.load(str(path), return_metadata=True)
    mx.eval(tensors)
    mx.save_safetensors(str(path), tensors, metadata | changes)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(folder)
    assert str(path) in str(caught.value)


def test_a_truncated_file_is_refused(folder: Path) -> None:
    path = folder / PADDING_FILE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=rf"{PADDING_FILE}: truncated"):
        load_model(folder)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("options", [{}, {"batch_size": 2}, {"without_timestamps": True}])
def test_recordings_are_transcribed(folder: Path, dtype: Any, options: dict[str, Any]) -> None:
    """Of any length, in every way; words lie within the recording."""
    loaded = load_model(folder, dtype=dtype)
    for seconds in (0.3, 3, 29.9, 41):
        transcript = baldwhisper_mlx.transcribe(
            tone(seconds), loaded, language="en", temperature=0.0, word_timestamps=True, **options
        )
        assert transcript.duration == pytest.approx(seconds, abs=0.01)
        times = [t for s in transcript.segments for w in s.words or () for t in (w.start, w.end)]
        assert all(0 <= time <= seconds + 0.01 for time in times)


@pytest.mark.parametrize("options", [{}, {"batch_size": 2}])
def test_stretches_of_speech_and_a_language_to_detect(
    folder: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stretches are short, so they are padded; the times are those of the whole recording."""
    stretches = [(16_000, 56_000), (120_000, 150_000)]
    for module in ("strategies", "without_pauses"):
        name = f"baldwhisper_mlx.transcription.{module}.speech_spans"
        monkeypatch.setattr(name, lambda *_: stretches)
    lengths: list[int] = []
    encode = AudioEncoder.__call__

    def recorded(encoder: AudioEncoder, mel: mx.array, *more: Any, **named: Any) -> mx.array:
        lengths.append(mel.shape[1] // 2)
        return encode(encoder, mel, *more, **named)

    monkeypatch.setattr(AudioEncoder, "__call__", recorded)
    loaded = load_model(folder)
    found = baldwhisper_mlx.transcribe(
        tone(12), loaded, temperature=0.0, vad=True, word_timestamps=True, **options
    )
    assert found.language in loaded.tokenizer.languages
    assert lengths[0] < 1500
    times = [t for s in found.segments for w in s.words or () for t in (w.start, w.end)]
    assert all(1 <= time <= 150_000 / 16_000 for time in times)


def test_full_context_is_what_it_was(folder: Path, model_folder: Path) -> None:
    wanted = baldwhisper_mlx.transcribe(tone(3), load_model(model_folder), temperature=0.0)
    full = load_model(folder, audio_context="full")
    assert baldwhisper_mlx.transcribe(tone(3), full, temperature=0.0) == wanted


def test_the_command_line_chooses(folder: Path, wav: Path) -> None:
    for context in ("full", "padded"):
        arguments = ["transcribe", str(wav), "-m", str(folder), "--audio-context", context]
        result = CliRunner().invoke(cli, [*arguments, "-l", "en", "--temperature", "0"])
        assert result.exit_code == 0, result.stderr
    (folder / PADDING_FILE).unlink()
    result = CliRunner().invoke(cli, [*arguments, "-l", "en", "--temperature", "0"])
    assert result.exit_code == 0, result.stderr


def test_what_is_no_file_is_not_opened(folder: Path) -> None:
    path = folder / PADDING_FILE
    path.unlink()
    os.mkfifo(path)
    for read in (load_model, describe_model):
        with pytest.raises(ValueError, match=f"{PADDING_FILE}: not a regular file, but a pipe"):
            read(folder)
    path.unlink()
    path.symlink_to("gone")
    with pytest.raises(FileNotFoundError, match=f"{PADDING_FILE}: missing"):
        load_model(folder)
