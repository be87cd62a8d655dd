"""benchmarks/peers/compare.py and its neighbours on a tiny model; no time is judged."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import click
import mlx.core as mx
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from baldwhisper_convert.export.mlx import export_mlx
from baldwhisper_convert.readers.read import read_checkpoint
from baldwhisper_mlx.audio.features import mel_filters
from baldwhisper_mlx.checkpoint.calibrate import write_padding
from baldwhisper_mlx.checkpoint.load import load_model
from baldwhisper_mlx.cli import bench as bench_command
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.ops.functions import uses_cpu_fallback
from benchmarks import run_all
from benchmarks.peers import compare, ggml, models, programs
from benchmarks.result_files import read_result
from benchmarks.speed import paper_form, profile_model, scaling, soak
from tests.runtime.conftest import tiny_config, write_model
from tests.support import tiny
from tests.support.tiny_speech import sound, tiny_speech


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return export_mlx(tiny.tiny_form("dense"), folder, dtype="float32")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_speech(tmp_path_factory.mktemp("speech") / "dev", 2)


class Ggml:
    """Reads the format back, by its description and not by our writer."""

    def __init__(self, path: Path) -> None:
        self.data, self.at = path.read_bytes(), 0
        self.magic = self.take("i")[0]
        self.dims = dict(zip(ggml.DIMENSIONS, self.take("10i"), strict=True))
        self.type = self.take("i")[0]
        rows, columns = self.take("2i")
        self.filters = np.array(self.take(f"{rows * columns}f")).reshape(rows, columns)
        self.tokens = [self.raw(self.take("i")[0]) for _ in range(self.take("i")[0])]
        self.tensors, self.quantized = {}, set()
        while self.at < len(self.data):
            rank, length, kind = self.take("3i")
            shape = self.take(f"{rank}i")[::-1]
            name = self.raw(length).decode()
            count = int(np.prod(shape))
            if kind == 8:  # a scale for 32 values
                raw = self.raw(count // 32 * 34)
                blocks = np.frombuffer(raw, np.dtype([("scale", "<f2"), ("values", "i1", 32)]))
                wide = blocks["scale"][:, None].astype(np.float32) * blocks["values"]
                self.tensors[name] = wide.reshape(shape)
                self.quantized.add(name)
                continue
            dtype = np.dtype("<f2" if kind else "<f4")
            raw = self.raw(count * dtype.itemsize)
            self.tensors[name] = np.frombuffer(raw, dtype).reshape(shape)

    def take(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{layout}", self.raw(struct.calcsize(f"<{layout}")))

    def raw(self, length: int) -> bytes:
        self.at += length
        return self.data[self.at - length : self.at]


@pytest.mark.parametrize("form", ["dense", "tied"])
def test_ggml_holds_the_checkpoint(tmp_path: Path, form: str) -> None:
    checkpoint = tiny.tiny_form(form)
    found = Ggml(ggml.write_ggml(checkpoint, tmp_path / "model.bin"))
    assert found.magic == 0x67676D6C
    assert found.type == 1
    assert found.dims == vars(checkpoint.dims)
    np.testing.assert_allclose(found.filters, mel_filters(80).T)
    assert found.tokens == sorted(checkpoint.vocabulary.ranks, key=checkpoint.vocabulary.ranks.get)
    dense = {n: t for n, t in checkpoint.state.items() if "token_embedding" not in n}
    assert found.tensors.keys() == {*dense, "decoder.token_embedding.weight"}
    for name, tensor in dense.items():
        stored = found.tensors[name]
        vector = tensor.ndim == 1 or name.endswith("positional_embedding")
        assert stored.dtype == (np.float32 if vector else np.float16)
        np.testing.assert_allclose(stored.squeeze(), tensor.numpy().squeeze(), rtol=1e-3, atol=1e-6)
    assert found.tensors["encoder.conv1.bias"].shape == (64, 1)
    assert list(tmp_path.iterdir()) == [tmp_path / "model.bin"]


def test_quantized_ggml_is_near_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = tiny.tiny_form("dense")
    plain = Ggml(ggml.write_ggml(checkpoint, tmp_path / "plain.bin"))
    found = Ggml(ggml.write_ggml(checkpoint, tmp_path / "q8_0.bin", quantized=True))
    assert (found.type, plain.type) == (7, 1)
    assert found.tensors.keys() == plain.tensors.keys()
    matrices = {n for n, t in checkpoint.state.items() if t.ndim == 2 and "positional" not in n}
    assert found.quantized == matrices
    for name, tensor in found.tensors.items():
        exact = plain.tensors[name].astype(np.float32)
        # half a step of the block's scale, and the rounding of the scale to float16
        bound = 0.6 / 127 * np.abs(exact).max() if name in matrices else 0
        assert np.abs(tensor - exact).max() <= bound


def test_blocks_of_zeros_and_of_extremes() -> None:
    values = np.zeros((2, 32), np.float32)
    values[1, :3] = (-2.54, 2.54, 0.01)
    scale, *whole = struct.unpack("<e32b", ggml.q8_0(values)[34:])
    assert scale == pytest.approx(0.02, rel=1e-3)
    assert whole[:4] == [-127, 127, 1, 0]
    assert ggml.q8_0(values)[:34] == bytes(34)


def test_ggml_cannot_hold_two_embeddings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two embeddings"):
        ggml.write_ggml(tiny.tiny_form("untied"), tmp_path / "model.bin")


def test_ggml_as_a_command(tmp_path: Path, model: Path) -> None:
    output = tmp_path / "model.bin"
    result = CliRunner().invoke(ggml.main, [str(model), str(output)])
    assert result.exit_code == 0, result.output
    assert Ggml(output).dims == vars(read_checkpoint(model).dims)


def test_other_forms_are_of_the_same_weights(tmp_path: Path, model: Path) -> None:
    forms = models.Forms(str(model), tmp_path)
    for form in ("mlx", "openai.pt", "transformers", "ctranslate2"):
        forms.make(form)
        made = (tmp_path / form).stat().st_mtime_ns
        forms.make(form)
        assert (tmp_path / form).stat().st_mtime_ns == made  # not again
        assert models.model_bytes(tmp_path / form) > 10_000
        state = read_checkpoint(tmp_path / form, tokenizer=str(model)).state
        for name, tensor in forms.checkpoint.state.items():
            # float16 as published, but positions, which a format may compute
            np.testing.assert_allclose(state[name].float(), tensor.float(), rtol=1e-3, atol=1e-3)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    with pytest.raises(RuntimeError, match="nosuch"):
        forms.path("nosuch")


def run(model: Path, data: Path, output: Path, *more: str) -> Result:
    work = ["--work", str(output.parent / "work"), "--output", str(output)]
    only = ["--only", "baldwhisper-mlx", "--only", "whisper.cpp", "--only", "transformers"]
    command = [str(model), "--data", str(data), "--limit", "1", *work, *only, *more]
    return CliRunner().invoke(compare.main, command)


def test_measured_missing_and_failed(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(package: str) -> str:
        if package == "pywhispercpp":
            raise PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(compare, "version", version)
    run_program = compare.run_program

    def fail(one: compare.Contender, *rest: Any) -> Any:
        if one.program == "transformers":
            raise RuntimeError("out of patience")
        return run_program(one, *rest)

    monkeypatch.setattr(compare, "run_program", fail)
    monkeypatch.setattr(compare.Forms, "path", lambda self, form: model)
    output = tmp_path / "peers.json"
    result = run(model, data, output)
    assert result.exit_code == 0, result.output
    found = read_result(output, "peers")
    ours = found["peers"]["baldwhisper-mlx"]
    assert ours["status"] == "measured"
    assert 0 <= ours["startup_seconds"] < 1000
    assert ours["wer"] is not None
    assert list(ours["seconds_by_length"]) == ["3", "10", "30"]
    assert ours["settings"]["audio context"] == "full"
    missing, failed = found["peers"]["whisper.cpp"], found["peers"]["transformers"]
    assert missing == {"status": "missing", "reason": "pywhispercpp is not installed"}
    assert (failed["status"], failed["reason"]) == ("failed", "out of patience")
    for part in ("RTF", "whisper.cpp: missing", "transformers: failed (out of patience)"):
        assert part in result.output

    # a second run keeps what was measured, and tries again what was not
    tried = []

    def fail_again(one: compare.Contender, *_: Any) -> Any:
        tried.append(one.program)
        raise RuntimeError("still")

    monkeypatch.setattr(compare, "run_program", fail_again)
    assert run(model, data, output).exit_code == 0
    assert json.loads(output.read_text())["peers"]["baldwhisper-mlx"] == ours
    assert tried == ["transformers"]
    assert "other settings" in run(model, data, output, "--language", "fr").output


def test_a_failure_of_our_own_is_an_error(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in the result like that of another program, and in the exit code."""

    def fail(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(compare, "version", lambda _: "1.0")
    monkeypatch.setattr(compare, "run_program", fail)
    monkeypatch.setattr(compare.Forms, "path", lambda self, form: model)
    output = tmp_path / "peers.json"
    result = run(model, data, output)
    assert result.exit_code == 1
    assert result.output.endswith("Error: failed: baldwhisper-mlx\n")
    peers = json.loads(output.read_text())["peers"]
    assert {row["status"] for row in peers.values()} == {"failed"}
    assert len(peers) == 3


def test_a_program_that_dies_is_a_failure(data: Path, tmp_path: Path) -> None:
    clips = compare.Clips(data, 1, tmp_path)
    with pytest.raises(RuntimeError, match="gone"):
        compare.run_program(compare.Contender("ours"), tmp_path / "gone", clips, 1, "en")


def test_pieces_have_their_lengths_and_begin_with_their_clips(data: Path, tmp_path: Path) -> None:
    clips = compare.Clips(data, 2, tmp_path)
    first, second = (np.load(path) for path in clips.paths)
    assert list(clips.pieces) == [3, 10, 30]
    for length, paths in clips.pieces.items():
        pieces = [np.load(path) for path in paths]
        assert [len(piece) for piece in pieces] == [length * SAMPLE_RATE] * 2
        both = np.concatenate([first, second])
        np.testing.assert_array_equal(pieces[0], np.resize(both, len(pieces[0])))
        np.testing.assert_array_equal(pieces[1][: len(second)], second[: len(pieces[1])])


def test_the_process_that_waits_stays_small() -> None:
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "from benchmarks.peers import compare\nfrom benchmarks.speed import scaling\n"
        "sys.exit(str({'mlx.core', 'torch', 'whisper'} & sys.modules.keys() or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_what_a_program_says(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "clip.npy"
    np.save(path, sound(1.0))
    job = {"program": "ours", "model": str(model), "threads": 1, "language": "en"}
    job |= {"pieces": {"3": [str(path)] * 2}, "audio_context": "padded"}
    said: list[dict[str, Any]] = []
    programs.work(job | {"clips": [str(path), str(path)]}, said.append)
    settings, *transcribed, last, first_piece, second_piece = said
    assert settings["settings"]["dtype"] == "float32"
    assert settings["settings"]["audio context"] == "padded"
    assert first_piece["length"] == second_piece["length"] == "3"
    assert first_piece["seconds"] > 0
    assert len(transcribed) == 3  # the first clip once more, while all is cold
    assert len({line["text"] for line in transcribed}) == 1
    assert last["peak_process_bytes"] > 10_000_000


def test_models_and_checkpoints_are_named() -> None:
    plan = compare.plan(["student=."], ["tiny=CKPT"], [])
    ours = ["baldwhisper-mlx", "baldwhisper-mlx, padded context", "baldwhisper-mlx, student"]
    assert list(plan)[:4] == [*ours, "mlx-whisper"]
    assert [plan[name].context for name in ours] == ["full", "padded", None]
    assert plan[ours[2]].folder == Path()
    also = {name: one for name, one in plan.items() if one.checkpoint}
    assert list(also) == [f"{program}, tiny" for program in compare.ALSO]
    assert {one.checkpoint for one in also.values()} == {"CKPT"}
    assert {one.program for one in also.values()} <= {compare.TEACHER, *programs.PROGRAMS}
    assert set(compare.plan([], [], ["whisper.cpp"])) == {"whisper.cpp"}
    wrong: list[tuple[list[str], list[str], list[str]]] = [
        (["student"], [], []), (["a=/no/such/folder"], [], []), ([], ["tiny"], []),
        ([], [], ["nobody"]),
    ]  # fmt: skip
    for named, checkpoints, only in wrong:
        with pytest.raises(click.UsageError):
            compare.plan(named, checkpoints, only)


def test_scaling_measures_what_is_missing(model: Path, tmp_path: Path) -> None:
    audio, output = tmp_path / "a.wav", tmp_path / "scaling.json"
    soundfile.write(audio, sound(0.7), SAMPLE_RATE)

    def measure(*more: str) -> Result:
        fixed = [str(audio), "--model", f"tiny={model}", "--tokens", "2", "--output", str(output)]
        return CliRunner().invoke(scaling.main, [*fixed, *more])

    first = measure("--length", "1", "--batch", "1")
    assert first.exit_code == 0, first.output
    before = json.loads(output.read_text())["models"]["tiny"]
    second = measure("--length", "1", "--length", "2", "--batch", "1", "--batch", "2")
    assert second.exit_code == 0, second.output
    found = read_result(output, "scaling")["models"]["tiny"]
    assert [p["audio_seconds"] for p in found["lengths"]] == [1.0, 2.0]
    assert [(p["batch"], p["tokens"]) for p in found["batches"]] == [(1, 2), (2, 4)]
    assert found["lengths"][0] == before["lengths"][0]
    assert found["batches"][0] == before["batches"][0]
    assert measure("--length", "1", "--language", "fr").exit_code == 1


def test_repeated_audio_has_its_length(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    one, two = sound(0.3, 1), sound(0.2, 2)
    scaling.write_repeated([one, two], 1.15, path)
    found, rate = soundfile.read(path, dtype="float32")
    expected = np.tile(np.concatenate([one, two]), 3)[: round(1.15 * SAMPLE_RATE)]
    assert rate == SAMPLE_RATE
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_profile_has_parts_and_primitives(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "profile.json"
    command = [f"tiny={model}", "--repeats", "1", "--position", "5", "--output", str(output)]
    result = CliRunner().invoke(profile_model.main, command)
    assert result.exit_code == 0, result.output
    found = read_result(output, "profile")["models"]["tiny"]
    kinds = {part["kind"] for part in found["encoder"]["parts"]}
    assert {"product", "attention", "gelu", "norm"} <= kinds
    # where NumPy goes through attention tile by tile, its pieces are not to be had apart
    assert ("softmax" in kinds) == (not uses_cpu_fallback(mx.zeros(1)))
    assert {part["name"] for part in found["step"]["parts"]} >= {"vocabulary", "logit rules"}
    assert found["step"]["primitives"]["Matmul"] > 0
    assert found["encoder"]["whole_ms"] > 0
    wrong = CliRunner().invoke(profile_model.main, [f"tiny={model}", "--position", "448"])
    assert "room for 448 tokens" in wrong.output


def test_everything_runs_with_options_that_exist(model: Path, data: Path, tmp_path: Path) -> None:
    plan = run_all.commands(
        "ckpt",
        model,
        {"student": model, "8 bits": model},
        data,
        tmp_path,
        language="en",
        quick=True,
    )
    mains = {
        "bench": bench_command.bench,
        "peers": compare.main,
        "scaling": scaling.main,
        "profile": profile_model.main,
    }
    for kind, path, command in plan:
        assert command[0] == sys.executable
        assert path.name.startswith(f"{kind}-")
        arguments = command[command.index("bench") + 1 :] if kind == "bench" else command[3:]
        # Click keeps the help option it makes first, so this has to be the one that users see.
        context = mains[kind].make_context(
            kind, list(arguments), help_option_names=["-h", "--help"]
        )
        assert str(path) in map(str, context.params.values())
        if kind in ("scaling", "peers"):
            assert any("8 bits=" in word for word in command)


def test_the_bundled_model_is_the_student_by_default(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_all, "BUNDLED", model)
    assert run_all.read_students(()) == {"student": model}
    students = run_all.read_students(())
    plan = run_all.commands("c", data, students, data, tmp_path, language="en", quick=False)
    assert "--student" not in next(plan)[2]
    assert run_all.read_students((str(model), f"small={model}")).keys() == {"student", "small"}
    monkeypatch.setattr(run_all, "BUNDLED", tmp_path)
    for wrong in ((), (f"other={model}",), ("nowhere",)):
        with pytest.raises(click.UsageError):
            run_all.read_students(wrong)


def test_the_teacher_is_measured_in_full_context(model: Path, tmp_path: Path) -> None:
    run_all.check_teacher(model)
    padded = shutil.copytree(model, tmp_path / "padded")
    write_padding(padded)
    with pytest.raises(click.UsageError, match=r"padded: has the constants .* --no-padding"):
        run_all.check_teacher(padded)


def test_a_model_of_the_papers_form(model: Path, tmp_path: Path) -> None:
    arguments = [str(model), str(tmp_path / "form"), "--layers", "1", "--rank", "4"]
    made = CliRunner().invoke(paper_form.main, arguments)
    assert made.exit_code == 0, made.output
    config, teacher = load_model(tmp_path / "form").config, load_model(model).config
    assert (config.n_text_layer, config.embedding_rank) == (1, 4)
    assert (config.n_vocab, config.n_audio_layer) == (teacher.n_vocab, teacher.n_audio_layer)
    again = CliRunner().invoke(paper_form.main, arguments)
    assert again.exit_code == 2
    assert "exists; name a new folder" in again.output


def test_memory_is_read_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "EVERY", 2)
    monkeypatch.setattr(soak, "WARM_UP", 4)
    folder = tmp_path / "tiny"
    write_model(folder, tiny_config(audio_context="dynamic"))
    output = tmp_path / "soak.json"
    arguments = ["--model", str(folder), "--files", "6", "--most", "0.6", "--output", str(output)]
    result = CliRunner().invoke(soak.main, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(output.read_text())
    assert [row["files"] for row in found["memory"]] == [2, 4, 6]
    assert all(row["bytes"] > 10_000_000 for row in found["memory"])
    after_warm_up = [row["bytes"] for row in found["memory"][1:]]
    assert found["drift"] == pytest.approx(after_warm_up[1] / after_warm_up[0] - 1)
