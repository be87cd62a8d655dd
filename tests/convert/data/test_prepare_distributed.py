"""Two processes under torchrun, killed at random: the set and the weights that one makes."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from baldwhisper_convert.cli.main import main
from baldwhisper_convert.data.pieces import PIECES_FOLDER
from tests.support.tiny import tiny_dims, tiny_hf_folder, tiny_hf_model
from tests.support.tiny_speech import tiny_speech
from tests.support.torchrun import torchrun

# One batch a piece, and one of the processes kills itself at a write.
COMMAND = """
import os, signal
import baldwhisper_mlx
from baldwhisper_convert.data import pieces
from baldwhisper_convert.data.prepared_writer import PreparedWriter

pieces.PIECE_BATCHES = 1
rank, left = os.environ["RANK"], [int(os.environ.get("KILL_AT", 0))]
if rank == os.environ.get("KILL_RANK"):
    append = PreparedWriter.append
    def mortal(self, *arguments):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, *arguments)
    PreparedWriter.append = mortal

from baldwhisper_convert.cli.main import main
main()
"""

RECIPE = """
teacher = "{teacher}"

[data.train]
source = "{speech}"
features = "states"
windows = {{ single = 1.0, silence = 0.1 }}

[[stages]]
stage = "merge"
data = ["train"]
merge = {{ method = "upper" }}

[[stages]]
stage = "factorize"
data = ["train"]
factorize = {{ rank = 4 }}

[[stages]]
stage = "distill"
data = ["train"]
dev = "train"
training = {{ epochs = 1, batch_size = 4, evaluate_every = 2, patience = 3, ema = 0.9 }}
loss = {{ kl = 1.0, ce = 1.0 }}
"""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    width = {"n_audio_state": 16, "n_text_state": 16}
    dims = tiny_dims(**width, n_audio_layer=1, n_text_layer=2)
    return tiny_hf_folder(tmp_path_factory.mktemp("teacher") / "model", tiny_hf_model(dims))


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_speech(tmp_path_factory.mktemp("speech") / "all", 38, seconds=(0.3, 0.8))


def script(folder: Path) -> Path:
    path = folder / "command.py"
    path.write_text(COMMAND)
    return path


def one(*arguments: str | Path) -> None:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("seed", [1, 2])
def test_two_processes_killed_at_random_prepare_the_same_set(
    teacher: Path, speech: Path, tmp_path: Path, seed: int
) -> None:
    how = ("--data", speech, "--set", "windows.single=1", "--set", "passes=2")
    how = (*how, "--set", "features=mel", "--device", "cpu")
    one("prepare", teacher, tmp_path / "one", *how)
    rng, two = random.Random(seed), tmp_path / "two"
    command, log = script(tmp_path), tmp_path / "log"
    work = (command, "prepare", teacher, two, *how)
    # In the pieces of either process, and while the main one appends them to the set.
    kills = [("01"[rng.randrange(2)], rng.randrange(1, 30)), ("0", rng.randrange(45, 75))]
    for rank, at in kills:
        assert torchrun(*work, log=log, KILL_RANK=rank, KILL_AT=str(at)) != 0
        assert not json.loads((two / "prepared.json").read_text())["complete"], log.read_text()
    assert torchrun(*work, log=log) == 0, log.read_text()
    assert content(two) == content(tmp_path / "one")
    assert not (two / PIECES_FOLDER).exists()


def test_two_processes_run_a_recipe_that_begins_with_merge(
    teacher: Path, speech: Path, tmp_path: Path
) -> None:
    """A fresh run, then a killed one; both end with the weights of one process."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(teacher=teacher, speech=speech))
    one("run", recipe, "--output", tmp_path / "one")
    fresh, killed = tmp_path / "fresh", tmp_path / "killed"
    command, log = script(tmp_path), tmp_path / "log"
    assert torchrun(command, "run", recipe, "--output", fresh, log=log) == 0, log.read_text()
    again = (command, "run", recipe, "--output", killed)
    assert torchrun(*again, log=log, KILL_RANK="1", KILL_AT="9") != 0
    assert torchrun(*again, log=log) == 0, log.read_text()
    assert "killed/03-distill: finished" in log.read_text()
    for folder in (fresh, killed):
        for name in ("01-merge", "02-factorize"):
            expected = content(tmp_path / "one" / name)
            assert content(folder / name) == expected
        sets = [next((path / "prepared").iterdir()) for path in (tmp_path / "one", folder)]
        assert content(sets[0]) == content(sets[1])
    assert (
        content(fresh / "03-distill")["weights.safetensors"]
        == (content(killed / "03-distill")["weights.safetensors"])
    )
    # What is done is not done again.
    shutil.rmtree(fresh / "runs")
    assert torchrun(command, "run", recipe, "--output", fresh, log=log) == 0, log.read_text()
    assert log.read_text().count("done already") == 3
