"""Exports with constants for a padded audio context."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner, Result

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.cli.main import main
from baldwhisper_convert.export import mlx as export_module
from baldwhisper_convert.export.destination import ExportWarning
from baldwhisper_convert.export.hugging_face import export_hf
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_convert.export.quantize import QuantizeOptions
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_mlx import load_model
from baldwhisper_mlx.checkpoint.calibrate import write_padding
from baldwhisper_mlx.checkpoint.describe import describe_model
from baldwhisper_mlx.model.whisper import Whisper
from tests.support.tiny_speech import sound, tiny_speech, tiny_teacher

FILES = ["README.md", "config.json", "model.safetensors", "vocabulary.tiktoken"]
PADDED = sorted([*FILES, "padding.safetensors"])
CLIPS = [sound(2.5, seed) for seed in range(3)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


@pytest.fixture(scope="module")
def teacher() -> Checkpoint:
    return tiny_teacher()


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory, teacher: Checkpoint) -> Path:
    path = tmp_path_factory.mktemp("padded") / "model"
    return export_mlx(
        teacher, path, dtype="float32", calibration=CLIPS, padding_stride=16, padding_tail=50
    )


def test_the_constants_are_those_of_the_exported_weights(
    padded: Path, teacher: Checkpoint, tmp_path: Path
) -> None:
    assert names(padded) == PADDED
    padding = load_model(padded).model.padding
    assert padding is not None
    assert (padding.stride, padding.tail) == (16, 50)
    plain = export_mlx(teacher, tmp_path / "plain", dtype="float32")
    assert names(plain) == FILES
    write_padding(plain, CLIPS, stride=16, tail=50)
    again = load_model(plain).model.padding
    for name in ("keys", "values", "states"):
        assert np.array_equal(getattr(padding, name), getattr(again, name)), name


def test_the_defaults_are_the_runtimes(teacher: Checkpoint, tmp_path: Path) -> None:
    path = export_mlx(teacher, tmp_path / "m", calibration=CLIPS[:1])
    text = "padded (constants of 1 clip, stride 8, tail 100)"
    assert describe_model(path)["context"] == text
    assert text in (path / "README.md").read_text()
    given = load_model(path).model.padding
    write_padding(path, CLIPS[:1])
    default = load_model(path).model.padding
    assert given is not None
    assert default is not None
    assert (given.stride, given.tail) == (default.stride, default.tail) == (8, 100)


def test_card_and_info_say_so(padded: Path, teacher: Checkpoint, tmp_path: Path) -> None:
    text = "padded (constants of 3 clips, stride 16, tail 50)"
    card = (padded / "README.md").read_text()
    assert f"| audio context | {text} |" in card
    assert "`padding.safetensors` stands for the silence" in card
    assert describe_model(padded)["context"] == text
    plain = export_mlx(teacher, tmp_path / "plain")
    assert "padding" not in (plain / "README.md").read_text()
    assert describe_model(plain)["context"] == "full (always 30 s)"


def test_a_quantized_model_gets_its_own_constants(teacher: Checkpoint, tmp_path: Path) -> None:
    folders = [
        export_mlx(teacher, tmp_path / str(bits), calibration=CLIPS, quantize=quantize)
        for bits, quantize in ((16, None), (2, QuantizeOptions(bits=2, group_size=32)))
    ]
    # Width 16 is narrower than any group, so only the wider rows of mlp2 are quantized.
    states = [load_model(folder).model.padding for folder in folders]
    assert all(padding is not None for padding in states)
    exact, rounded = (np.array(padding.states) for padding in states if padding is not None)
    assert np.isfinite(rounded).all()
    assert not np.allclose(exact, rounded, atol=1e-2)


def test_the_padded_model_is_run(
    teacher: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """30 s and a short clip, of which the encoder gets less."""
    encoded: list[int] = []
    encode = Whisper.encode

    def counted(self: Whisper, mel: mx.array, n_frames: Any, cache: Any) -> None:
        encode(self, mel, n_frames, cache)
        encoded.append(self.audio_positions(n_frames[0]))

    monkeypatch.setattr(Whisper, "encode", counted)
    export_mlx(teacher, tmp_path / "plain")
    assert encoded == [1500]
    encoded.clear()
    export_mlx(teacher, tmp_path / "padded", calibration=CLIPS)
    assert encoded == [1500, 100]


def test_constants_that_are_not_finite(
    teacher: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflown(folder: Path, recordings: Any, **options: Any) -> Path:
        path = write_padding(folder, recordings, **options)
        tensors, metadata = mx.load(str(path), return_metadata=True)
        tensors["states"] = mx.full(tensors["states"].shape, float("inf"), mx.float16)
        mx.save_safetensors(str(path), tensors, metadata)
        return path

    monkeypatch.setattr("baldwhisper_mlx.checkpoint.calibrate.write_padding", overflown)
    with pytest.raises(ValueError, match=r"not finite .*padding\.safetensors"):
        export_mlx(teacher, tmp_path / "m", calibration=CLIPS)
    assert names(tmp_path) == []


@pytest.mark.parametrize("existing", [True, False])
def test_a_failing_calibration_changes_nothing(
    existing: bool, teacher: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if existing:
        export_mlx(teacher, tmp_path / "m", dtype="bfloat16")
    real = export_module._write_padding

    def failing(*arguments: Any) -> None:
        real(*arguments)
        raise OSError(28, "No space left")

    monkeypatch.setattr(export_module, "_write_padding", failing)
    with pytest.raises(OSError, match="No space left"):
        export_mlx(teacher, tmp_path / "m", calibration=CLIPS, force=True)
    assert names(tmp_path) == (["m"] if existing else [])
    if existing:
        assert names(tmp_path / "m") == FILES


class TestRefused:
    def test_no_recordings(self, teacher: Checkpoint, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no recordings to calibrate on"):
            export_mlx(teacher, tmp_path / "m", calibration=[])

    @pytest.mark.parametrize("context", ["trimmed", "dynamic"])
    def test_another_audio_context(self, context: Any, teacher: Checkpoint, tmp_path: Path) -> None:
        message = f"for the audio context full, but this model's is {context}.*--calibration"
        with pytest.raises(ValueError, match=message):
            export_mlx(replace(teacher, audio_context=context), tmp_path / "m", calibration=CLIPS)
        with pytest.raises(ValueError, match=message):
            export_mlx(teacher, tmp_path / "m", audio_context=context, calibration=CLIPS)
        assert names(tmp_path) == []

    @pytest.mark.parametrize("options", [{"padding_stride": 0}, {"padding_tail": 1501}])
    def test_settings_that_do_not_fit(
        self, options: Any, teacher: Checkpoint, tmp_path: Path
    ) -> None:
        with pytest.raises(ValueError, match=r"a stride of \d+ .*tail of \d+"):
            export_mlx(teacher, tmp_path / "m", calibration=CLIPS, **options)
        assert names(tmp_path) == []


class TestExportedAgain:
    def test_constants_stay_with_their_weights(self, padded: Path, tmp_path: Path) -> None:
        source = read_checkpoint(padded)
        with pytest.warns(ExportWarning, match=r"padding\.safetensors is not copied"):
            assert names(export_mlx(source, tmp_path / "a")) == FILES

    @pytest.mark.filterwarnings("error::UserWarning")
    def test_nothing_is_said_where_nothing_is_lost(self, padded: Path, tmp_path: Path) -> None:
        source = read_checkpoint(padded)
        assert names(export_mlx(source, tmp_path / "a", calibration=CLIPS)) == PADDED
        assert names(export_mlx(source, tmp_path / "b", audio_context="dynamic")) == FILES
        (shutil.copytree(padded, tmp_path / "c") / "padding.safetensors").unlink()
        export_mlx(read_checkpoint(tmp_path / "c"), tmp_path / "d")

    def test_hugging_face_folders_have_none(self, padded: Path, tmp_path: Path) -> None:
        folder = export_hf(read_checkpoint(padded), tmp_path / "hf")
        assert "padding.safetensors" not in names(folder)


class TestCommand:
    def test_a_folder_of_audio(self, padded: Path, tmp_path: Path) -> None:
        speech = tiny_speech(tmp_path / "speech", 8)
        (speech / "metadata.jsonl").unlink()
        arguments = (padded, tmp_path / "m", "--calibration", speech)
        result = run(*arguments, "--padding-stride", "4", "--padding-tail", "20")
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        text = "padded (constants of 6 clips, stride 4, tail 20)"
        assert describe_model(tmp_path / "m")["context"] == text

    def test_without_it_they_come_from_the_packages_speech(
        self, padded: Path, tmp_path: Path
    ) -> None:
        result = run(padded, tmp_path / "m", "--padding-tail", "40")
        assert result.exit_code == 0, result.output
        assert result.stderr == ""
        assert names(tmp_path / "m") == PADDED
        text = "padded (constants of 1 clip, stride 8, tail 40)"
        assert describe_model(tmp_path / "m")["context"] == text

    @pytest.mark.parametrize("context", ["trimmed", "dynamic"])
    @pytest.mark.parametrize("option", [(), ("--padding",)])
    def test_another_audio_context_gets_none(
        self, context: str, option: tuple[str, ...], teacher: Checkpoint, tmp_path: Path
    ) -> None:
        source = export_mlx(replace(teacher, audio_context=context), tmp_path / "source")
        result = run(source, tmp_path / "stored", *option)
        assert result.exit_code == 0, result.output
        assert names(tmp_path / "stored") == FILES
        source = export_mlx(teacher, tmp_path / "full")
        result = run(source, tmp_path / "named", "--audio-context", context, *option)
        assert result.exit_code == 0, result.output
        assert names(tmp_path / "named") == FILES

    def test_one_line_says_that_constants_are_lost(self, padded: Path, tmp_path: Path) -> None:
        result = run(padded, tmp_path / "m", "--no-padding")
        assert result.exit_code == 0, result.output
        assert result.stderr.startswith(f"Warning: {padded}: padding.safetensors is not copied")
        assert "--no-padding" in result.stderr
        assert result.stderr.count("\n") == 1
        assert names(tmp_path / "m") == FILES

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--format", "hf", "--calibration", "speech"),
            ("--format", "hf", "--padding"),
            ("--no-padding", "--padding-stride", "8"),
            ("--no-padding", "--padding-tail", "100"),
            ("--no-padding", "--calibration", "speech"),
            ("--calibration", "speech", "--padding-stride", "0"),
            ("--calibration", "speech", "--padding-stride", "51"),
        ],
    )
    def test_wrong_usage(self, arguments: tuple[str, ...], padded: Path, tmp_path: Path) -> None:
        result = run(padded, tmp_path / "m", *arguments)
        assert result.exit_code == 2
        assert "--calibration" in result.stderr or "--padding-stride" in result.stderr
        assert names(tmp_path) == []

    def test_bad_speech_is_refused_before_the_source_is_read(self, tmp_path: Path) -> None:
        result = run(tmp_path / "no such source", tmp_path / "m", "--calibration", tmp_path / "no")
        assert result.exit_code == 1
        assert result.stderr == f"Error: {tmp_path / 'no'}: no such file or folder\n"

    def test_another_audio_context(self, padded: Path, tmp_path: Path) -> None:
        speech = tiny_speech(tmp_path / "speech", 1)
        arguments = ("--calibration", speech, "--audio-context", "trimmed")
        result = run(padded, tmp_path / "m", *arguments)
        assert result.exit_code == 1
        assert "calibration is for the audio context full" in result.stderr
        assert result.stderr.count("\n") == 1
        assert not (tmp_path / "m").exists()
