"""`baldwhisper-convert`: options, one-line errors, --help without torch, interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from baldwhisper_convert.cli.errors import one_line_errors, say
from baldwhisper_convert.cli.main import main
from baldwhisper_convert.locks import check_single_process
from baldwhisper_convert.readers.sidecars import SourceWarning
from baldwhisper_mlx import __version__
from baldwhisper_mlx.config import ModelConfig
from tests.support import tiny

ROOT = Path(__file__).parents[3]


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "convert")])}


def test_export(tmp_path: Path, hf_folder: Path) -> None:
    result = run("export", hf_folder, tmp_path / "m", "--dtype", "bfloat16")
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"{tmp_path / 'm'}: Hugging Face checkpoint as bfloat16, ")
    assert ModelConfig.from_file(tmp_path / "m" / "config.json").dtype == "bfloat16"


def test_options_reach_the_export(tmp_path: Path, openai_pt: Path, hf_folder: Path) -> None:
    arguments = ("export", openai_pt, tmp_path / "m", "--tokenizer", hf_folder)
    assert run(*arguments).exit_code == 0
    more = ("--audio-context", "dynamic", "--language", "English")
    result = run(*arguments, *more, "--force")
    assert result.exit_code == 0, result.output
    config = ModelConfig.from_file(tmp_path / "m" / "config.json")
    assert (config.audio_context, config.dtype) == ("dynamic", "float16")
    assert config.languages == ("en",)


def test_an_existing_destination_is_refused_before_the_source_is_read(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    result = run("export", tmp_path / "no such source", tmp_path / "m")
    assert result.exit_code == 1
    assert result.stderr == f"Error: {tmp_path / 'm'}: exists already; --force replaces it\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing", "Error: nothing: no such file or folder, and not a Hub id (owner/name)\n"),
        (".", "Error: .: no weights; expected one of model.safetensors"),
    ],
)
def test_errors_take_one_line_and_exit_with_1(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("export", source, "m")
    assert result.exit_code == 1
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "m").exists()


def test_warnings_about_the_source_are_shown(hf_copy: Path, tmp_path: Path) -> None:
    tiny.edit_json(hf_copy / "generation_config.json", alignment_heads=[[30, 1]])
    result = run("export", hf_copy, tmp_path / "m")
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith(f"Warning: {hf_copy}/generation_config.json: alignment_heads")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("export",),
        ("export", "a", "b", "--dtype", "int8"),
        ("export", "a", "b", "--format", "hf", "--quantize", "8"),
        ("nothing",),
        ("export", "a"),
        ("merge", "a", "b", "--keep", "0,x"),
        ("export", "a", "b", "--group-size", "32"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_version() -> None:
    assert run("--version").output == f"baldwhisper-convert, version {__version__}\n"


def test_help_names_every_option() -> None:
    text = run("export", "--help").output
    for option in ("--dtype", "--revision", "--tokenizer", "--force", "--audio-context"):
        assert option in text


def test_it_runs_as_a_module() -> None:
    """torchrun and accelerate start modules."""
    command = [sys.executable, "-m", "baldwhisper_convert.cli", "distill", "--help"]
    run = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert run.stdout.startswith("Usage: python -m baldwhisper_convert.cli distill [OPTIONS]")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from baldwhisper_convert.cli.main import main\n"
        "try: main(['export', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'mlx.core', 'numpy', 'transformers'} & sys.modules.keys()))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert run.stdout.endswith("[]\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_nothing(
    number: signal.Signals, tmp_path: Path, hf_folder: Path
) -> None:
    """The process is stopped inside the export, once its temporary folder is there."""
    destination = tmp_path / "out" / "m"
    code = (
        "import signal, sys, time; from baldwhisper_convert.cli import main\n"
        # A test run that was started in the background hands on an ignored SIGINT.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from baldwhisper_convert.export import mlx\n"
        "mlx._verify_export = lambda folder: (print('ready', flush=True), time.sleep(60))\n"
        "main.main(sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "export", str(hf_folder), str(destination)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert len(list(destination.parent.iterdir())) == 1
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert list(destination.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("torch", ("export", "a", "b")),
        ("safetensors", ("export", "{hf}", "b")),
        ("accelerate", ("merge", "{hf}", "b")),
    ],
)
def test_without_the_extra_the_error_names_it(
    package: str, command: tuple[str, ...], tmp_path: Path, hf_folder: Path
) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from baldwhisper_convert.cli.main import main\n"
        "main(sys.argv[1:])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *(part.format(hf=hf_folder) for part in command)],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr == (
        f"Error: the package {package} is not installed, which this command needs; install it "
        "with: pip install 'baldwhisper-mlx[convert]'\n"
    )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(), "OSError without a message"),
        (PermissionError(13, "Permission denied", "a"), "[Errno 13] Permission denied: 'a'"),
        (ValueError("two\nlines"), "two lines"),
        (ValueError("\x1b[2J\u202egone"), r"\x1b[2J\u202egone"),
        (MemoryError(), "not enough memory"),
        (ModuleNotFoundError("No module named 'ax'", name="ax"), "baldwhisper-mlx[search]"),
        (ModuleNotFoundError("run pip install x"), "run pip install x"),
    ],
)
def test_every_expected_error_is_one_line_with_a_text(
    error: Exception, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(click.ClickException) as shown, one_line_errors():
        raise error
    assert message in shown.value.message
    assert "\n" not in shown.value.message


def test_a_module_of_ours_that_is_missing_is_a_bug() -> None:
    with pytest.raises(ModuleNotFoundError), one_line_errors():
        raise ModuleNotFoundError("No module", name="baldwhisper_convert.nothing")


def test_warnings_and_results_show_no_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with one_line_errors():
        warnings.warn("licence \x1b]0;title\x07", SourceWarning, stacklevel=1)
        say("\x1b[31mred\nnext")
    captured = capsys.readouterr()
    assert captured.err == "Warning: licence \\x1b]0;title\\x07\n"
    assert captured.out == "\\x1b[31mred\nnext\n"


def test_the_handler_of_sigterm_is_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with one_line_errors():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_command_for_one_process_refuses_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="`search` works in one process, but 2 were started"):
        check_single_process("search")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is full")
def test_a_full_standard_output_is_one_line() -> None:
    buffered = {key: value for key, value in environment().items() if key != "PYTHONUNBUFFERED"}
    with open("/dev/full", "wb") as full:
        result = subprocess.run(
            [sys.executable, "-m", "baldwhisper_convert.cli", "--help"],
            env=buffered, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr == "Error: [Errno 28] No space left on device\n"
