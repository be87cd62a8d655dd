"""The arrows between modules, as CONTRIBUTING.md draws them; and that these tests can fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import boundaries

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = ROOT / "baldwhisper_mlx"
CONVERTER = ROOT / "convert/baldwhisper_convert"
MODULE_LINES, FUNCTION_LINES = 300, 60

TRAINING = {"torch", "transformers", "accelerate", "datasets", "safetensors"}
# Labelled speech may come from the hub, if the package for that is there; it brings no torch.
HUB_DATASETS = [
    "baldwhisper_mlx.labelled -> datasets.Audio",
    "baldwhisper_mlx.labelled -> datasets.load_dataset",
]

STANDARD_LIBRARY_ONLY = ("_version", "config", "languages", "quantization")

# What the inner modules of the runtime may import of it. The outer ones (load, transcription and
# the command line's) bring them together and are free, but for circles.
RUNTIME_ARROWS: dict[str, set[str]] = {
    "_version": set(),
    "alignment": {"cache", "config", "warping"},
    "audio": {"config", "integrity", "samples"},
    "bench.cases": set(),
    "bench.ceilings": set(),
    "bench.children": set(),
    "bench.clips": {"audio", "config", "samples"},
    "bench.costs": {"config", "model"},
    "bench.memory": set(),
    "bench.results": set(),
    "bench.table": set(),
    "bench.timing": set(),
    "bench.plot": set(),
    "blas": set(),
    "cache": set(),
    "community": {"config", "languages", "model_files", "quantization", "tokenizer"},
    "config": {"quantization"},
    "decode": {"alignment", "cache", "config", "loops", "model", "rules"},
    "embedding": set(),
    "evaluation": set(),
    "evaluation.alignment": {"evaluation.scoring"},
    "evaluation.bootstrap": set(),
    "evaluation.dataset": {"labelled", "samples"},
    "evaluation.hypotheses": {"model_files"},
    "evaluation.normalizers": set(),
    "evaluation.report": {
        "evaluation.bootstrap",
        "evaluation.hypotheses",
        "evaluation.scoring",
        "evaluation.utterances",
    },
    "evaluation.scoring": {"evaluation.normalizers", "repeats"},
    "evaluation.table": {"evaluation.alignment", "evaluation.utterances"},
    "evaluation.utterances": {
        "evaluation.hypotheses",
        "evaluation.normalizers",
        "evaluation.scoring",
    },
    "features": {"config", "samples"},
    "functions": {"tiles"},
    "integrity": set(),
    "labelled": {"audio", "samples"},
    "languages": set(),
    "loops": {"repeats"},
    "model": {"cache", "config", "embedding", "functions", "tiles"},
    "quantization": set(),
    "quantized": {"embedding", "quantization"},
    "repeats": set(),
    "rules": {"config", "functions"},
    "tiles": set(),
    "samples": {"config"},
    "segments": {"config"},
    "subtitles": {"segments"},
    "tokenizer": {"config", "languages"},
    "vad": {"config", "samples"},
    "warping": set(),
    "words": {"config", "segments"},
    "writers": {"segments", "subtitles"},
}
COMMAND_LINE = {
    f"baldwhisper_mlx.{name}"
    for name in ("cli", "batch", "inputs", "outputs", "bench.command", "evaluation.command")
}

# Stages are found by name as they arrive. Recipes know their settings, and only what brings them
# together knows their order.
STAGES = {"align", "prepare", "finetune", "merge", "factorize", "distill", "export", "export_hf"}
STAGE_USERS = {
    f"baldwhisper_convert{name}"
    for name in (
        "",
        ".cli",
        ".stage_cli",
        ".run_cli",
        ".recipe",
        ".stage_runs",
        ".pipeline",
        ".search",
    )
}

# What of the runtime the converter may know: its contract, and how it reads speech, decodes and
# tokenizes, so that what trains is what is transcribed. None of it loads MLX. Export also runs
# what it wrote.
WITHOUT_MLX = ("audio", "integrity", "labelled", "samples", "tokenizer", "warping")
CONTRACT = {f"baldwhisper_mlx.{name}" for name in (*STANDARD_LIBRARY_ONLY, *WITHOUT_MLX)}
EXPORT_MAY = CONTRACT | {"baldwhisper_mlx.load"}


@pytest.fixture(scope="module")
def edges() -> boundaries.Graph:
    return boundaries.graph(RUNTIME, CONVERTER)


def of(edges: boundaries.Graph, package: str) -> boundaries.Graph:
    return {name: targets for name, targets in edges.items() if name.split(".")[0] == package}


def outside_standard_library(targets: set[str]) -> list[str]:
    return sorted(t for t in targets if t.split(".")[0] not in sys.stdlib_module_names)


def stage_arrows(edges: boundaries.Graph) -> list[str]:
    stages = {f"baldwhisper_convert.{name}" for name in STAGES}
    return [
        f"{name} -> {target}"
        for name, targets in edges.items()
        for target in targets & stages
        if name not in STAGE_USERS
    ]


def contract_breaches(edges: boundaries.Graph) -> list[str]:
    return [
        f"{name} -> {target}"
        for name, targets in of(edges, "baldwhisper_convert").items()
        for target in targets
        if target.split(".")[0] == "baldwhisper_mlx"
        and target not in (EXPORT_MAY if name == "baldwhisper_convert.export" else CONTRACT)
    ]


def test_runtime_imports_neither_torch_nor_converter(edges: boundaries.Graph) -> None:
    runtime = of(edges, "baldwhisper_mlx")
    assert len(runtime) > 10
    assert boundaries.importers(runtime, TRAINING | {"baldwhisper_convert"}) == HUB_DATASETS


def test_importing_all_of_the_runtime_loads_no_torch() -> None:
    names = sorted(boundaries.modules(RUNTIME))
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "bad = {'torch', 'transformers', 'datasets', 'baldwhisper_convert'} & sys.modules.keys()\n"
        "sys.exit(', '.join(sorted(bad)) or 0)"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'convert'}"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_the_converter_shares_loads_no_mlx() -> None:
    names = [f"baldwhisper_mlx.{name}" for name in WITHOUT_MLX]
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "sys.exit('mlx was loaded' if 'mlx' in sys.modules else 0)"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'convert'}"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", STANDARD_LIBRARY_ONLY)
def test_contract_needs_the_standard_library_only(edges: boundaries.Graph, name: str) -> None:
    assert outside_standard_library(edges[f"baldwhisper_mlx.{name}"] - CONTRACT) == []


def test_runtime_arrows(edges: boundaries.Graph) -> None:
    assert boundaries.strangers(edges, "baldwhisper_mlx", RUNTIME_ARROWS) == []


def test_library_does_not_know_the_command_line(edges: boundaries.Graph) -> None:
    for name in edges.keys() - COMMAND_LINE:
        assert not edges[name] & COMMAND_LINE, name


def test_stages_do_not_know_each_other(edges: boundaries.Graph) -> None:
    assert "baldwhisper_convert.export" in edges
    assert stage_arrows(edges) == []


def test_converter_knows_only_the_contract(edges: boundaries.Graph) -> None:
    assert contract_breaches(edges) == []


@pytest.mark.parametrize("package", ["baldwhisper_mlx", "baldwhisper_convert"])
def test_no_circles(edges: boundaries.Graph, package: str) -> None:
    assert boundaries.circle(of(edges, package)) == []


@pytest.mark.parametrize(
    "path",
    [*boundaries.modules(RUNTIME).values(), *boundaries.modules(CONVERTER).values()],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_proportions(path: Path) -> None:
    limits = {"module_lines": MODULE_LINES, "function_lines": FUNCTION_LINES}
    assert boundaries.proportions(path, **limits) == []


# The checks themselves, each on a package that breaks one rule.


def write_package(root: Path, **files: str) -> Path:
    for name, text in {"__init__": "", **files}.items():
        path = root / f"{name.replace('__sub__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    "line",
    [
        "import torch",
        "import torch.nn as nn",
        "from torch.nn import functional",
        "def f():\n    import torch",
        "try:\n    import torch\nexcept ImportError:\n    pass",
        "import importlib\nimportlib.import_module('torch')",
        "torch = __import__('torch')",
    ],
)
def test_finds_torch(tmp_path: Path, line: str) -> None:
    edges = boundaries.graph(write_package(tmp_path / "pack", bad=line, good="import json"))
    found = boundaries.importers(edges, {"torch"})
    assert len(found) == 1
    assert found[0].startswith("pack.bad -> torch")


@pytest.mark.parametrize(
    "line",
    [
        "from pack import b",
        "from pack.b import thing",
        "import pack.b",
        "from . import b",
        "from .b import thing",
        "def f():\n    from pack.b import thing",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pack.b import thing",
    ],
)
def test_finds_forbidden_arrows(tmp_path: Path, line: str) -> None:
    edges = boundaries.graph(write_package(tmp_path / "pack", a=line, b="thing = 1", c=line))
    assert boundaries.strangers(edges, "pack", {"a": set(), "b": set()}) == ["pack.a -> pack.b"]
    assert boundaries.strangers(edges, "pack", {"a": {"b"}}) == []


def test_finds_arrows_to_the_package_itself_and_from_folders(tmp_path: Path) -> None:
    files = {"a": "from pack import x", "sub__sub__b": "from ..a import y", "sub__sub__init": ""}
    edges = boundaries.graph(write_package(tmp_path / "pack", **files))
    assert boundaries.strangers(edges, "pack", {"a": set()}) == ["pack.a -> pack"]
    assert boundaries.strangers(edges, "pack", {"sub.b": set()}) == ["pack.sub.b -> pack.a"]


def test_finds_circles(tmp_path: Path) -> None:
    files = {"a": "import pack.b", "b": "def f():\n    from pack import c", "c": "from . import a"}
    edges = boundaries.graph(write_package(tmp_path / "pack", **files))
    assert boundaries.circle(edges) == ["pack.a", "pack.b", "pack.c", "pack.a"]
    edges["pack.c"].clear()
    assert boundaries.circle(edges) == []


def test_finds_third_party_imports() -> None:
    assert outside_standard_library({"json", "os.path", "numpy.typing"}) == ["numpy.typing"]


def test_finds_stages_that_know_each_other(tmp_path: Path) -> None:
    files = {
        "cli": "def f():\n    from baldwhisper_convert import merge, distill",
        "merge": "from baldwhisper_convert.distill import train",
        "distill": "from baldwhisper_convert import checkpoint",
        "checkpoint": "",
    }
    edges = boundaries.graph(write_package(tmp_path / "baldwhisper_convert", **files))
    assert stage_arrows(edges) == ["baldwhisper_convert.merge -> baldwhisper_convert.distill"]


def test_finds_breaches_of_the_contract(tmp_path: Path) -> None:
    runtime = write_package(tmp_path / "baldwhisper_mlx", config="X = 1", load="", model="")
    files = {
        "export": "from baldwhisper_mlx.load import load_model\nimport baldwhisper_mlx.model",
        "merge": "from baldwhisper_mlx.config import X\nfrom baldwhisper_mlx import load",
        "distill": "from baldwhisper_mlx import transcribe",
    }
    edges = boundaries.graph(runtime, write_package(tmp_path / "baldwhisper_convert", **files))
    assert sorted(contract_breaches(edges)) == [
        "baldwhisper_convert.distill -> baldwhisper_mlx",
        "baldwhisper_convert.export -> baldwhisper_mlx.model",
        "baldwhisper_convert.merge -> baldwhisper_mlx.load",
    ]


def test_finds_bad_proportions(tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text("def f():\n" + "    pass\n" * 9)
    assert boundaries.proportions(path, module_lines=9, function_lines=9) == [
        f"{path}: no module docstring",
        f"{path}: 10 lines",
        f"{path}:1: f has 10 lines",
    ]
    path.write_text('"""Why."""\n\ndef f():\n    pass\n')
    assert boundaries.proportions(path, module_lines=4, function_lines=2) == []
