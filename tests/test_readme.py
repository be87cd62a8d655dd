"""The documentation is true: commands, links, modules and Python names exist; figures are measured.

Figures come from `benchmarks/results`; tables that the report makes are compared in
tests/benchmarks/test_report.py.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from PIL import Image

from benchmarks.report import build, overview_plot
from benchmarks.speed import decode_speed
from scripts import update_cli_docs
from tests import test_boundaries

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results"
README_LINES = 150
PICTURE_BYTES = 100_000
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "examples/README.md",
    "recipes/README.md",
    "baldwhisper_mlx/assets/base-en/README.md",
    "docs/architecture.md",
    "docs/benchmarks.md",
    "docs/compression.md",
    "docs/evaluation.md",
    "docs/format.md",
    "docs/profile.md",
    "docs/reproduction.md",
    "docs/training.md",
)
TREES = ("baldwhisper_mlx", "convert/baldwhisper_convert")
"""Packages whose modules docs/architecture.md lists."""
PROGRAMS = update_cli_docs.groups()


def blocks(text: str, language: str) -> list[str]:
    """The contents of the fenced blocks of one language."""
    fenced = re.findall(r"^```(.*?)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [block for found, block in fenced if found == language]


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def result(name: str) -> dict[str, Any]:
    """Contents of a result file; `name` may have a pattern for the chip."""
    (path,) = RESULTS.glob(f"{name}.json")
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def command_lines() -> list[str]:
    """What the pages tell people to type, continued lines joined."""
    lines: list[str] = []
    for page in PAGES:
        text = read(page)
        for block in blocks(text, "bash"):
            lines += block.replace("\\\n", " ").splitlines()
        for block in blocks(text, "console"):
            lines += [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    return lines


def starting_with(program: str) -> list[str]:
    return [line for line in command_lines() if shlex.split(line, comments=True)[:1] == [program]]


def make_targets(makefile: str) -> set[str]:
    return {
        target
        for line in re.findall(r"^\.PHONY:(.*)$", makefile, flags=re.MULTILINE)
        for target in line.split()
    }


def parse(line: str) -> None:
    """Parses a command line as click would, without running it.

    Raises:
        click.UsageError: no such command or option, or a bad value.
    """
    program, *arguments = shlex.split(line, comments=True)
    command: click.Command = PROGRAMS[program]
    context = command.make_context(program, list(arguments))
    while isinstance(command, click.Group):
        arguments = [*context._protected_args, *context.args]
        name, found, rest = command.resolve_command(context, arguments)
        assert found is not None
        command = found
        context = command.make_context(name, rest, parent=context)


def missing_names(snippet: str) -> list[str]:
    """Modules that a Python snippet imports, and attributes of them it uses, that do not exist."""
    tree = ast.parse(snippet)
    used: list[tuple[str, str | None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            used += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            used += [(str(node.module), alias.name) for alias in node.names]
    imported = {module for module, name in used if name is None}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in imported:
            used.append((ast.unparse(node.value), node.attr))
    missing = []
    for module, name in used:
        found = importlib.import_module(module)
        if name is not None and not hasattr(found, name):
            missing.append(f"{module}.{name}")
    return missing


def test_make_targets_exist() -> None:
    targets = make_targets(read("Makefile"))
    lines = starting_with("make")
    assert {"make demo", "make test"} <= set(lines)
    for line in lines:
        named = [word for word in shlex.split(line)[1:] if "=" not in word]
        assert named
        assert set(named) <= targets, line


@pytest.mark.parametrize("program", PROGRAMS)
def test_command_lines_parse(program: str) -> None:
    lines = starting_with(program)
    assert lines
    for line in lines:
        parse(line)


@pytest.mark.parametrize(
    "line",
    [
        "baldwhisper sing talk.mp3",
        "baldwhisper transcribe --model m",
        "baldwhisper transcribe talk.mp3 --model m --louder",
        "baldwhisper-convert export a b --dtype int3",
    ],
)
def test_a_wrong_command_line_does_not_parse(line: str) -> None:
    with pytest.raises(click.UsageError):
        parse(line)


def test_python_snippets_name_what_exists() -> None:
    snippets = blocks(read("README.md"), "python")
    assert snippets
    for snippet in snippets:
        assert missing_names(snippet) == []


def test_a_wrong_snippet_is_found() -> None:
    snippet = "import baldwhisper_mlx\nfrom json import load, lod\nbaldwhisper_mlx.transcribed('a')"
    assert missing_names(snippet) == ["json.lod", "baldwhisper_mlx.transcribed"]


def test_command_line_page_is_current() -> None:
    page = update_cli_docs.OUTPUT.read_text(encoding="utf-8")
    assert page == update_cli_docs.render(), "run scripts/update_cli_docs.py"


@pytest.mark.parametrize("page", [*PAGES, "benchmarks/RESULTS.md", "docs/cli.md", "docs/log.md"])
def test_links_to_files_resolve(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)", read(page)):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def headings(page: str) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", read(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_to_headings_resolve(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", read(page)):
        other = (ROOT / page).parent / target if target else ROOT / page
        assert anchor in headings(str(other.resolve().relative_to(ROOT))), anchor


def tree(block: str) -> dict[str, str]:
    """Modules of a tree, drawn by indentation, by path; each with its description."""
    found: dict[str, str] = {}
    folders: list[tuple[int, str]] = []
    for line in block.splitlines():
        name, _, description = line.strip().partition(" ")
        depth = len(line) - len(line.lstrip())
        folders = [(indent, folder) for indent, folder in folders if indent < depth]
        path = "".join(folder for _, folder in folders) + name
        if name.endswith("/"):
            folders.append((depth, name))
        else:
            assert path not in found, f"{path} is in the tree twice"
            found[path] = description.strip()
    return found


def test_module_lists_are_complete() -> None:
    """Every module is in docs/architecture.md, in its folder, and none that is gone."""
    trees = [tree(block) for block in blocks(read("docs/architecture.md"), "")]
    listed = {path: description for found in trees for path, description in found.items()}
    present = {
        path.relative_to(ROOT).as_posix()
        for package in TREES
        for path in (ROOT / package).rglob("*.py")
        if not path.name.startswith("_")
    }
    assert not present - listed.keys(), "add these modules to docs/architecture.md"
    assert not listed.keys() - present, "remove these from docs/architecture.md"
    assert [path for path, description in listed.items() if not description] == []


def test_a_tree_is_read_by_indentation() -> None:
    drawn = "a/\n  b/    room\n    c.py  one\n  c.py    two\nd/\n  c.py  three\n"
    assert tree(drawn) == {"a/b/c.py": "one", "a/c.py": "two", "d/c.py": "three"}


def test_layers_are_those_that_the_boundary_tests_enforce() -> None:
    page = read("docs/architecture.md")
    layers = [(who, rooms) for who, kind, rooms in test_boundaries.RULES if kind == "layers"]
    assert len(layers) == len(TREES)
    for who, rooms in layers:
        assert f"| `{who}` | `{rooms}` |" in page


def missing_files(text: str, files: set[str]) -> list[str]:
    """Python and recipe files that a text names in backticks and that are not there."""
    named = re.findall(r"`([\w/.-]+\.(?:py|toml))(?:::\w+)?`", text)
    return [name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)]


@pytest.mark.parametrize("page", PAGES)
def test_files_named_in_the_text_exist(page: str) -> None:
    tops = (*TREES, "benchmarks", "recipes", "scripts", "tests")
    files = {
        path.relative_to(ROOT).as_posix()
        for top in tops
        for kind in ("*.py", "*.toml")
        for path in (ROOT / top).rglob(kind)
    } | {"pyproject.toml"}
    assert missing_files(read(page), files) == []


def test_a_missing_file_is_found() -> None:
    text = "see `a/b.py`, `b.py`, `x/b.py` and `c.toml`"
    assert missing_files(text, {"a/b.py"}) == ["x/b.py", "c.toml"]


def test_the_readme_is_short() -> None:
    assert len(read("README.md").splitlines()) <= README_LINES


def test_the_readme_shows_the_transcript_of_the_sample() -> None:
    (block,) = blocks(read("README.md"), "console")
    command, output = block.split("\n", 1)
    assert command == "$ baldwhisper transcribe examples/sample.wav"
    spoken, shown = (
        re.findall(r"\w+", text.lower()) for text in (read("examples/sample.txt"), output)
    )
    assert shown == spoken


def test_the_plot_shows_the_result_file() -> None:
    shown = overview_plot.peers_to_show(build.read_results(RESULTS))
    assert shown is not None
    path = ROOT / overview_plot.PICTURE
    assert path.stat().st_size < PICTURE_BYTES
    with Image.open(path) as picture:
        drawn = picture.info["Description"]
    message = "run python -m benchmarks.report"
    assert drawn == overview_plot.description(overview_plot.points(shown)), message
    (alternative,) = re.findall(rf"!\[(.+)\]\({overview_plot.PICTURE}\)", read("README.md"))
    for name, program in shown["peers"].items():
        assert f"{name}: {10 * program['rtf']:.2f} s, {100 * program['wer']:.1f} %" in alternative


def interval(value: float, bounds: list[float], digits: int) -> str:
    """A rate with its interval in percent, as the README writes it."""
    low, high = (f"{100 * bound:.{digits}f}" for bound in bounds)
    return f"{100 * value:.{digits}f} % [{low}, {high}]"


def case(measured: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (case for case in measured["cases"] if case["name"] == name)
    return dict(found)


def seconds(measured: dict[str, Any], name: str) -> tuple[str, ...]:
    """What a case takes student and teacher."""
    results = case(measured, name)["results"]
    return tuple(f"{results[who]['value']['median']:.2f} s" for who in ("student", "teacher"))


@pytest.fixture(scope="module")
def on_the_cpu() -> dict[str, dict[str, Any]]:
    """Results by kind of the machine that the plot is about, which the README calls the CPU."""
    results = build.read_results(RESULTS)
    chip = overview_plot.machine_to_show(results)
    assert chip is not None
    return results[chip]


def assert_in_readme(claims: list[str]) -> None:
    readme = " ".join(read("README.md").split())
    assert [claim for claim in claims if claim not in readme] == []


def test_size_errors_and_speed_of_the_bundled_model(on_the_cpu: dict[str, Any]) -> None:
    bench, peers = on_the_cpu["bench"], on_the_cpu["peers"]["peers"]
    words = result("word_errors")
    base, student = (words["models"][name] for name in ("teacher", "base-en"))
    size = {
        name: f"{found['disk_bytes'] / 1e6:.0f} MB" for name, found in bench["contenders"].items()
    }
    clip, teachers_clip = seconds(bench, "clip, 10 s, final text")
    cold, teachers_cold = seconds(bench, "cold, 10 s")
    rtf, teachers_rtf = (
        f"{peers[name]['rtf']:.3f}" for name in ("baldwhisper-mlx, student", "baldwhisper-mlx")
    )
    assert bench["contenders"]["student"]["model"] == "base-en"
    assert bench["contenders"]["student"]["decoder"].startswith("5 layers")
    assert_in_readme(
        [
            f"takes {size['student']} on disk (five decoder layers, factorized embedding, 5 bits",
            f"against {size['teacher']} (float16) for whisper-base",
            f"on {words['clips']} clips of read speech is "
            f"{interval(student['wer'], student['wer_interval'], 2)}, against "
            f"{interval(base['wer'], base['wer_interval'], 2)}",
            f"a 10 s clip takes {clip} from file to text, against {teachers_clip} "
            f"(in the plot: RTF {rtf} against {teachers_rtf})",
            f"and {cold} with the start of the program, against {teachers_cold}",
            f"of its {words['models']['tiny.en']['word_errors']} errors",
        ]
    )


def test_agreement_with_openai_and_speed_beside_other_programs(on_the_cpu: dict[str, Any]) -> None:
    agreement, peers = result("agreement"), on_the_cpu["peers"]["peers"]
    for way in ("timestamps", "text"):
        same = {agreement[way][f"same_{what}"] for what in ("text", "tokens", "times")}
        assert same == {agreement[way]["clips"]}
    ours = peers["baldwhisper-mlx"]["rtf"]
    mlx, openai, int8 = (
        peers[name]["rtf"] for name in ("mlx-whisper", "openai-whisper", "faster-whisper int8")
    )
    assert openai < ours
    assert int8 < ours
    clips = agreement["text"]["clips"]
    assert_in_readme(
        [
            f"agree in {clips} of {clips} clips",
            f"It is {mlx / ours:.1f} times as fast as mlx-whisper",
            f"(RTF {ours:.3f} against {mlx:.3f})",
            f"slower than openai-whisper ({openai:.3f}) and faster-whisper in int8 ({int8:.3f})",
        ]
    )


def test_speed_and_errors_of_the_papers_form(on_the_cpu: dict[str, Any]) -> None:
    paper, mboshi = on_the_cpu["paper-form"], result("reproduction-sheared")
    student, teacher = (
        f"{paper['contenders'][who]['parameters'] / 1e6:.1f}" for who in ("student", "teacher")
    )
    trained = result("reproduction-speed-sheared")["contenders"]["student"]
    assert trained["parameters"] == paper["contenders"]["student"]["parameters"]
    gain = {
        name: case(paper, name)["speed_ups"]["compression"]["median"]
        for name in ("paper, batch 10", "decode, batch 1")
    }
    errors, teachers = (
        interval(wer["value"], wer["interval"], 1)
        for wer in (mboshi["models"][role]["wer"] for role in ("model", "baseline"))
    )
    assert_in_readme(
        [
            f"has {student} M of {teacher} M parameters",
            f"{gain['paper, batch 10']:.2f} times as fast for 10 clips at once",
            f"{gain['decode, batch 1']:.2f} times for one",
            f"{errors} on {mboshi['data']['utterances']} clips, against {teachers} for its teacher",
        ]
    )


def test_decoding_beside_other_decoders_is_in_the_results() -> None:
    measured = result("decode_speed")
    page = read("benchmarks/RESULTS.md")
    assert decode_speed.markdown(measured) in page
    assert f"{measured['primitives_per_step']['gpu']} primitives" in page
