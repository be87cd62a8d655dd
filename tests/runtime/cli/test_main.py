"""The command line: what goes where, what is refused up front, what survives an interruption."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from baldwhisper_mlx import __version__
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint import load
from baldwhisper_mlx.cli.main import cli
from baldwhisper_mlx.cli.reading import decoded_ahead
from baldwhisper_mlx.output.segment import Segment
from baldwhisper_mlx.output.transcript import Transcript
from baldwhisper_mlx.transcription import transcribe as transcribing
from baldwhisper_mlx.transcription.language import LanguageWarning
from tests.runtime.conftest import RATE, tiny_config, tone, write_model

Run = Callable[..., Result]
PYTHON = [sys.executable, "-c", "from baldwhisper_mlx.cli.main import main; main()"]
KINDS = ("txt", "srt", "vtt", "tsv", "lrc", "ass", "json")
ROOT = Path(__file__).parents[3]


UNSET = {
    "carry_initial_prompt": False,
    "hotwords": None,
    "prefix": None,
    "clip_timestamps": None,
    "hallucination_silence_threshold": None,
    "suppress_tokens": "-1",
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
}
"""Options of test_transcribe_options.py."""


class Fake:
    """Stands for model and transcription: the text of a file is its samples' count and peak."""

    def __init__(self) -> None:
        self.loaded: list[tuple[str | None, str | None]] = []
        self.calls: list[dict[str, Any]] = []
        self.fail: dict[int, BaseException] = {}

    def load_model(
        self, name: str | None, *, revision: str | None = None, audio_context: str | None = None
    ) -> Any:
        self.loaded.append((name, revision))
        tokenizer = SimpleNamespace(
            to_language=lambda language: language,
            candidates=lambda languages: languages,
            check_task=lambda _: None,
        )
        vocabulary = SimpleNamespace(suppress=(), control=(), eot=256, n_vocab=1800)
        decoder = SimpleNamespace(vocabulary=vocabulary)
        return SimpleNamespace(tokenizer=tokenizer, decoder=decoder)

    def transcribe(self, audio: Any, model: Any, **options: Any) -> Transcript:
        del options["on_progress"]
        self.calls.append(options)
        if len(self.calls) in self.fail:
            raise self.fail[len(self.calls)]
        seconds = len(audio) / RATE
        segment = Segment(0, 0, 0.0, seconds, f" {len(audio)} é", (1,), 0.0, -0.1, 1.0, 0.0)
        return Transcript(segment.text, (segment,), "en", seconds)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()
    monkeypatch.setattr(load, "load_model", fake.load_model)
    monkeypatch.setattr(transcribing, "transcribe", fake.transcribe)
    return fake


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `baldwhisper transcribe -m some/model ...` in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str, **options: Any) -> Result:
        command = ["transcribe", "-m", "some/model", *args]
        return CliRunner().invoke(cli, command, catch_exceptions=False, **options)

    return run


def write(path: str, samples: int = 1600) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(1.0)[:samples], RATE)
    return path


def files_below(folder: str) -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in sorted(Path(folder).iterdir())}


def test_text_goes_to_stdout_and_everything_else_to_stderr(fake: Fake, run: Run) -> None:
    result = run(write("a.wav"))
    assert (result.exit_code, result.stdout) == (0, "1600 é\n")
    assert result.stderr.startswith("a.wav: 0.1 s of audio in ")
    for part in ("x real time)", "language en", "peak memory", "MB\n"):
        assert part in result.stderr
    assert fake.loaded == [("some/model", None)]
    assert fake.calls == [
        {
            "language": None,
            "languages": None,
            "multilingual": False,
            "task": "transcribe",
            "initial_prompt": None,
            "beam_size": None,
            "patience": None,
            "length_penalty": None,
            "best_of": None,
            **UNSET,
            "condition_on_previous_text": True,
            "without_timestamps": False,
            "word_timestamps": False,
            "vad": False,
            "batch_size": 1,
        }
    ]


def test_options_reach_the_model(fake: Fake, run: Run) -> None:
    options = "--revision v1 -l French --task translate --initial-prompt Hello --temperature 0.4"
    flags = [
        "--no-condition-on-previous-text",
        "--without-timestamps",
        "--word-timestamps",
        "--vad",
    ]
    flags += ["--batch-size", "4", "--beam-size", "5", "--patience", "1.5"]
    flags += ["--length-penalty", "0.6", "--best-of", "3"]
    assert run(write("a.wav"), *options.split(), *flags).exit_code == 0
    assert fake.loaded == [("some/model", "v1")]
    assert fake.calls == [
        {
            "language": "French",
            "languages": None,
            "multilingual": False,
            "task": "translate",
            "initial_prompt": "Hello",
            **UNSET,
            "temperature": 0.4,
            "beam_size": 5,
            "patience": 1.5,
            "length_penalty": 0.6,
            "best_of": 3,
            "condition_on_previous_text": False,
            "without_timestamps": True,
            "word_timestamps": True,
            "vad": True,
            "batch_size": 4,
        }
    ]


def test_the_way_of_detection_reaches_the_model(fake: Fake, run: Run) -> None:
    assert run(write("a.wav"), "--languages", "en, french").exit_code == 0
    (options,) = fake.calls
    assert (options["languages"], options["multilingual"]) == (["en", "french"], False)


def test_one_file_in_any_format_to_stdout(fake: Fake, run: Run) -> None:
    write("a.wav")
    assert run("a.wav", "-f", "vtt").stdout.startswith("WEBVTT\n\n00:00.000 --> 00:00.100\n")
    assert json.loads(run("a.wav", "-f", "json").stdout)["segments"][0]["text"] == " 1600 é"


def test_several_files_to_stdout_have_headers(fake: Fake, run: Run) -> None:
    result = run(write("a.wav"), "missing.wav", write("b c.wav", 800))
    assert result.stdout == "==> a.wav <==\n1600 é\n\n==> b c.wav <==\n800 é\n"


def test_a_header_after_a_failed_file_opens_the_output(fake: Fake, run: Run) -> None:
    assert run("missing.wav", write("a.wav")).stdout == "==> a.wav <==\n1600 é\n"


def test_output_files_for_every_input_and_format(fake: Fake, run: Run) -> None:
    result = run(write("x/talk.wav"), write("y/talk.wav", 800), "-f", "all", "-o", "new/out")
    assert (result.exit_code, result.stdout) == (0, "")
    found = files_below("new/out")
    assert set(found) == {f"{stem}.{kind}" for stem in ("talk", "talk-2") for kind in KINDS}
    assert (found["talk.txt"], found["talk-2.txt"]) == ("1600 é\n", "800 é\n")


def test_folders_and_patterns_stand_for_their_files(fake: Fake, run: Run) -> None:
    for name in ("talks/b.wav", "talks/sub/a.WAV", "talks/.hidden.wav", "talks/.x/c.wav", "d.wav"):
        write(name)
    Path("talks/notes.txt").write_text("x")
    result = run("talks", "*.wav", "talks/b.wav", "-o", "out")
    assert result.exit_code == 0, result.stderr
    assert set(files_below("out")) == {"a.txt", "b.txt", "d.txt"}
    assert len(fake.calls) == 3
    result = run("nothing/*.wav", "d.wav")
    assert (result.exit_code, result.stdout) == (1, "==> d.wav <==\n1600 é\n")
    assert "nothing/*.wav: no such file" in result.stderr


def test_finished_files_are_skipped(fake: Fake, run: Run) -> None:
    names = [write("a.wav"), write("b.wav", 800)]
    assert run("a.wav", "-o", "out").exit_code == 0
    Path("out/a.txt").write_text("kept")
    result = run(*names, "-o", "out", "--skip-existing")
    assert result.exit_code == 0
    assert result.stderr.startswith("1 of 2 files skipped: outputs exist\n")
    assert files_below("out") == {"a.txt": "kept", "b.txt": "800 é\n"}
    assert len(fake.calls) == 2
    result = run(*names, "-o", "out", "--skip-existing")
    assert (result.exit_code, len(fake.calls)) == (0, 2)
    assert len(fake.loaded) == 2
    # Of several formats, what is missing is written.
    assert run(*names, "-f", "all", "-o", "out", "--skip-existing").exit_code == 0
    assert len(files_below("out")) == 2 * len(KINDS)
    assert files_below("out")["a.txt"] == "kept"


def test_raw_pcm(fake: Fake, run: Run) -> None:
    samples = (1000 * tone(0.5)[:4000]).astype("<i2").tobytes()
    assert run("-", "--pcm-rate", str(RATE), input=samples).stdout == "4000 é\n"
    assert run("-", "--pcm-rate", "8000", input=samples).stdout == "8000 é\n"
    odd = run("-", "--pcm-rate", "8000", input=b"xyz")
    assert odd.exit_code == 1
    assert "no whole number of 16-bit samples" in odd.stderr
    assert run("-", "--pcm-rate", "8000", input=b"").exit_code == 1


def test_channels(fake: Fake, run: Run) -> None:
    soundfile.write("call.wav", np.stack([tone(), 0 * tone()], axis=1)[:1600], RATE)
    result = run("call.wav", "--channels", "split")
    assert (result.exit_code, len(fake.calls)) == (0, 2)
    assert result.stdout == "channel 1: 1600 é\nchannel 2: 1600 é\n"
    segments = json.loads(run("call.wav", "--channels", "split", "-f", "json").stdout)["segments"]
    assert [segment["channel"] for segment in segments] == [1, 2]
    assert run("call.wav", "--channels", "left").stdout == "1600 é\n"
    result = run(write("mono.wav"), "--channels", "split")
    assert result.stdout == "1600 é\n"
    assert "warning: mono.wav: it has only one channel" in result.stderr


def test_audio_that_is_refused_or_incomplete(fake: Fake, run: Run) -> None:
    result = run(write("a.wav"), "--max-duration", "0.05")
    assert result.exit_code == 1
    assert "error: a.wav: longer than 0.05 s; allow more with --max-duration" in result.stderr
    result = run("a.wav", "--track", "2")
    assert "error: a.wav: there is no audio track 2" in result.stderr
    Path("a.wav").write_bytes(Path("a.wav").read_bytes()[:-1600])
    for _ in range(2):  # said each time, not once
        result = run("a.wav")
        assert (result.exit_code, result.stdout) == (0, "800 é\n")
        assert "warning: a.wav: cut off: 0.1 s of audio are missing at its end\n" in result.stderr
    fake.fail = {len(fake.calls) + 1: MemoryError()}
    result = run("a.wav", write("b.wav"))
    assert (result.exit_code, result.stdout) == (1, "==> b.wav <==\n1600 é\n")


def test_the_next_file_is_read_ahead_and_no_further() -> None:
    read: list[str] = []

    def load(name: str) -> Any:
        read.append(name)
        if name == "b":
            raise ValueError("bad")
        return name

    names = ["a", "b", "c", "d"]
    for i, (name, audio) in enumerate(decoded_ahead(names, load)):
        if name == "b":
            with pytest.raises(ValueError, match="bad"):
                audio.result()
        else:
            assert audio.result() == name
        assert len(read) <= i + 2
    assert read == names
    stopped = decoded_ahead(names, load)
    next(stopped)
    stopped.close()
    assert len(read) <= 6
    assert list(decoded_ahead([], load)) == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["a.wav", "-f", "all"], "--output-dir"),
        (["a.wav", "b.wav", "-f", "srt"], "--output-dir"),
        (["-", "-"], "give `-` only once"),
        (["a.wav", "-f", "docx"], "docx"),
        (["a.wav", "--temperature", "-1"], "-1"),
        (["a.wav", "--temperature", "nan"], "nan"),
        (["a.wav", "--beam-size", "0"], "0"),
        (["a.wav", "--patience", "2"], "give --beam-size"),
        (["a.wav", "--beam-size", "2", "--patience", "0.2"], "must be above 0.5"),
        (["a.wav", "--length-penalty", "2"], "2"),
        (["a.wav", "--best-of", "101"], "101"),
        (["a.wav", "--task", "summarize"], "summarize"),
        (["a.wav", "--skip-existing"], "--output-dir"),
        (["a.wav", "-o", "out", "--skip-existing", "--force"], "--force"),
        (["a.wav", "--pcm-rate", "16000"], "`-` as the only FILE"),
        (["-", "--pcm-rate", "16000", "--channels", "split"], "--track and --channels are not for"),
        (["-", "--pcm-rate", "16000", "--track", "1"], "--track and --channels are not for"),
        (["a.wav", "--track", "0"], "0"),
        (["a.wav", "--channels", "middle"], "middle"),
        (["a.wav", "--max-duration", "0"], "0"),
        (["a.wav", "--highlight-words"], "--word-timestamps"),
        (["a.wav", "--word-timestamps", "--max-line-count", "2"], "--max-line-width"),
        (["a.wav", "--word-timestamps", "--max-line-width", "0"], "0"),
        (
            ["a.wav", "--word-timestamps", "--max-line-width", "9", "--max-words-per-line", "3"],
            "not both",
        ),
        ([], "FILE"),
    ],
)
def test_wrong_usage_exits_with_2_before_a_model_is_loaded(
    fake: Fake, run: Run, args: list[str], message: str
) -> None:
    result = run(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert fake.loaded == []


def test_without_a_name_the_bundled_model_is_loaded(fake: Fake, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["transcribe", write(str(tmp_path / "a.wav"))])
    assert result.exit_code == 0, result.stderr
    assert fake.loaded == [(None, None)]


def test_existing_outputs_are_refused_before_decoding(fake: Fake, run: Run) -> None:
    args = [write("a.wav"), write("b.wav"), "-o", "out"]
    Path("out").mkdir()
    Path("out/b.txt").write_text("mine")
    result = run(*args)
    assert result.exit_code == 1
    assert f"{Path('out/b.txt')}: exists; use --force" in result.stderr
    assert fake.loaded == []
    assert files_below("out") == {"b.txt": "mine"}
    assert run(*args, "--force").exit_code == 0
    assert files_below("out") == {"a.txt": "1600 é\n", "b.txt": "1600 é\n"}


def test_an_unwritable_folder_is_refused_before_decoding(fake: Fake, run: Run) -> None:
    result = run(write("a.wav"), "-o", write("file.wav"))
    assert result.exit_code == 1
    assert "file.wav: is a file, not a folder to write to" in result.stderr
    assert fake.loaded == []


def test_without_a_readable_input_no_model_is_loaded(fake: Fake, run: Run) -> None:
    Path("folder").mkdir()
    result = run("missing.wav", "folder")
    assert (result.exit_code, result.stdout, fake.loaded) == (1, "", [])
    assert "error: missing.wav: no such file" in result.stderr
    assert "error: folder: the folder contains no audio files" in result.stderr
    assert "2 of 2 files failed: missing.wav, folder" in result.stderr


def test_bad_files_are_reported_and_the_others_go_on(fake: Fake, run: Run) -> None:
    Path("bad.wav").write_text("not audio at all")
    fake.fail = {2: FloatingPointError("the model produced NaN"), 3: OSError(28, "No space")}
    names = [write("a.wav"), "gone.wav", "bad.wav", write("b.wav"), write("c.wav"), write("d.wav")]
    result = run(*names, "-o", "out")
    assert result.exit_code == 1
    assert files_below("out") == {"a.txt": "1600 é\n", "d.txt": "1600 é\n"}
    assert "error: bad.wav: " in result.stderr
    assert "error: b.wav: the model produced NaN" in result.stderr
    assert "error: c.wav: [Errno 28] No space" in result.stderr
    assert result.stderr.endswith("4 of 6 files failed: gone.wav, bad.wav, b.wav, c.wav\n")


def test_a_bug_is_not_mistaken_for_a_bad_file(fake: Fake, run: Run) -> None:
    fake.fail = {1: TypeError("ours")}
    with pytest.raises(TypeError, match="ours"):
        run(write("a.wav"))


def test_ctrl_c_leaves_finished_outputs_whole_and_the_others_absent(fake: Fake, run: Run) -> None:
    fake.fail = {2: KeyboardInterrupt()}
    result = run(write("a.wav"), write("b.wav"), write("c.wav"), "-f", "all", "-o", "out")
    assert result.exit_code == 130
    assert set(files_below("out")) == {f"a.{kind}" for kind in KINDS}
    assert "Interrupted" in result.stderr


def test_stdin_is_an_audio_file_named_stdin(fake: Fake, run: Run) -> None:
    data = Path(write("a.wav")).read_bytes()
    assert run("-", input=data).stdout == "1600 é\n"
    assert run("-", "-o", "out", input=data).exit_code == 0
    assert files_below("out") == {"stdin.txt": "1600 é\n"}
    result = run("-", input=b"")
    assert result.exit_code == 1
    assert result.stderr == "error: stdin: the file is empty\n"


def test_a_name_that_looks_like_an_option_follows_two_dashes(fake: Fake, run: Run) -> None:
    assert run("--", write("-f.wav")).stdout == "1600 é\n"


@pytest.mark.filterwarnings("default")
def test_warnings_of_loading_are_one_line(
    fake: Fake, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(name: str, **options: Any) -> Any:
        warnings.warn("slow BLAS", stacklevel=2)
        return fake.load_model(name)

    monkeypatch.setattr(load, "load_model", slow)
    assert run(write("a.wav")).stderr.startswith("warning: slow BLAS\n")


def test_the_bar_shows_seconds_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from baldwhisper_mlx.cli.progress import progress_bar

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, wanted in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress_bar("a.wav") as on_progress:
            assert (on_progress is not None) is wanted
            if on_progress is not None:
                on_progress(30.0, 60.0)
                time.sleep(0.2)
                on_progress(60.0, 60.0)
        assert ("a.wav 100%" in stream.getvalue()) is wanted
        assert ("60/60 s" in stream.getvalue()) is wanted


def test_version_and_help() -> None:
    assert __version__ in CliRunner().invoke(cli, ["--version"]).stdout
    for args in (["--help"], ["-h"], []):
        assert "transcribe" in CliRunner().invoke(cli, args).output
    assert isinstance(cli, click.Group)
    for name, command in cli.commands.items():
        assert command.help, name
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, baldwhisper_mlx.cli.main, baldwhisper_mlx.checkpoint.describe\n"
        "heavy = {'mlx', 'numpy', 'tiktoken', 'huggingface_hub', 'soundfile', 'soxr', 'tqdm'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


# ---- end to end, with a tiny random model


def test_transcribe_end_to_end(model_folder: Path, wav: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    args = ["-m", str(model_folder), "-f", "all", "-o", str(out), "--temperature", "0"]
    result = CliRunner().invoke(cli, ["transcribe", str(wav), *args], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    raw = json.loads((out / "tone.json").read_text("utf-8"))
    assert raw["duration"] == 1.0
    assert raw["language"] in ("en", "fr")
    assert len(list(out.iterdir())) == len(KINDS)
    again = transcribing.transcribe(wav, str(model_folder), temperature=0.0)
    assert raw == json.loads(json.dumps(again.to_dict()))


def test_stdin_through_a_real_pipe_equals_the_file(model_folder: Path, wav: Path) -> None:
    command = [*PYTHON, "transcribe", "-m", str(model_folder), "-f", "json", "--temperature", "0"]
    outputs = [
        subprocess.run(
            [*command, name], input=data, env=environment(), capture_output=True, check=True
        )
        for name, data in ((str(wav), None), ("-", wav.read_bytes()))
    ]
    assert outputs[0].stdout == outputs[1].stdout
    assert json.loads(outputs[0].stdout)["duration"] == 1.0
    assert outputs[1].stderr.startswith(b"stdin: 1.0 s of audio")
    assert b"\r" not in outputs[0].stderr  # no progress bar in a pipe


def test_ctrl_c_in_the_middle_of_a_real_run(model_folder: Path, wav: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    endless = tmp_path / "endless.wav"
    soundfile.write(endless, np.tile(tone(30.0), 100), RATE)
    command = [*PYTHON, "transcribe", "-m", str(model_folder), "-o", str(out), "-f", "all"]
    process = subprocess.Popen(
        [*command, str(wav), str(endless)],
        env=environment(),
        stderr=subprocess.PIPE,
        # a shell's background jobs ignore Ctrl-C, and tests may run in one
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 60
        while not (out / "tone.json").exists():
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert b"Traceback" not in errors
    assert {path.name for path in out.iterdir()} == {f"tone.{kind}" for kind in KINDS}
    json.loads((out / "tone.json").read_text("utf-8"))


def test_detect_language(model_folder: Path, wav: Path, tmp_path: Path) -> None:
    sample = ROOT / "examples" / "sample.wav"
    files = [str(sample), str(wav), "gone.wav"]
    arguments = ["detect-language", "-m", str(model_folder), "--top", "2", *files]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1
    assert "gone.wav: no such file" in result.stderr
    spoken, tone = result.stdout.splitlines()
    name, _, languages = spoken.rpartition(": ")
    assert name == str(sample)
    assert len(languages.split(", ")) == 2
    assert tone == f"{wav}: no speech"


def test_detect_language_per_window(model_folder: Path, tmp_path: Path) -> None:
    speech = load_audio(ROOT / "examples" / "sample.wav")
    long = np.concatenate([np.zeros(32 * RATE, np.float32), speech])
    path = tmp_path / "long.wav"
    soundfile.write(path, long, RATE)
    command = ["detect-language", "-m", str(model_folder), "--per-window"]
    result = CliRunner().invoke(cli, [*command, "--languages", "en,fr", str(path)])
    assert result.exit_code == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert first == f"{path}: 0.0 to 30.0 s: no speech"
    start, _, languages = second.rpartition(": ")
    assert start == f"{path}: 30.0 to {len(long) / RATE:.1f} s"
    assert sorted(part.split()[0] for part in languages.split(", ")) == ["en", "fr"]
    assert sum(float(part.split()[1]) for part in languages.split(", ")) == pytest.approx(
        1, abs=2e-3
    )
    refused = CliRunner().invoke(cli, [*command, "--windows", "2", str(path)])
    assert refused.exit_code == 2
    assert "leave out --windows" in refused.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--languages", "en,xx"], "unknown language 'xx'"),
        (["--languages", "en,,fr"], "no list such as en,fr,de"),
        (["--languages", "en,fr", "--language", "en"], "leave out --language"),
        (["--multilingual", "--language", "en"], "leave out --language"),
    ],
)
def test_bad_languages_are_refused(
    model_folder: Path, wav: Path, options: list[str], message: str
) -> None:
    result = CliRunner().invoke(cli, ["transcribe", "-m", str(model_folder), *options, str(wav)])
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    if "--language" not in options:
        command = ["detect-language", "-m", str(model_folder), *options, str(wav)]
        assert message in CliRunner().invoke(cli, command).stderr


def test_a_model_of_one_language_is_not_multilingual(wav: Path) -> None:
    result = CliRunner().invoke(cli, ["transcribe", "--multilingual", str(wav)])
    assert result.exit_code == 1
    assert "multilingual: this model knows only en (english)" in result.stderr


def test_doubts_about_the_language_are_shown(
    run: Run, fake: Fake, monkeypatch: pytest.MonkeyPatch, wav: Path
) -> None:
    def doubting(audio: Any, model: Any, **options: Any) -> Transcript:
        warnings.warn("the text is improbable", LanguageWarning, stacklevel=1)
        return Transcript("", (), None, 1.0)

    monkeypatch.setattr(transcribing, "transcribe", doubting)
    other = Path(shutil.copy(wav, wav.with_name("other.wav")))
    result = run(str(wav), str(other), "-f", "json", "--output-dir", "out")
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    for path in (wav, other):
        assert lines.count(f"warning: {path}: the text is improbable") == 1
    assert sum("no speech" in line for line in lines) == 2
    for path in (wav, other):
        written = Path("out", path.with_suffix(".json").name).read_text(encoding="utf-8")
        assert json.loads(written)["language"] is None


def test_info_describes_a_model(model_folder: Path) -> None:
    result = CliRunner().invoke(cli, ["info", str(model_folder)], catch_exceptions=False)
    assert result.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    config = tiny_config()
    assert lines["model"] == str(model_folder)
    assert lines["encoder"] == "1 layers, width 32, 2 heads, 80 mel bins, 1500 positions"
    assert lines["decoder"] == "1 layers, width 32, 2 heads, 64 positions"
    assert lines["vocabulary"] == f"{config.n_vocab} tokens, 2 languages"
    assert lines["embedding"] == f"dense, {config.n_vocab} x 32"
    assert lines["context"] == "full (always 30 s)"
    assert lines["dtype"] == "float32"
    size = sum(path.stat().st_size for path in model_folder.iterdir())
    assert lines["size"] == f"{size / 1e6:.1f} MB on disk"


def test_info_counts_parameters_as_the_model_does(tmp_path: Path) -> None:
    import mlx.core as mx
    from mlx.utils import tree_flatten

    from baldwhisper_mlx.checkpoint.describe import count_parameters, describe_model
    from baldwhisper_mlx.checkpoint.tensor_header import read_tensor_header
    from baldwhisper_mlx.checkpoint.weights import build_model, read_weights

    config = tiny_config(
        embedding_rank=8,
        embedding_projections="separate",
        embedding_mean=True,
        embedding_dense_rows=5,
        audio_context="dynamic",
    )
    folder = write_model(tmp_path / "model", config)
    header = read_tensor_header(folder / "model.safetensors")
    weights = read_weights(folder / "model.safetensors")
    tensors = tree_flatten(build_model(weights, config, "model").parameters())
    expected = sum(a.size for _, a in tensors if mx.issubdtype(a.dtype, mx.floating))
    assert count_parameters(header, config) == expected
    found = describe_model(folder)
    assert found["embedding"] == "rank 8, separate projections, mean, 5 dense rows"
    assert found["context"] == "dynamic (the clip and 0.50 s)"


def test_info_of_what_is_not_a_model(tmp_path: Path) -> None:
    for name in (str(tmp_path), str(tmp_path / "gone")):
        result = CliRunner().invoke(cli, ["info", name])
        assert result.exit_code == 1
        assert name in result.stderr
