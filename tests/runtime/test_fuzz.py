"""Files with flipped bits, cut off or made up: a clear error or a sound result, never a crash."""

from __future__ import annotations

import io
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baldwhisper_mlx.audio.load import load_audio, load_pcm
from baldwhisper_mlx.checkpoint.load import load_model
from baldwhisper_mlx.config import ModelConfig
from tests.runtime.conftest import RATE, tiny_config, tone
from tests.support import tiny_media

FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
flips = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=6)


def flipped(data: bytes, changes: list[tuple[float, int]], reach: int) -> bytes:
    """Some of the first `reach` bytes changed."""
    found = bytearray(data)
    for place, bits in changes:
        found[int(place * (min(reach, len(data)) - 1))] ^= bits
    return bytes(found)


def outcome(call: Callable[[], Any]) -> tuple[Any, str]:
    """What it returns, or what its ValueError says; any other error is a failure."""
    try:
        return call(), ""
    except ValueError as error:
        return None, str(error)


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = values | st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=8), values)


@FUZZ
@given(name=st.sampled_from(sorted(tiny_config().to_dict())), value=values)
def test_config_with_any_value(tmp_path: Path, name: str, value: Any) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(tiny_config().to_dict() | {name: value}), encoding="utf-8")
    config, refused = outcome(lambda: ModelConfig.from_file(path))
    assert refused.startswith(f"{path}: ") if refused else config.to_dict()[name] == value


@FUZZ
@given(changes=flips, kept=st.floats(0, 1))
def test_config_with_flipped_bits(tmp_path: Path, changes: Any, kept: float) -> None:
    data = json.dumps(tiny_config().to_dict()).encode()
    path = tmp_path / "config.json"
    path.write_bytes(flipped(data, changes, len(data))[: int(len(data) * kept)])
    _, refused = outcome(lambda: ModelConfig.from_file(path))
    assert not refused or refused.startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["n_text_layer", "n_audio_layer"])
def test_a_config_of_a_million_layers(tmp_path: Path, name: str) -> None:
    """Building them would take all memory there is."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(tiny_config().to_dict() | {name: 10**6}), encoding="utf-8")
    with pytest.raises(ValueError, match=name):
        ModelConfig.from_file(path)


@FUZZ
@given(changes=flips)
def test_weights_with_flipped_bits_in_their_header(
    model_folder: Path, tmp_path: Path, changes: Any
) -> None:
    folder = tmp_path / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(model_folder, folder)
    path = folder / "model.safetensors"
    data = path.read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    path.write_bytes(flipped(data, changes, header))
    _, refused = outcome(lambda: load_model(folder))
    assert not refused or "model.safetensors" in refused


@pytest.mark.parametrize(
    "header",
    [
        {"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}},
        {"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**40]}},
        {"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        {"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"x": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}},
        {"../../x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        {"x": {"dtype": "F32", "shape": [1, 2**62, 4], "data_offsets": [0, 4]}},
        {},
        [],
    ],
)
def test_hostile_headers(model_folder: Path, tmp_path: Path, header: Any) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "model")
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        load_model(folder)


def audio(kind: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tone(0.5), RATE, format=kind)
    return file.getvalue()


SOUNDS = {kind: audio(kind) for kind in ("WAV", "FLAC", "OGG", "MP3", "AIFF", "CAF")}


@pytest.mark.filterwarnings("ignore::UserWarning")
@FUZZ
@given(kind=st.sampled_from(sorted(SOUNDS)), changes=flips, kept=st.floats(0.02, 1))
def test_audio_with_flipped_bits(tmp_path: Path, kind: str, changes: Any, kept: float) -> None:
    """In the header, where lengths, rates and formats are; and cut off."""
    data = flipped(SOUNDS[kind], changes, 200)
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(data[: max(1, int(len(data) * kept))])
    samples, refused = outcome(lambda: load_audio(path))
    if refused:
        assert refused.startswith(f"{path}: ")
        return
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert np.isfinite(samples).all()
    assert 0 < len(samples) < 10**8


CONTAINERS = ("faststart.m4a", "fragmented.mp4", "browser.webm", "windows.wma", "video.avi",
              "old.flv", "television.ts", "phone.amr", "packed.wv", "radio.aac")  # fmt: skip


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("containers")
    written = {
        name: tiny_media.write_kind(folder, name, lambda rate: tone(0.5, rate)).read_bytes()
        for name in CONTAINERS
    }
    file = io.BytesIO()
    soundfile.write(file, tone(0.5), RATE, format="OGG", subtype="OPUS")
    return written | {"a.opus": file.getvalue()}


@pytest.mark.filterwarnings("ignore::UserWarning")
@FUZZ
@given(name=st.sampled_from([*CONTAINERS, "a.opus"]), changes=flips, kept=st.floats(0.1, 1))
def test_containers_with_flipped_bits(
    recordings: dict[str, bytes], tmp_path: Path, name: str, changes: Any, kept: float
) -> None:
    data = recordings[name]
    path = tmp_path / name
    path.write_bytes(flipped(data, changes, 1500)[: max(1, int(len(data) * kept))])
    samples, refused = outcome(lambda: load_audio(path, max_duration=3600))
    assert refused.startswith(f"{path}: ") if refused else np.isfinite(samples).all()


@pytest.mark.parametrize("rate", [1, 999])
def test_a_rate_that_would_blow_a_file_up(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(0.5), rate)
    with pytest.raises(ValueError, match=f"a.wav: a sample rate of {rate} Hz"):
        load_audio(path)
    with pytest.raises(ValueError, match="raw PCM: a sample rate"):
        load_pcm(io.BytesIO(b"ab"), rate)
