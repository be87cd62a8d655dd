"""All stages on a tiny random model and synthetic clips: recipe in, transcript out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

import baldwhisper_mlx
from baldwhisper_convert.cli.main import main
from baldwhisper_convert.pipeline.manifest import read_manifest
from baldwhisper_convert.readers.read import read_checkpoint
from tests.support.tiny import tiny_dims, tiny_hf_folder, tiny_hf_model

CLIPS = 20

RECIPE = """
teacher = "{teacher}"

[data.labelled]
source = "nowhere"
features = "mel"
[data.labelled.windows]
full = 0.0

[data.speech]
source = "nowhere"
passes = 2

[data.dev]
source = "nowhere"
[data.dev.windows]
single = 1.0
silence = 0.0

[texts]
words = "nowhere.txt"

[[stages]]
stage = "finetune"
data = ["labelled"]
[stages.training]
epochs = 1
batch_size = 4
freeze = []

[[stages]]
stage = "merge"
data = ["speech"]
[stages.merge]
groups = [1, 2]

[[stages]]
stage = "distill"
data = ["speech"]
dev = "dev"
[stages.training]
epochs = 1
batch_size = 4
ema = 0.9
[stages.loss]
hidden = 1.0

[[stages]]
stage = "factorize"
data = ["speech"]
texts = ["words"]
dev = "dev"
[stages.factorize]
rank = 16
dense_rows = 20

[[stages]]
stage = "distill"
data = ["speech:0.5"]
[stages.training]
epochs = 1
batch_size = 4
[stages.loss]
embedding = 0.1
projection = 0.1
"""


def speech(folder: Path) -> Path:
    """Tones of a second or two in `audiofolder` form."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for i in range(CLIPS):
        seconds = 1 + i % 3 / 2
        time = np.arange(round(16_000 * seconds)) / 16_000
        sound = 0.3 * np.sin(2 * np.pi * (200 + 50 * i) * time) + 0.01 * rng.standard_normal(
            len(time)
        )
        soundfile.write(folder / f"{i:02}.wav", sound, 16_000)
        row = {"file_name": f"{i:02}.wav", "text": f"the tone number {i}", "speaker": str(i // 5)}
        rows.append(json.dumps(row))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("end_to_end")
    teacher = tiny_hf_folder(folder / "teacher", tiny_hf_model(tiny_dims()))
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(teacher=teacher.as_posix()))
    clips = speech(folder / "clips")
    given = ["run", str(recipe), "--output", str(folder / "out")]
    for name in ("labelled", "speech", "dev"):
        given += ["--data", f"{name}={clips}"]
    (folder / "words.txt").write_text("the tones and their numbers\n")
    return [*given, "--text", f"words={folder / 'words.txt'}"]


@pytest.fixture(scope="module")
def finished(arguments: list[str]) -> Path:
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return Path(arguments[3])


def test_every_stage_leaves_a_model_and_its_manifest(finished: Path) -> None:
    folders = sorted(path for path in finished.iterdir() if path.name[:2].isdigit())
    names = [path.name for path in folders]
    assert names == ["01-finetune", "02-merge", "03-distill", "04-factorize", "05-distill"]
    before = None
    for folder in folders:
        manifest = read_manifest(folder)
        assert manifest is not None
        assert manifest.parent != before
        before = manifest.parent
        assert manifest.versions["torch"]
    assert manifest.teacher_layers == ((0,), (1, 2))
    assert manifest.metrics["steps"] >= 1
    assert (finished / "03-distill/log.jsonl").stat().st_size > 0
    assert (finished / "02-merge/layer_similarity.json").is_file()


def test_the_student_is_smaller_and_factorized(finished: Path) -> None:
    student = read_checkpoint(finished / "05-distill")
    assert student.dims.n_text_layer == 2
    assert student.embedding.rank == 16
    assert student.embedding.dense_rows == 20


def test_a_second_run_does_nothing_again(finished: Path, arguments: list[str]) -> None:
    before = (finished / "05-distill/model.safetensors").stat().st_mtime_ns
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.output.count("done already") == 5
    assert (finished / "05-distill/model.safetensors").stat().st_mtime_ns == before


def test_other_settings_are_refused_without_force(
    finished: Path, arguments: list[str], tmp_path: Path
) -> None:
    text = Path(arguments[1]).read_text().replace("rank = 16", "rank = 8")
    other = tmp_path / "other.toml"
    other.write_text(text)
    result = CliRunner().invoke(main, ["run", str(other), *arguments[2:]])
    assert result.exit_code == 1
    assert "made with other settings" in result.output
    assert read_checkpoint(finished / "04-factorize").embedding.rank == 16


def test_the_exported_student_transcribes(finished: Path, tmp_path: Path) -> None:
    model = tmp_path / "student"
    result = CliRunner().invoke(
        main, ["export", str(finished / "05-distill"), str(model)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    clip = next((finished.parent / "clips").glob("*.wav"))
    loaded = baldwhisper_mlx.load_model(model)
    transcript = baldwhisper_mlx.transcribe(clip, loaded, language="en", temperature=0.0)
    assert transcript.duration == pytest.approx(soundfile.info(clip).duration, abs=0.01)
    # The runtime reads the stage folder itself too.
    whole = baldwhisper_mlx.load_model(finished / "05-distill")
    assert whole.config.n_text_layer == loaded.config.n_text_layer == 2


def test_unknown_data_is_refused(arguments: list[str]) -> None:
    for kind in ("data", "text"):
        result = CliRunner().invoke(main, [*arguments, f"--{kind}", "other=x"])
        assert result.exit_code == 1
        assert f"no {kind} called other" in result.output


def test_noise_needs_a_recipe_that_mixes_it(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, [*arguments, "--noise", "streets"])
    assert result.exit_code == 1
    assert "no augmentation.recordings to replace by streets" in result.output
