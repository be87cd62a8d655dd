"""Bad and unusual input: audio, model folders and options that people will try."""

from __future__ import annotations

import importlib
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
from click.testing import CliRunner

from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.audio.recording import MissingAudioWarning
from baldwhisper_mlx.checkpoint.load import LoadedModel, load_model
from baldwhisper_mlx.cli.main import cli
from baldwhisper_mlx.transcription.transcribe import transcribe
from tests.runtime.conftest import RATE, tiny_config, tone


@pytest.fixture(scope="module")
def model(model_folder: Path) -> LoadedModel:
    return load_model(model_folder)


def noise(seconds: float) -> Any:
    return np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * RATE))


def written(path: Path, samples: Any, rate: int = RATE, **options: Any) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


# ---- audio that must be refused, with a message that names the file


def refused(path: Path, message: str, error: type[Exception] = ValueError) -> None:
    with pytest.raises(error) as caught:
        load_audio(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "gone.wav", "no such file", FileNotFoundError)


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    refused(tmp_path / "a.wav", "empty")


def test_text_renamed_wav(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("Dear diary, today I recorded nothing.\n" * 50)
    refused(tmp_path / "a.wav", "decode it")


@pytest.mark.parametrize(
    "magic", [b"\0\0\0\x20ftypM4A ", b"RIFF\0\2\0\0AVI ", b"\xff\xfb", b"caff"]
)
def test_the_beginning_of_a_format_and_nothing_more(tmp_path: Path, magic: bytes) -> None:
    (tmp_path / "a.m4a").write_bytes(magic + bytes(500))
    refused(tmp_path / "a.m4a", "")


@pytest.mark.parametrize("kind", ["flac", "wav", "aiff", "au", "w64", "rf64", "caf", "mp3"])
@pytest.mark.parametrize("kept", [0.98, 0.5, 0.1])
def test_truncated_file(tmp_path: Path, kind: str, kept: float) -> None:
    path = written(tmp_path / f"a.{kind}", noise(3.0), format=kind.upper())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.warns(MissingAudioWarning, match="cut off: .* missing at its end"):
        samples = load_audio(path)
    assert kept - 0.12 < len(samples) / (3 * RATE) < kept + 0.02
    with pytest.raises(ValueError, match=f"{path.name}: .*cut off"):
        load_audio(path, strict=True)


@pytest.mark.parametrize("kind", ["ogg", "mp3"])
def test_joined_recordings_are_not_halved(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / f"a.{kind}", noise(20.0))
    assert abs(len(load_audio(path)) - 20 * RATE) < RATE // 10
    path.write_bytes(path.read_bytes() * 2)
    assert abs(len(load_audio(path)) - 40 * RATE) < RATE // 5


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_truncated_stream(tmp_path: Path, kind: str) -> None:
    data = written(tmp_path / f"a.{kind}", tone(3.0)).read_bytes()
    with pytest.warns(MissingAudioWarning, match="<stream>: .*cut off: 1.[5-9] s"):
        assert len(load_audio(io.BytesIO(data[: len(data) // 2]))) < 1.6 * RATE


@pytest.mark.parametrize("kind", ["wav", "aiff", "ogg"])
def test_no_samples(tmp_path: Path, kind: str) -> None:
    refused(written(tmp_path / f"a.{kind}", np.zeros(0)), "0 samples")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_numbers(tmp_path: Path, bad: float) -> None:
    samples = tone()
    samples[100] = bad
    refused(written(tmp_path / "a.wav", samples, subtype="FLOAT"), "NaN or infinite")


# ---- audio that must work


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_sample_formats(tmp_path: Path, subtype: str) -> None:
    samples = load_audio(written(tmp_path / "a.wav", tone(), subtype=subtype))
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, tone(), atol=1 / 100 if subtype == "PCM_U8" else 1e-4)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000])
def test_sample_rates(tmp_path: Path, rate: int) -> None:
    samples = load_audio(written(tmp_path / "a.wav", tone(1.0, rate), rate))
    assert abs(len(samples) - RATE) <= 1
    middle = slice(1000, 15_000)  # resampling rings at the edges
    np.testing.assert_allclose(samples[middle], tone()[middle], atol=2e-3)


@pytest.mark.parametrize("channels", [2, 6])
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    gains = np.arange(1, channels + 1) / channels
    samples = load_audio(written(tmp_path / "a.wav", tone()[:, None] * gains))
    np.testing.assert_allclose(samples, tone() * gains.mean(), atol=1e-3)


@pytest.mark.parametrize(
    "name", ["two words.wav", "v1.2.final.wav", "ɔ̀ 日本 é😀.wav", "no-extension"]
)
def test_file_names(tmp_path: Path, name: str) -> None:
    written(tmp_path / "a.wav", tone()).rename(tmp_path / name)
    assert len(load_audio(tmp_path / name)) == RATE
    assert len(load_audio(str(tmp_path / name))) == RATE


@pytest.mark.parametrize("kind", ["flac", "ogg", "opus", "mp3", "aiff"])
def test_containers(tmp_path: Path, kind: str) -> None:
    options = {"format": "OGG", "subtype": "OPUS"} if kind == "opus" else {}
    path = written(tmp_path / f"a.{kind}", tone(), **options)
    for source in (path, io.BytesIO(path.read_bytes())):
        assert abs(len(load_audio(source)) - RATE) < RATE // 10


def test_a_wav_written_into_a_pipe_has_no_length_and_is_whole(tmp_path: Path) -> None:
    data = bytearray(written(tmp_path / "a.wav", tone()).read_bytes())
    struct.pack_into("<I", data, 4, 0xFFFFFFFF)
    struct.pack_into("<I", data, data.index(b"data") + 4, 0xFFFFFFFF)
    assert len(load_audio(io.BytesIO(data))) == RATE


def test_a_flac_written_into_a_pipe_has_no_length_and_is_whole(tmp_path: Path) -> None:
    data = bytearray(written(tmp_path / "a.flac", tone()).read_bytes())
    assert data[4] & 0x7F == 0  # STREAMINFO; its total samples are 36 bits that end at byte 26
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    samples = load_audio(io.BytesIO(data))
    np.testing.assert_allclose(samples, tone(), atol=1e-4)


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param(np.zeros(160, np.float32), id="10-ms"),
        pytest.param(np.full(1, 0.1, np.float32), id="one-sample"),
        pytest.param(np.zeros(2 * RATE, np.float32), id="silence"),
        pytest.param(
            np.sign(np.random.default_rng(0).standard_normal(2 * RATE)).astype(np.float32),
            id="full-scale-noise",
        ),
        pytest.param(tone(31.0), id="just-over-a-window"),
    ],
)
def test_any_sound_gives_a_transcript(model: LoadedModel, samples: Any, tmp_path: Path) -> None:
    transcript = transcribe(
        written(tmp_path / "a.wav", samples, subtype="FLOAT"), model, temperature=0.0
    )
    assert transcript.duration == len(samples) / RATE
    assert transcript.language in (("en", "fr") if transcript.segments else (None,))
    json.dumps(transcript.to_dict(), allow_nan=False)
    assert [segment.id for segment in transcript.segments] == [*range(len(transcript.segments))]


# ---- models and options


@pytest.fixture
def damaged(tmp_path: Path, model_folder: Path) -> Path:
    """A copy of the model for a test to damage."""
    return Path(shutil.copytree(model_folder, tmp_path / "damaged"))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocabulary.tiktoken"])
def test_a_file_of_the_model_is_missing(damaged: Path, name: str) -> None:
    (damaged / name).unlink()
    with pytest.raises(ValueError, match=rf"damaged: {name} is missing"):
        load_model(damaged)


@pytest.mark.parametrize("name", ["model-00002-of-00002.safetensors", "weights.npz"])
def test_a_second_weights_file(damaged: Path, name: str) -> None:
    shutil.copy(damaged / "model.safetensors", damaged / name)
    with pytest.raises(ValueError, match=rf"damaged: weights besides model\.safetensors: {name}"):
        load_model(damaged)
    (damaged / name).rename(damaged / "notes.txt")
    assert load_model(damaged).path == damaged


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights(damaged: Path, kept: float) -> None:
    path = damaged / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ValueError, match=r"model\.safetensors: .*truncated"):
        load_model(damaged)


def test_weights_that_are_something_else(damaged: Path) -> None:
    path = damaged / "model.safetensors"
    for data in (b"<html>404</html>" * 10, struct.pack("<Q", 10) + b"not a json", b"\xff" * 100):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"model\.safetensors: "):
            load_model(damaged)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    import mlx.core as mx

    path = folder / "model.safetensors"
    weights = dict(mx.load(str(path)))
    mx.eval(weights)
    change(weights)
    path.unlink()  # the arrays above may be mapped from the old file
    mx.save_safetensors(str(path), weights)


@pytest.mark.parametrize("what", ["missing", "unexpected", "shape"])
def test_tensors_that_do_not_match_the_config(damaged: Path, what: str) -> None:
    import mlx.core as mx

    name = "encoder.conv1.bias"
    if what == "missing":
        rewrite(damaged, lambda weights: weights.pop(name))
    elif what == "unexpected":
        rewrite(damaged, lambda weights: weights.update(extra=mx.zeros(3)))
    else:
        rewrite(damaged, lambda weights: weights.update({name: mx.zeros(3)}))
    with pytest.raises(ValueError, match=f"{what}.*{'extra' if what == 'unexpected' else name}"):
        load_model(damaged)


def test_damaged_weights_raise_instead_of_writing_nonsense(damaged: Path) -> None:
    import mlx.core as mx

    bias = mx.full((32,), float("nan"))
    rewrite(damaged, lambda weights: weights.update({"decoder.ln.bias": bias}))
    with pytest.raises(FloatingPointError, match="NaN"):
        transcribe(tone(), load_model(damaged))


def test_a_vocabulary_that_is_something_else(damaged: Path) -> None:
    (damaged / "vocabulary.tiktoken").write_text("not a vocabulary")
    with pytest.raises(ValueError, match=r"vocabulary\.tiktoken: line 1"):
        load_model(damaged)


def test_a_config_of_another_version(damaged: Path) -> None:
    raw = tiny_config().to_dict() | {"format_version": 99}
    (damaged / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=r"config\.json: .*format_version 99"):
        load_model(damaged)


def test_bad_models_end_the_command_with_1_and_one_line(damaged: Path, wav: Path) -> None:
    (damaged / "model.safetensors").write_bytes(b"")
    for name in (str(damaged), str(damaged / "gone"), str(wav)):
        result = CliRunner().invoke(cli, ["transcribe", "-m", name, str(wav)])
        assert (result.exit_code, result.stdout) == (1, "")
        assert isinstance(result.exception, SystemExit)
        assert name in result.stderr


def test_an_unknown_language_is_reported_once_with_those_there_are(
    model_folder: Path, wav: Path
) -> None:
    args = ["transcribe", "-m", str(model_folder), str(wav), str(wav), "-l", "klingon"]
    result = CliRunner().invoke(cli, args)
    assert result.exit_code == 1
    assert result.stderr.count("klingon") == 1
    for known in ("en (english)", "fr (french)"):
        assert known in result.stderr


@pytest.mark.parametrize("language", ["fr", "FR", "French", "french "])
def test_a_language_by_code_or_name(model: LoadedModel, language: str) -> None:
    assert transcribe(tone(), model, language=language, temperature=0.0).language == "fr"


def test_the_library_refuses_what_is_not_audio(model: LoadedModel) -> None:
    for samples in (np.zeros((2, 2, 100), np.float32), np.zeros(0), np.array([np.nan])):
        with pytest.raises(ValueError, match="audio: "):
            transcribe(samples, model)
    for other in (b"RIFF", np.zeros(100, np.int32), None, 3, ["a"], [[0.1], [0.1, 0.2]], [1, 2]):
        with pytest.raises(TypeError, match=r"audio: .*give "):
            transcribe(other, model)  # type: ignore[arg-type]
    for task in ("summarize", ""):
        with pytest.raises(ValueError, match="unknown task"):
            transcribe(tone(), model, task=task)
    with pytest.raises(ValueError, match="temperature"):
        transcribe(tone(), model, temperature=-0.5)


def test_the_module_under_test_is_the_package_one() -> None:
    package = importlib.import_module("baldwhisper_mlx")
    assert package.transcribe is transcribe
    assert package.load_model is load_model
