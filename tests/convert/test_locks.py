"""Locks of folders: one process at a time, and none left behind by a killed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from baldwhisper_convert.data.prepared import STATES
from baldwhisper_convert.data.prepared_writer import PreparedWriter
from baldwhisper_convert.locks import LOCK_FILE, lock_folder
from baldwhisper_convert.pipeline.recipe import Recipe, StageRecipe
from baldwhisper_convert.pipeline.run import Pipeline
from baldwhisper_convert.pipeline.settings import RecipeError
from baldwhisper_convert.training.checkpoints import RunFolder

ROOT = Path(__file__).parents[2]

HOLD = """
import sys, time
from pathlib import Path
from baldwhisper_convert.locks import lock_folder
with lock_folder(Path(sys.argv[1]), "works"):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_locked_for_one_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with lock_folder(folder, "works"):
        with (
            pytest.raises(BlockingIOError, match=rf"folder: another process \({os.getpid()} on .*"
                          r"\) trains here; wait for it"),
            lock_folder(folder, "trains"),
        ):  # fmt: skip
            pass
        assert (folder / LOCK_FILE).exists()
    assert list(folder.iterdir()) == []
    with lock_folder(folder, "works"):
        pass


def test_a_failing_block_releases_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), lock_folder(tmp_path, "works"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "convert")])
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    with (
        pytest.raises(BlockingIOError, match=f"process \\({process.pid} on "),
        lock_folder(tmp_path, "works"),
    ):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert (tmp_path / LOCK_FILE).exists()
    with lock_folder(tmp_path, "works"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_two_preparations(tmp_path: Path) -> None:
    with PreparedWriter(tmp_path, key="k", features=STATES, width=4) as writer:
        with pytest.raises(BlockingIOError, match="prepares data here"):
            PreparedWriter(tmp_path, key="k", features=STATES, width=4)
        writer.finish()
    assert PreparedWriter(tmp_path, key="k", features=STATES, width=4).complete
    # Complete data is only read, so several may.
    assert PreparedWriter(tmp_path, key="k", features=STATES, width=4).complete


def test_two_runs_of_recipes(tmp_path: Path) -> None:
    recipe = Recipe(teacher="nothing", stages=(StageRecipe(stage="merge"),))
    with (
        lock_folder(tmp_path / "runs", "runs a recipe"),
        pytest.raises(BlockingIOError, match="runs a recipe here"),
    ):
        Pipeline(recipe, tmp_path / "runs").run()
    with pytest.raises(RecipeError, match="teacher: nothing: no such file"):
        Pipeline(recipe, tmp_path / "runs").run()


def test_two_trainings(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path).lock(),
        pytest.raises(BlockingIOError, match="trains here"),
        RunFolder(tmp_path).lock(),
    ):
        pass
