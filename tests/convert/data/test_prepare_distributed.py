"""Two processes under torchrun, killed at random: the set and the weights that one makes."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

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


def test_two_processes_killed_at_random_prepare_the_same_set(
    teacher: Path, speech: Path, tmp_path: Path
) -> None:
    how = ("--data", speech, "--set", "windows.single=1", "--set", "passes=2")
    how = (*how, "--set", "features=mel", "--device", "cpu")
    one("prepare", teacher, tmp_path / "one", *how)
    rng, two = random.Random(time.time_ns()), tmp_path / "two"
    command, log = script(tmp_path), tmp_path / "log"
    work = (command, "prepare", teacher, two, *how)
    # In the pieces of either process, and while the main one appends them to the set.
    kills = [("01"[rng.randrange(2)], rng.randrange(1, 30)), ("0", rng.randrange(45, 75))]
    for rank, at in kills:
        assert torchrun(*work, log=log, KILL_RANK=rank, KILL_AT=str(at)) != 0
        assert not json.loads((two / "prepared.json").read_text())["complete"], log.read_text()
    assert torchrun(*work, log=log) == 0, log.read_text()
    assert content(two) == content(tmp_path / "one"), kills
    assert not (two / PIECES_FOLDER).exists()


def test_two_processes_run_a_recipe_that_begins_with_merge(
    teacher: Path, speech: Path, tmp_path: Path
) -> None:
    """Killed once; it ends with the set and the weights of one process."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.format(teacher=teacher, speech=speech))
    one("run", recipe, "--output", tmp_path / "one")
    two, log = tmp_path / "two", tmp_path / "log"
    work = (script(tmp_path), "run", recipe, "--output", two)
    assert torchrun(*work, log=log, KILL_RANK="1", KILL_AT="9") != 0
    assert not list(two.glob("0*")), log.read_text()
    assert torchrun(*work, log=log) == 0, log.read_text()
    assert log.read_text().count("two/03-distill: finished") == 1
    for name in ("01-merge", "02-factorize"):
        assert content(two / name) == content(tmp_path / "one" / name)
    sets = [next((folder / "prepared").iterdir()) for folder in (tmp_path / "one", two)]
    assert content(sets[0]) == content(sets[1])
    expected, found = (
        load_file(folder / "03-distill" / "model.safetensors") for folder in (tmp_path / "one", two)
    )
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-5, atol=1e-5)
