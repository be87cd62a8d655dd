"""The arrows between modules, as CONTRIBUTING.md draws them; and that these tests can fail."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import boundaries

ROOT = Path(__file__).resolve().parent.parent
RUNTIME = ROOT / "baldwhisper_mlx"
CONVERTER = ROOT / "convert/baldwhisper_convert"
MODULE_LINES, FUNCTION_LINES = 300, 60
MODULES = 8

PACKAGES = ("baldwhisper_mlx", "baldwhisper_convert")

# Who may import whom; CONTRIBUTING.md quotes the table.
#   layers            a room (folder) imports rooms further to the right only; `(root)` is
#                     the modules that lie directly in the package
#   never             none of these is imported
#   only              of the two packages, nothing but these is imported
#   only imported by  these, each other, and the `__init__` that names what users import
RULES: tuple[tuple[str, str, str], ...] = (
    (
        "baldwhisper_mlx",
        "layers",
        "cli > bench, evaluation, server > transcription > checkpoint, output > decoding "
        "> audio, model, text > (root) > ops",
    ),
    (
        "baldwhisper_convert",
        "layers",
        "cli > labelling, pipeline > compression > training > data > export, model, readers > "
        "checkpoint > (root)",
    ),
    (
        "baldwhisper_mlx",
        "never",
        "torch, transformers, accelerate, safetensors, baldwhisper_convert",
    ),
    ("baldwhisper_mlx.decoding", "never", "baldwhisper_mlx.audio, baldwhisper_mlx.text"),
    ("baldwhisper_mlx.output", "only", "baldwhisper_mlx.output, baldwhisper_mlx.files"),
    (
        "baldwhisper_mlx.evaluation.bootstrap, baldwhisper_mlx.evaluation.normalizers, "
        "baldwhisper_mlx.evaluation.report, baldwhisper_mlx.evaluation.scoring",
        "never",
        "baldwhisper_mlx.audio, baldwhisper_mlx.transcription, "
        "baldwhisper_mlx.evaluation.inference, mlx",
    ),
    (
        "baldwhisper_convert",
        "only",
        "baldwhisper_convert, baldwhisper_mlx._version, baldwhisper_mlx.audio, "
        "baldwhisper_mlx.bounds, baldwhisper_mlx.checkpoint.calibrate, "
        "baldwhisper_mlx.checkpoint.hub, baldwhisper_mlx.checkpoint.load, baldwhisper_mlx.config, "
        "baldwhisper_mlx.decoding.dtw, baldwhisper_mlx.files, baldwhisper_mlx.model.positions, "
        "baldwhisper_mlx.output.json_lines, baldwhisper_mlx.quantization_config, "
        "baldwhisper_mlx.terminal, baldwhisper_mlx.text, "
        "baldwhisper_mlx.transcription",
    ),
    (
        "baldwhisper_mlx.checkpoint",
        "only imported by",
        "baldwhisper_mlx, baldwhisper_convert.export.mlx, baldwhisper_convert.export.push, "
        "baldwhisper_convert.labelling.models, baldwhisper_convert.readers.hub",
    ),
    (
        "baldwhisper_mlx.transcription",
        "only imported by",
        "baldwhisper_mlx, baldwhisper_convert.labelling.models",
    ),
    (
        "baldwhisper_convert.compression.factorize, baldwhisper_convert.compression.merge, "
        "baldwhisper_convert.data.prepare, baldwhisper_convert.export",
        "only imported by",
        "baldwhisper_convert.cli, baldwhisper_convert.pipeline",
    ),
)
STANDARD_LIBRARY_ONLY = (
    "_version",
    "bounds",
    "config",
    "config_checks",
    "files",
    "quantization_config",
    "terminal",
    "text.languages",
    "text.openai_vocabulary",
)

# Labelled speech may come from the hub, if the package for that is there; it brings no torch.
HUB_DATASETS = [
    "baldwhisper_mlx.audio.speech_arrow -> datasets.Audio",
    "baldwhisper_mlx.audio.speech_arrow -> datasets.DatasetDict",
    "baldwhisper_mlx.audio.speech_arrow -> datasets.load_dataset",
    "baldwhisper_mlx.audio.speech_arrow -> datasets.load_from_disk",
]

# What the converter shares with the runtime loads no MLX; only export runs what it wrote.
WITHOUT_MLX = (
    "audio.buffer",
    "audio.containers",
    "audio.folders",
    "audio.integrity",
    "audio.load",
    "audio.speech_arrow",
    "audio.speech_audio",
    "audio.speech_columns",
    "audio.speech_dataset",
    "audio.speech_folders",
    "audio.speech_lists",
    "checkpoint.describe",
    "checkpoint.files",
    "checkpoint.hub",
    "checkpoint.mlx_whisper_config",
    "decoding.dtw",
    "files",
    "model.positions",
    "output.json_lines",
    "text.openai_vocabulary",
    "text.tokenizer",
    "text.vocabulary",
)


def named(rule: tuple[str, str, str]) -> list[str]:
    """Modules and rooms of ours in a rule, by full name."""
    who, kind, rooms = rule
    names = re.split(" > |, ", rooms)
    if kind == "layers":
        return [f"{who}.{room}" for room in names if room != "(root)"]
    return [name for name in (*who.split(", "), *names) if name.split(".")[0] in PACKAGES]


def table(rules: tuple[tuple[str, str, str], ...]) -> str:
    """The rules as the table of CONTRIBUTING.md."""
    rows = [
        f"| {', '.join(f'`{name}`' for name in who.split(', '))} | {kind} | `{rooms}` |"
        for who, kind, rooms in rules
    ]
    return "\n".join(["| who | rule | rooms |", "|---|---|---|", *rows])


@pytest.fixture(scope="module")
def edges() -> boundaries.Graph:
    return boundaries.graph(RUNTIME, CONVERTER)


def of(edges: boundaries.Graph, package: str) -> boundaries.Graph:
    return {name: targets for name, targets in edges.items() if name.split(".")[0] == package}


def outside_standard_library(targets: set[str]) -> list[str]:
    return sorted(t for t in targets if t.split(".")[0] not in sys.stdlib_module_names)


def test_datasets_is_the_only_training_package_in_the_runtime(edges: boundaries.Graph) -> None:
    runtime = of(edges, "baldwhisper_mlx")
    assert len(runtime) > 10
    assert boundaries.importers(runtime, {"torch", "datasets", *PACKAGES[1:]}) == HUB_DATASETS


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
    contract = {f"baldwhisper_mlx.{module}" for module in STANDARD_LIBRARY_ONLY}
    assert outside_standard_library(edges[f"baldwhisper_mlx.{name}"] - contract) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule[0]} {rule[1]}")
def test_who_imports_whom(edges: boundaries.Graph, rule: tuple[str, str, str]) -> None:
    assert boundaries.breaches(edges, PACKAGES, rule) == []


def test_contributing_quotes_the_table() -> None:
    assert table(RULES) in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted({name for rule in RULES for name in named(rule)}))
def test_the_table_names_what_exists(edges: boundaries.Graph, name: str) -> None:
    assert name in edges


@pytest.mark.parametrize("package", [RUNTIME, CONVERTER], ids=lambda package: package.name)
def test_few_modules_lie_directly_in_a_package(package: Path) -> None:
    assert len(list(package.glob("*.py"))) <= MODULES


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


LINES = [
    "from pack.b import thing",
    "from pack.b.c import thing",
    "import pack.b.c",
    "from ..b import thing",
    "from ..b.c import thing",
    "def f():\n    from pack.b import c",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pack.b import c",
]


def rooms(root: Path, line: str) -> boundaries.Graph:
    """Two rooms, of which `a` imports `b` by `line`, and a module beside them."""
    files = {"a__sub__init": "", "a__sub__x": line, "b__sub__c": "thing = 1", "config": ""}
    return boundaries.graph(write_package(root / "pack", **files))


@pytest.mark.parametrize("line", LINES)
def test_finds_breaches_of_layers(tmp_path: Path, line: str) -> None:
    edges = rooms(tmp_path, line)
    check = lambda layers: boundaries.breaches(edges, ("pack",), ("pack", "layers", layers))  # noqa: E731
    assert check("a > b > (root)") == []
    for wrong in ("b > a > (root)", "a, b > config"):
        found = check(wrong)
        assert [arrow.split(" -> ")[0] for arrow in found] == ["pack.a.x"]
    assert check("a > (root)") != []


def test_finds_rooms_that_import_the_package(tmp_path: Path) -> None:
    edges = rooms(tmp_path, "from pack import something")
    rule = ("pack", "layers", "a > b > (root)")
    assert boundaries.breaches(edges, ("pack",), rule) == ["pack.a.x -> pack"]


@pytest.mark.parametrize("line", LINES)
def test_finds_breaches_of_the_other_rules(tmp_path: Path, line: str) -> None:
    edges = rooms(tmp_path, line)

    def check(*rule: str) -> list[str]:
        who, kind, names = rule
        found = boundaries.breaches(edges, ("pack",), (who, kind, names))
        return [arrow.split(" -> ")[0] for arrow in found]

    assert check("pack.a", "never", "pack.b") == ["pack.a.x"]
    assert check("pack.b", "never", "pack.a") == check("pack.a", "never", "torch") == []
    assert check("pack.a", "only", "pack.a, pack.config") == ["pack.a.x"]
    assert check("pack.a", "only", "pack.b") == []
    assert check("pack.b", "only imported by", "pack.config") == ["pack.a.x"]
    assert check("pack.b", "only imported by", "pack.a") == []


def test_finds_circles(tmp_path: Path) -> None:
    files = {"a": "import pack.b", "b": "def f():\n    from pack import c", "c": "from . import a"}
    edges = boundaries.graph(write_package(tmp_path / "pack", **files))
    assert boundaries.circle(edges) == ["pack.a", "pack.b", "pack.c", "pack.a"]
    edges["pack.c"].clear()
    assert boundaries.circle(edges) == []


def test_finds_third_party_imports() -> None:
    assert outside_standard_library({"json", "os.path", "numpy.typing"}) == ["numpy.typing"]


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
