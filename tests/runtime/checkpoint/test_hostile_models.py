"""Hostile model folders are refused at once: by name, in little memory, before MLX sees them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from baldwhisper_mlx.checkpoint.load import load_model
from baldwhisper_mlx.cli.main import cli
from tests.runtime.conftest import tiny_config, write_model
from tests.support.hostile_models import MODELS, languages

ROOT = Path(__file__).resolve().parents[3]
MEMORY = 300 * 2**20
"""Bytes that all of them may take together, beyond what a process with MLX has."""
SECONDS = 60
"""Of computing, for all of them: a loop without end is cut off."""

LOAD_ALL = """
import json, resource, sys
from pathlib import Path
from baldwhisper_mlx.checkpoint.describe import describe_model
from baldwhisper_mlx.checkpoint.load import load_model

load_model(sys.argv[1])  # a sound one, so that all that it needs is in memory
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
most = size + int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_AS, (most, most))
spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
resource.setrlimit(resource.RLIMIT_CPU, (int(spent) + int(sys.argv[4]),) * 2)
errors = {}
for folder in sorted(Path(sys.argv[2]).iterdir()):
    for what in (load_model, describe_model):
        try:
            what(folder)
            error = None
        except (ValueError, OSError) as raised:
            error = str(raised)
        except BaseException as raised:
            error = f"{type(raised).__name__}: {raised}"
        errors[f"{folder.name} {what.__name__}"] = error
print(json.dumps(errors))
"""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config(embedding_rank=8, embedding_dense_rows=3)
    return write_model(tmp_path_factory.mktemp("sound") / "model", config)


@pytest.fixture(scope="module")
def errors(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """What loading and describing each of them raises, in one process with little memory."""
    root = tmp_path_factory.mktemp("hostile")
    for name, (change, _) in MODELS.items():
        change(Path(shutil.copytree(sound, root / name.replace(": ", "-"))))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, str(sound), str(root), str(MEMORY), str(SECONDS)],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    read: dict[str, str | None] = json.loads(done.stdout)
    return read


@pytest.mark.parametrize("name", MODELS)
def test_it_is_refused_by_name(errors: dict[str, str | None], name: str) -> None:
    folder = name.replace(": ", "-")
    error = errors[f"{folder} load_model"]
    assert error is not None
    assert re.search(MODELS[name][1], error), error
    assert folder in error
    assert error.isprintable()
    # What needs no values of tensors and no vocabulary is seen by `baldwhisper info` as well.
    if not name.startswith(("dense_ids", "vocabulary: empty", "vocabulary: negative")):
        assert errors[f"{folder} describe_model"] == error


def test_the_command_prints_no_escape_sequence(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of a model, nor of its path."""
    folder = Path(shutil.copytree(sound, tmp_path / "a\x1b[31mb"))
    for arguments in (["info", str(folder)], ["info", f"{folder}\x1b"]):
        result = CliRunner().invoke(cli, arguments)
        assert r"a\x1b[31mb" in result.output
        assert "\x1b" not in result.output
    languages("<|\x1b[2J|>")(folder)
    result = CliRunner().invoke(cli, ["transcribe", "-m", str(folder), __file__])
    assert result.exit_code == 1
    assert r"\x1b[2J" in result.output
    assert "\x1b" not in result.output


def test_a_folder_of_transformers_is_to_be_converted(tmp_path: Path) -> None:
    raw = {"model_type": "whisper", "d_model": 512, "encoder_layers": 6}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="baldwhisper-convert export") as caught:
        load_model(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_file_instead_of_a_folder(sound: Path) -> None:
    with pytest.raises(ValueError, match=r"a model is a folder, not a file; .* convert it"):
        load_model(sound / "model.safetensors")


@pytest.mark.parametrize("name", ["~nobody-of-that-name/model", "a\0b", "x" * 5000])
def test_names_that_no_folder_can_have(name: str) -> None:
    with pytest.raises((FileNotFoundError, OSError)) as caught:
        load_model(name)
    assert str(caught.value)
