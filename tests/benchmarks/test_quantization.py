"""The benchmark quantization on a tiny model: plausible figures, a table, resuming."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from baldwhisper_convert.export.mlx import export_mlx, mlx_tensors
from benchmarks.compression import quantization
from benchmarks.report import compression, tables
from tests.support import tiny

SAMPLE = Path(__file__).parents[2] / "examples" / "sample.wav"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech") / "dev"
    folder.mkdir()
    shutil.copy(SAMPLE, folder / "a.wav")
    row = {"file_name": "a.wav", "text": SAMPLE.with_suffix(".txt").read_text().strip()}
    (folder / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return export_mlx(tiny.tiny_form("dense"), folder, dtype="float32")


def run(checkpoint: Path, data: Path, output: Path, *variants: str) -> Any:
    arguments = [str(checkpoint), "--data", str(data), "--output", str(output)]
    for name in variants:
        arguments += ["--variant", name]
    return CliRunner().invoke(quantization.main, arguments)


def test_figures_and_going_on(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "result.json"
    names = ["float16", "8 bits, groups of 64", "4 bits, groups of 64"]
    first = run(checkpoint, data, output, *names[:2])
    assert first.exit_code == 0, first.output
    before = json.loads(output.read_text())["variants"]
    result = run(checkpoint, data, output, *names)
    assert result.exit_code == 0, result.output
    found = json.loads(output.read_text())
    assert found["variants"][:2] == before
    assert [row["variant"] for row in found["variants"]] == names
    half, eight, four = found["variants"]
    assert half["megabytes"] > eight["megabytes"] > four["megabytes"]
    assert 0 <= half["kl"] < eight["kl"] < four["kl"]
    assert half["top1"] >= 0.95
    assert half["tokens"] > 10
    assert tables.markdown(compression.quantization_rows(found)) in result.output

    other = tmp_path / "other"
    shutil.copytree(data, other)
    assert "measured with other settings" in run(checkpoint, other, output).output


def test_variants_judge_the_embedding_apart() -> None:
    tensors = mlx_tensors(tiny.tiny_form("untied").state, "float32", "x")
    embedding, layer = "decoder.token_embedding.input_projection", "decoder.blocks.0.mlp1"
    kept = quantization.variants()["8 bits, embedding float16"]
    alone = quantization.variants()["float16, embedding 6 bits"]
    assert kept is not None
    assert alone is not None
    assert kept.plan(tensors).of(embedding) is None
    assert str(kept.plan(tensors).of(layer)) == "8 bits in groups of 64"
    assert str(alone.plan(tensors).of(embedding)) == "6 bits in groups of 64"
    assert alone.plan(tensors).of(layer) is None
