"""The recipes of the repository on tiny models and stand-ins of their data.

They run as they stand but for the number of passes over the data, which is one.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

import baldwhisper_mlx
from baldwhisper_convert.checkpoint.checkpoint import fingerprint
from baldwhisper_convert.cli.main import main
from baldwhisper_convert.data import labels
from baldwhisper_convert.data.batches import Batch
from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_convert.model.prompts import Prompts
from baldwhisper_convert.model.whisper import Whisper
from baldwhisper_convert.pipeline.manifest import read_manifest
from baldwhisper_convert.pipeline.recipe import read_recipe
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_convert.training.log import LOG_FILE, read_log
from baldwhisper_convert.training.objectives import Terms
from baldwhisper_convert.training.replay import FullContext
from baldwhisper_mlx.config import SAMPLE_RATE
from benchmarks.reproduction import measure
from tests.support.benchmark_runs import run_variants
from tests.support.tiny import tiny_dims, tiny_hf_folder, tiny_hf_model
from tests.support.tiny_speech import sound, tiny_speech

ROOT = Path(__file__).resolve().parents[3]


def run(
    recipe: Path, folder: Path, teacher: Path, data: dict[str, Path], *more: str, trainings: int = 3
) -> None:
    """Runs a copy of the recipe in which every training passes over the data once."""
    pattern = r"^epochs = [\d.]+$"
    text, times = re.subn(pattern, "epochs = 1", recipe.read_text("utf-8"), flags=re.M)
    assert times == trainings
    text = text.replace("dense_rows = 28000", "dense_rows = 50")  # of a vocabulary of 2,000
    short = folder / recipe.name
    short.write_text(text, encoding="utf-8")
    given = [word for name, source in data.items() for word in ("--data", f"{name}={source}")]
    arguments = ["run", str(short), "--teacher", str(teacher), "--output", str(folder / "out")]
    result = CliRunner().invoke(main, [*arguments, *given, *more])
    assert result.exit_code == 0, result.output


def wide_teacher(folder: Path, layers: int) -> Path:
    """As wide as rank 96 needs, with so many decoder layers."""
    width = {"n_audio_state": 128, "n_text_state": 128}
    dims = tiny_dims(**width, n_audio_layer=1, n_text_layer=layers)
    return tiny_hf_folder(folder, tiny_hf_model(dims))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With pairs of decoder layers."""
    return wide_teacher(tmp_path_factory.mktemp("teacher") / "model", layers=4)


def jeli_asr(folder: Path, train: int = 17) -> Path:
    """The schema of RobotsMali/jeli-asr: audio, duration, bam and french; splits train and test."""
    import datasets

    folder.mkdir()
    for split, count in (("train", train), ("test", 2)):
        columns: dict[str, list[object]] = {"audio": [], "duration": [], "bam": [], "french": []}
        for number in range(count):
            seconds = 0.4 + number % 3 / 4
            file = io.BytesIO()
            soundfile.write(file, sound(seconds, number), SAMPLE_RATE, format="WAV")
            columns["audio"].append({"bytes": file.getvalue(), "path": f"{split}-{number}.wav"})
            columns["duration"].append(seconds)
            columns["bam"].append(f"i ni ce {number}")
            columns["french"].append(f"bonjour {number}")
        data = datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio())
        data.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def librispeech(folder: Path, count: int = 9) -> Path:
    """The schema of facebook/multilingual_librispeech, with the split that the recipe names."""
    import datasets

    (folder / "data").mkdir(parents=True)  # only there are splits found whatever their name
    columns: dict[str, list[object]] = {"audio": [], "transcript": [], "speaker_id": []}
    for number in range(count):
        file = io.BytesIO()
        soundfile.write(file, sound(0.5 + number / 9, number), SAMPLE_RATE, format="WAV")
        columns["audio"].append({"bytes": file.getvalue(), "path": f"{number}.opus"})
        columns["transcript"].append(f"bonjour {number}")
        columns["speaker_id"].append("1")
    data = datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio())
    data.to_parquet(folder / "data/9_hours-00000-of-00001.parquet")
    return folder


PAPER = ("finetune", "merge", "distill", "factorize", "distill")
ONE_DISTILLATION = ("finetune", "merge", "factorize", "distill")


def check(
    folder: Path,
    dynamic: bool,
    layers: int = 2,
    kinds: tuple[str, ...] = PAPER,
    rank: int | None = 96,
) -> None:
    """All stages are there, and the last one has so many decoder layers and transcribes."""
    names = [f"{number:02}-{kind}" for number, kind in enumerate(kinds, start=1)]
    assert [path.name for path in sorted(folder.glob("0*"))] == names
    for name, kind in zip(names, kinds, strict=True):
        manifest = read_manifest(folder / name)
        assert manifest is not None
        assert manifest.stage == kind
    loaded = baldwhisper_mlx.load_model(folder / names[-1])
    assert loaded.config.audio_context == ("dynamic" if dynamic else "full")
    assert (loaded.config.n_text_layer, loaded.config.embedding_rank) == (layers, rank)
    transcript = baldwhisper_mlx.transcribe(np.zeros(8000, np.float32), loaded, temperature=0.0)
    assert transcript.duration == 0.5


@pytest.fixture
def french_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the teacher writes; one of random weights never ends."""

    def decode(
        model: Any, states: torch.Tensor, mask: Any, prompts: Prompts, **_: Any
    ) -> list[list[int]]:
        assert prompts.language == "fr"
        assert states.shape[1] == 1500
        text = prompts.tokenizer.encode(" bonjour")
        return [[prompts.timestamp(0), *text, prompts.timestamp(0.4)]] * len(states)

    monkeypatch.setattr(labels, "decode_greedy", decode)


@pytest.mark.usefixtures("french_labels")
def test_bambara(teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    source = jeli_asr(tmp_path / "jeli-asr", train=25)
    data = {"train": source, "dev": source, "french": librispeech(tmp_path / "french")}
    run(ROOT / "recipes/bambara-jeli-asr.toml", tmp_path, teacher, data, "--skip-bad")
    check(tmp_path / "out", dynamic=False)
    sizes = {
        path.parent.name.partition("-")[0]: len(path.read_text(encoding="utf-8").splitlines())
        for path in tmp_path.glob("out/prepared/*/windows.jsonl")
    }
    assert (sizes["dev"], sizes["train"]) == (1, 24)  # dev is what training does not see
    check_replay(tmp_path / "out", "01-finetune", "03-distill", "05-distill")


def check_replay(folder: Path, *stages: str) -> None:
    """The trainings had French in their batches, and the original model as its teacher there."""
    taught = set()
    for stage in stages:
        manifest = read_manifest(folder / stage)
        assert manifest is not None
        taught.add(manifest.data["replay"].partition("teacher ")[2])
        rows = [row for row in read_log(folder / stage / LOG_FILE) if "replay" in row]
        assert rows
        # Before the first step, what is fine-tuned is the original itself.
        assert all(row["replay"] > 0 for row in rows if stage != "01-finetune")
    assert len(taught) == 1


def mboshi(recipe: Path, folder: Path, teacher: Path, trainings: int = 3) -> None:
    """Runs one of the recipes for Mboshi on 16 clips and 3 to choose by."""
    names = set(read_recipe(recipe).data)
    assert names <= {"train", "dev", "states", "dev_states"}
    speech = {name: tiny_speech(folder / name, n) for name, n in (("train", 16), ("dev", 3))}
    data = {name: speech["dev" if name.startswith("dev") else "train"] for name in names}
    noise = tiny_speech(folder / "noise", 2)
    run(recipe, folder, teacher, data, "--noise", str(noise), trainings=trainings)


def test_mboshi_with_augmented_speech(tmp_path: Path) -> None:
    teacher = wide_teacher(tmp_path / "teacher", layers=6)
    mboshi(ROOT / "recipes/mboshi-augmented.toml", tmp_path, teacher, trainings=2)
    check(tmp_path / "out", True, 3, ONE_DISTILLATION, rank=80)
    for folder in ("train", "states-*"):
        (windows,) = tmp_path.glob(f"out/prepared/{folder}/windows.jsonl")
        assert len(windows.read_text(encoding="utf-8").splitlines()) == 3 * 16


def test_mboshi_with_four_layers(tmp_path: Path) -> None:
    """Its teacher is fine-tuned already."""
    teacher = wide_teacher(tmp_path / "teacher", layers=6)
    tuned = export_mlx(read_checkpoint(teacher), tmp_path / "tuned", audio_context="dynamic")
    mboshi(ROOT / "recipes/mboshi-four-layers.toml", tmp_path, tuned, trainings=1)
    check(tmp_path / "out", True, 4, ONE_DISTILLATION[1:], rank=128)
    manifest = read_manifest(tmp_path / "out/01-merge")
    assert manifest is not None
    assert manifest.settings["merge"]["keep"] == [0, 2, 3, 5]


def test_mboshi_with_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The French teacher was trained on 30 s, and gets them although the clips are dynamic."""
    encoded: list[tuple[int, ...]] = []
    forward = FullContext.forward

    def watched(self: FullContext, student: Whisper, batch: Batch) -> Terms:
        hook = self.teacher.encoder.register_forward_hook(
            lambda module, args, output: encoded.append(tuple(output.shape))
        )
        try:
            return forward(self, student, batch)
        finally:
            hook.remove()

    monkeypatch.setattr(FullContext, "forward", watched)
    teacher = wide_teacher(tmp_path / "teacher", layers=6)
    speech = {"train": 14, "dev": 3, "french": 5}
    folders = {name: tiny_speech(tmp_path / name, n) for name, n in speech.items()}
    stored = {"states": "train", "dev_states": "dev", "french_states": "french"}
    data = folders | {name: folders[same] for name, same in stored.items()}
    noise = str(tiny_speech(tmp_path / "noise", 2))
    recipe = ROOT / "recipes/mboshi-replay.toml"
    run(recipe, tmp_path, teacher, data, "--noise", noise, trainings=2)
    check(tmp_path / "out", True, 3, ONE_DISTILLATION, rank=80)
    check_replay(tmp_path / "out", "01-finetune")
    manifest = read_manifest(tmp_path / "out/04-distill")
    assert manifest is not None
    learned = {name.partition("-")[0] for name in manifest.data}
    assert learned == {"states", "french_states", "dev_states"}
    assert {shape[1] for shape in encoded} == {1500}
    assert {shape[0] for shape in encoded} == {2}  # of 16


def test_mboshi_with_clips_of_both_languages(tmp_path: Path) -> None:
    """It begins with a fine-tuned model, and keeps what the model before it predicts."""
    teacher = wide_teacher(tmp_path / "teacher", layers=2)
    tuned = export_mlx(read_checkpoint(teacher), tmp_path / "tuned", audio_context="dynamic")
    speech = {"train": 8, "dev": 3, "french": 5, "switched": 2}
    data = {name: tiny_speech(tmp_path / name, n) for name, n in speech.items()}
    add_turns(data["switched"])
    more = ("--noise", str(tiny_speech(tmp_path / "noise", 2)), "--start", str(tuned))
    recipe = ROOT / "recipes/mboshi-switched.toml"
    run(recipe, tmp_path, teacher, data, *more, trainings=1)
    check(tmp_path / "out", True, 2, ("finetune",), rank=None)
    check_replay(tmp_path / "out", "01-finetune")
    manifest = read_manifest(tmp_path / "out/01-finetune")
    assert manifest is not None
    assert manifest.parent == fingerprint(read_checkpoint(tuned))
    assert {"train", "switched"} <= manifest.data.keys()


def test_mboshi_with_two_languages(tmp_path: Path) -> None:
    """The student's last training has both languages, and clips of both, from stored states."""
    teacher = wide_teacher(tmp_path / "teacher", layers=6)
    speech = {"train": 14, "dev": 3, "french": 5, "switched": 3}
    folders = {name: tiny_speech(tmp_path / name, n) for name, n in speech.items()}
    add_turns(folders["switched"])
    stored = {"states": "train", "dev_states": "dev"}
    stored |= {f"{name}_states": name for name in ("french", "switched")}
    data = folders | {name: folders[same] for name, same in stored.items()}
    noise = str(tiny_speech(tmp_path / "noise", 2))
    recipe = ROOT / "recipes/mboshi-two-languages.toml"
    run(recipe, tmp_path, teacher, data, "--noise", noise, trainings=3)
    kinds = ("finetune", "finetune", "merge", "factorize", "distill")
    check(tmp_path / "out", True, 3, kinds, rank=128)
    check_replay(tmp_path / "out", "01-finetune", "02-finetune")
    manifest = read_manifest(tmp_path / "out/05-distill")
    assert manifest is not None
    learned = {name.partition("-")[0] for name in manifest.data}
    assert learned == {"states", "french_states", "switched_states", "dev_states"}


def add_turns(folder: Path) -> None:
    """Makes clips of two languages of those in a folder."""
    listed = folder / "metadata.jsonl"
    rows = [json.loads(line) for line in listed.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["text"] = "wa demain"
        row["turns"] = [
            {"start": 0.0, "end": 0.1, "language": "ln", "text": "wa"},
            {"start": 0.1, "end": 0.2, "language": "fr", "text": "demain"},
        ]
    listed.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_mboshi(teacher: Path, tmp_path: Path) -> None:
    mboshi(ROOT / "recipes/mboshi.toml", tmp_path, teacher)
    check(tmp_path / "out", dynamic=True)
    config = json.loads((tmp_path / "out/03-distill/config.json").read_text(encoding="utf-8"))
    assert config["audio_context"] == "dynamic"
    variants(tmp_path / "out", tmp_path / "variants")


def test_tiny_en(teacher: Path, tmp_path: Path) -> None:
    """With recorded noise from the folder that is named, of which the recipe's does not exist."""
    recipe = ROOT / "recipes/tiny-en.toml"
    names = ("read", "accents", "voice", "read_in_noise", "accents_in_noise", "dev")
    data = {name: tiny_speech(tmp_path / name, 3 if name == "dev" else 12) for name in names}
    noise = tiny_speech(tmp_path / "noise", 2)
    words = tmp_path / "words.txt"
    words.write_text("the quick brown fox\n", encoding="utf-8")
    texts = [part for name in ("english", "sentences") for part in ("--text", f"{name}={words}")]
    run(recipe, tmp_path, teacher, data, "--noise", str(noise), *texts, trainings=2)
    check(tmp_path / "out", True, 4, ("finetune", "factorize", "distill"), rank=64)
    for name in ("read", "accents_in_noise"):
        prepared = json.loads((tmp_path / "out/prepared" / name / "prepared.json").read_text())
        assert prepared["report"]["settings"]["augmentation"]["recordings"] == str(noise)


def variants(run: Path, output: Path) -> None:
    """Some variants of benchmarks.reproduction: trained once, compared within a group."""
    names = ("merged", "upper", "rank 96", "random start", "both at once", "sequential")
    options = ("--epochs", "1", "--share", "0.5")
    printed, found = run_variants(measure.main, {"teacher": run}, output, names, *options)
    assert printed.count(": WER") == 11
    rows = found["variants"]
    assert list(rows) == [
        "merged", "merged, another seed", "upper layers kept", "merged, no KL",
        "merged equally", "merged, upper weighs ten", "merged, layers compared",
        "factorized, rank 96", "random start", "both at once", "sequential",
    ]  # fmt: skip
    assert (found["windows"], found["share"]) == (3, 0.5)
    for first in ("merged", "factorized, rank 96"):
        assert rows[first]["difference_interval"] == [0.0, 0.0]
    assert rows["merged"]["parameters"] > rows["both at once"]["parameters"]
    first_losses = {
        read_log(output / name / LOG_FILE)[0]["loss"] for name in ("merged", "merged--another-seed")
    }
    assert len(first_losses) == 2
    turns = rows["sequential"]
    assert turns["steps"] == rows["both at once"]["steps"] == 2 * rows["merged"]["steps"]
    assert turns["curve"][: len(rows["merged"]["curve"])] == rows["merged"]["curve"]
    assert turns["parameters"] == rows["both at once"]["parameters"]
    for name, row in rows.items():
        assert row["curve"][-1][0] == row["steps"]
        before = rows["merged"]["steps"] if name == "sequential" else 0
        best = min(rate for step, rate in row["curve"] if step > before)
        assert 100 * row["wer"] == pytest.approx(100 * best, abs=0.01)
    again, _ = run_variants(measure.main, {"teacher": run}, output, names, *options)
    assert again == ""
