"""From audio without text to a lighter encoder: prepare, merge, distill, export, as commands."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import baldwhisper_mlx
from baldwhisper_convert.cli.main import main
from baldwhisper_convert.compression.merge import MergeSettings
from baldwhisper_convert.data.prepared import SPEECH, Prepared
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_convert.pipeline.manifest import read_manifest, teacher_layers
from baldwhisper_convert.pipeline.model import Model
from baldwhisper_convert.pipeline.recipe import StageRecipe
from baldwhisper_convert.pipeline.search import SearchSettings
from baldwhisper_convert.pipeline.settings import plain_settings
from baldwhisper_convert.pipeline.stages import run_factorize, run_merge
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_convert.training.objectives import LossSettings
from tests.support.tiny import tiny_checkpoint, tiny_dims
from tests.support.tiny_encoders import encoder_teacher
from tests.support.tiny_speech import sound, tiny_speech

GROUPS = ((0, 1), (2,), (3,))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def done(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher with four encoder layers, and clips whose list has no text."""
    folder = tmp_path_factory.mktemp("lighter")
    dims = tiny_dims(n_audio_state=32, n_text_state=32, n_audio_layer=4, n_text_layer=1)
    export_mlx(tiny_checkpoint(dims, alignment_heads=None), folder / "teacher", dtype="float32")
    clips = tiny_speech(folder / "clips", 8, seconds=(1, 3))
    rows = [json.loads(line) for line in (clips / "metadata.jsonl").read_text().splitlines()]
    lines = [json.dumps({k: v for k, v in row.items() if k != "text"}) + "\n" for row in rows]
    (clips / "metadata.jsonl").write_text("".join(lines))
    audio = ["--set", "labels=none", "--set", "features=mel", "--set", "windows.full=0"]
    done("prepare", folder / "teacher", folder / "audio", "--data", clips, *audio)
    return folder


def test_audio_without_text_is_prepared(work: Path) -> None:
    data = Prepared(work / "audio")
    assert not data.labelled
    assert data.is_mel
    spoken = [window for window in data.windows if window.kind == SPEECH]
    assert spoken
    assert all(window.tokens == () and window.text == "" for window in spoken)
    refused = run("prepare", work / "teacher", work / "text", "--data", work / "clips")
    assert refused.exit_code == 1
    assert "no column text, sentence" in refused.output


@pytest.fixture(scope="module")
def student(work: Path) -> Path:
    output = done(
        "merge", work / "teacher", work / "student", "--part", "encoder", "--keep", "1,2,3",
        "--data", work / "audio",
    )  # fmt: skip
    assert "> keep 1,2,3" in output
    assert "error" in output
    assert "KL" not in output
    return work / "student"


def test_the_manifest_says_what_each_encoder_layer_stands_for(student: Path) -> None:
    manifest = read_manifest(student)
    assert manifest is not None
    assert manifest.teacher_encoder_layers == GROUPS
    assert manifest.teacher_layers == ((0,),)
    assert manifest.settings["merge"]["part"] == "encoder"
    assert manifest.metrics["error"] > 0
    assert (student / "layer_similarity.json").is_file()
    assert teacher_layers(student, 3, "encoder") == GROUPS
    with pytest.raises(ValueError, match=r"2 encoder layers, but manifest\.json lists"):
        teacher_layers(student, 2, "encoder")
    assert Model.of(read_checkpoint(student), student).encoder_groups == GROUPS


def test_the_student_learns_from_the_audio_and_transcribes(work: Path, student: Path) -> None:
    settings = ("training.epochs=2", "training.batch_size=2", 'training.freeze=["decoder.*"]',
                "loss.ce=0", "loss.kl=0", "loss.encoder=1")  # fmt: skip
    changes = [part for setting in settings for part in ("--set", setting)]
    arguments = ["--teacher", work / "teacher", "--data", work / "audio"]
    output = done(
        "distill", student, work / "trained", *arguments, *changes, "--dev", work / "audio"
    )
    assert "encoder_states" in output
    before, after = read_checkpoint(student), read_checkpoint(work / "trained")
    moved = {n for n, tensor in after.state.items() if not torch.equal(tensor, before.state[n])}
    assert moved
    assert all(name.startswith("encoder.") for name in moved)
    manifest = read_manifest(work / "trained")
    assert manifest is not None
    assert manifest.teacher_encoder_layers == GROUPS
    assert manifest.metrics["score"] > 0
    # Merged once more, the layers are still those of the first teacher.
    model = Model.of(after, work / "trained")
    smaller, _ = run_merge(model, MergeSettings(part="encoder", groups=(2, 1)), None, work / "x")
    assert smaller.encoder_groups == ((0, 1, 2), (3,))
    loaded = baldwhisper_mlx.load_model(work / "trained")
    assert loaded.config.n_audio_layer == 3
    transcript = baldwhisper_mlx.transcribe(sound(2.0), loaded, language="en", temperature=0.0)
    assert transcript.duration == pytest.approx(2.0)


RECIPE = """
teacher = "{teacher}"

[data.audio]
source = "{clips}"
labels = "none"
features = "mel"
windows = {{full = 0.0, silence = 0.0}}

[[stages]]
stage = "merge"
data = ["audio"]
speech = 2
merge = {{part = "encoder", method = "search", layers = 3}}

[[stages]]
stage = "distill"
data = ["audio"]
training = {{epochs = 1, batch_size = 2, freeze = ["decoder.*"]}}
loss = {{ce = 0, kl = 0, encoder = 1}}
"""


def test_a_recipe_makes_a_lighter_encoder(work: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    places = {"teacher": work / "teacher", "clips": work / "clips"}
    recipe.write_text(RECIPE.format(**{name: path.as_posix() for name, path in places.items()}))
    done("run", recipe, "--output", tmp_path / "out")
    found = read_checkpoint(tmp_path / "out/02-distill")
    assert found.dims.n_audio_layer == 3
    manifest = read_manifest(tmp_path / "out/02-distill")
    assert manifest is not None
    assert manifest.teacher_encoder_layers is not None
    assert len(manifest.teacher_encoder_layers) == 3
    again = done("run", recipe, "--output", tmp_path / "out")
    assert again.count("done already") == 2


def test_stages_that_need_text_say_so(work: Path, student: Path, tmp_path: Path) -> None:
    audio = ["--data", work / "audio"]
    for command, message in (
        (["finetune", student, tmp_path / "a", *audio], 'labels = "none"'),
        (["merge", work / "teacher", tmp_path / "b", "--method", "even", *audio], "decoder layers"),
        (["factorize", student, tmp_path / "c", "--rank", "4", *audio], "tokens of text"),
    ):
        result = run(*command)
        assert result.exit_code == 1
        assert message in result.output
        assert "Traceback" not in result.output


def test_settings_that_earlier_versions_did_not_have_do_not_undo_their_work() -> None:
    stage = StageRecipe(stage="merge")
    assert "part" not in stage.settings["merge"]
    assert "encoder" not in StageRecipe(stage="distill", data=("x",)).settings["loss"]
    assert plain_settings(LossSettings(encoder=2.0))["encoder"] == 2.0
    assert plain_settings(MergeSettings(part="encoder"))["part"] == "encoder"
    known = set(asdict(MergeSettings())) - {"part", "refit"}
    assert plain_settings(MergeSettings()).keys() == known


def test_manifests_of_earlier_versions_are_read(student: Path, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    raw: dict[str, Any] = json.loads((student / "manifest.json").read_text())
    del raw["teacher_encoder_layers"]
    path.write_text(json.dumps(raw))
    assert teacher_layers(tmp_path, 3, "encoder") == ((0,), (1,), (2,))
    path.write_text(json.dumps(raw | {"teacher_encoder_layers": [[1], [0]]}))
    with pytest.raises(ValueError, match="teacher_encoder_layers: not increasing groups"):
        read_manifest(tmp_path)


def test_the_search_for_weights_is_for_the_decoder() -> None:
    with pytest.raises(ValueError, match="for decoder layers"):
        SearchSettings(merge=MergeSettings(part="encoder"))


def test_factorize_leaves_the_encoder_groups(tmp_path: Path) -> None:
    from baldwhisper_convert.compression.factorize import FactorizeSettings
    from baldwhisper_convert.data.speech import open_speech
    from tests.support.tiny_prepared import tiny_prepared

    tiny_prepared(tmp_path / "speech", 6, silence=0)
    speech = open_speech([str(tmp_path / "speech")])
    merged, _ = run_merge(
        Model.of(encoder_teacher()), MergeSettings(part="encoder"), None, tmp_path
    )
    assert merged.encoder_groups == ((0, 1), (2, 3))
    factorized, _ = run_factorize(merged, FactorizeSettings(rank=4), speech, speech)
    assert factorized.encoder_groups == merged.encoder_groups
