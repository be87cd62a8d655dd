"""The checks of the distributions, the release and the formula; and that workflows run what exists.

Nothing is built or installed here: `make test-wheel` does that, and needs a package index.
"""

from __future__ import annotations

import io
import re
import shlex
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.shell_completion import get_completion_class
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from baldwhisper_convert.cli.main import main as convert_cli
from baldwhisper_mlx import __version__
from baldwhisper_mlx.cli.main import cli
from scripts import build_wheel, release_notes, test_wheel
from tests.test_readme import blocks, parse

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))  # where make_formula finds release_notes
from scripts import make_formula  # noqa: E402

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


# Distributions


def write_wheel(path: Path, names: set[str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return path


def write_sdist(path: Path, names: set[str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(f"baldwhisper_mlx-1.0/{name}"), io.BytesIO())
    return path


def in_sdist(names: Iterable[str]) -> set[str]:
    """The files of the packages where the sdist has them."""
    return {f"convert/{n}" if n.startswith("baldwhisper_convert") else n for n in names}


@pytest.fixture
def whole(tmp_path: Path) -> tuple[set[str], Path]:
    """The files of a right wheel, and an sdist beside it."""
    extra = {"tests/test_x.py", "PKG-INFO"}
    sdist = write_sdist(tmp_path / "sdist.tar.gz", in_sdist(build_wheel.REQUIRED) | extra)
    information = {f"baldwhisper_mlx-1.0.dist-info/{name}" for name in build_wheel.METADATA}
    return {*build_wheel.REQUIRED, *information}, sdist


def test_a_right_wheel_passes(tmp_path: Path, whole: tuple[set[str], Path]) -> None:
    names, sdist = whole
    path = write_wheel(tmp_path / "baldwhisper_mlx-1.0-py3-none-any.whl", names)
    build_wheel.check_wheel(path, sdist)


@pytest.mark.parametrize("extra", ["tests/test_x.py", "benchmarks/results/x.json", "notes.txt"])
def test_a_wheel_with_more_files_fails(
    tmp_path: Path, whole: tuple[set[str], Path], extra: str
) -> None:
    names, sdist = whole
    path = write_wheel(tmp_path / "baldwhisper_mlx-1.0-py3-none-any.whl", names | {extra})
    with pytest.raises(build_wheel.Failure, match=f"too many: {extra}"):
        build_wheel.check_wheel(path, sdist)


@pytest.mark.parametrize("suffix", ["model.safetensors", "py.typed", "LICENSE", "NOTICE"])
def test_a_wheel_with_fewer_files_fails(
    tmp_path: Path, whole: tuple[set[str], Path], suffix: str
) -> None:
    names, sdist = whole
    left = {name for name in names if not name.endswith(suffix)}
    path = write_wheel(tmp_path / "baldwhisper_mlx-1.0-py3-none-any.whl", left)
    with pytest.raises(build_wheel.Failure, match=f"missing: .*{suffix}"):
        build_wheel.check_wheel(path, sdist)


def test_a_model_that_the_sdist_lacks_too_is_missed(
    tmp_path: Path, whole: tuple[set[str], Path]
) -> None:
    names, _ = whole
    model = "baldwhisper_mlx/assets/tiny-en/model.safetensors"
    sdist = write_sdist(tmp_path / "less.tar.gz", in_sdist({*build_wheel.REQUIRED} - {model}))
    path = write_wheel(tmp_path / "baldwhisper_mlx-1.0-py3-none-any.whl", names - {model})
    with pytest.raises(build_wheel.Failure, match=model):
        build_wheel.check_wheel(path, sdist)


def test_large_files_are_refused_and_old_ones_replaced(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    dist.mkdir()
    (dist / "baldwhisper_mlx-0.0-py3-none-any.whl").touch()
    made = tmp_path / "baldwhisper_mlx-1.0-py3-none-any.whl"
    made.write_bytes(b"wheel")
    build_wheel.keep([made], dist)
    assert [path.name for path in dist.iterdir()] == [made.name]
    with made.open("wb") as file:
        file.truncate(build_wheel.MOST_BYTES + 1)
    with pytest.raises(build_wheel.Failure, match="bytes"):
        build_wheel.keep([made], dist)


def test_the_wheel_is_tried_outside_the_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{ROOT}/.venv/bin:/usr/bin:{ROOT}:/bin")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HOME", "/somewhere")
    online, offline = (test_wheel.environment(tmp_path, offline) for offline in (False, True))
    assert online["PATH"] == offline["PATH"] == "/usr/bin:/bin"
    assert not {"PYTHONPATH", "HF_HOME"} & (online.keys() | offline.keys())
    assert "HF_HUB_OFFLINE" not in online
    assert (offline["HF_HUB_OFFLINE"], offline["HOME"]) == ("1", str(tmp_path / "home"))
    assert offline["https_proxy"] == offline["HTTPS_PROXY"] == "http://127.0.0.1:9"


def test_another_text_than_the_samples_fails() -> None:
    text = test_wheel.SAMPLE.with_suffix(".txt").read_text(encoding="utf-8")
    test_wheel.check_text(text.upper())
    with pytest.raises(test_wheel.Failure, match="instead of"):
        test_wheel.check_text(text.replace("small", "tall"))


def test_a_failing_command_is_shown() -> None:
    with pytest.raises(test_wheel.Failure, match="ended with 3:\nwhy"):
        test_wheel.run([sys.executable, "-c", "print('why'); raise SystemExit(3)"])


# Metadata


def test_addresses_are_of_one_repository() -> None:
    urls = PROJECT["project"]["urls"]
    assert urls.keys() == {"Homepage", "Documentation", "Source", "Issues", "Changelog"}
    assert all(url.startswith(urls["Source"]) for url in urls.values())
    assert make_formula.repository() == urls["Source"]


def test_the_oldest_python_of_the_classifiers_is_the_one_required() -> None:
    versions = re.findall(r":: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    assert f">={versions[0]}" == PROJECT["project"]["requires-python"]


def test_the_installation_page_names_what_exists() -> None:
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    lines = [line for block in blocks(page, "bash") for line in block.splitlines()]
    ours = [line.partition("--from baldwhisper-mlx ")[2] or line for line in lines]
    commands = [line for line in ours if line.startswith("baldwhisper ")]
    assert len(commands) > 4
    for line in commands:
        parse(line)
    named = {name for row in re.findall(r"^\| (`[a-z`, ]+`) \|", page, flags=re.MULTILINE)
             for name in re.findall("`([a-z]+)`", row)}  # fmt: skip
    assert {"convert", "mkl"} <= named <= PROJECT["project"]["optional-dependencies"].keys()


# A release

CHANGELOG = (
    "# Changelog\n\n## [1.1.0] - 2026-02-01\n\n- New.\n\n## [1.0.0] - 2026-01-01\n\n- First.\n"
)


@pytest.mark.parametrize(("version", "notes"), [("1.1.0", "- New.\n"), ("1.0.0", "- First.\n")])
def test_notes_are_the_section_of_the_version(version: str, notes: str) -> None:
    assert release_notes.release_notes(f"v{version}", version, CHANGELOG) == notes


@pytest.mark.parametrize(
    ("tag", "version", "changelog", "words"),
    [
        ("v1.0.1", "1.0.0", CHANGELOG, "_version.py says 1.0.0"),
        ("1.0.0", "1.0.0", CHANGELOG, "_version.py says 1.0.0"),
        ("v2.0.0", "2.0.0", CHANGELOG, "no section"),
        ("v1.0.0", "1.0.0", "## [1.0.0] - unreleased\n\n- New.\n", "unreleased"),
        ("v1.0.0", "1.0.0", "## [1.0.0] - 2026-01-01\n\n## [0.9.0] - 2025-01-01\n- A.", "empty"),
    ],
)
def test_a_wrong_tag_is_refused(tag: str, version: str, changelog: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        release_notes.release_notes(tag, version, changelog)


def test_the_version_is_read_from_its_file() -> None:
    assert release_notes.read_version() == __version__
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


# The Homebrew formula


def pinned(text: str, environment: dict[str, str]) -> dict[str, str]:
    """Name to version of what applies in an environment."""
    lines = [
        line.rstrip("\\ ") for line in text.splitlines() if re.match(r"[\w.-]+(\[.*\])?==", line)
    ]
    found = [Requirement(line) for line in lines]
    return {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one in found
        if one.marker is None or one.marker.evaluate(environment)
    }


@pytest.fixture(scope="module")
def mac() -> dict[str, str]:
    version = make_formula.PYTHON
    changes = {"python_version": version, "python_full_version": f"{version}.0"}
    changes |= {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix"}
    changes |= {"platform_machine": "arm64", "implementation_name": "cpython", "extra": ""}
    return {**default_environment(), **changes, "platform_python_implementation": "CPython"}


def test_the_formula_installs_the_pinned_versions(mac: dict[str, str]) -> None:
    pins = pinned(make_formula.CONSTRAINTS.read_text(encoding="utf-8"), mac)
    installed = pinned(make_formula.REQUIREMENTS.read_text(encoding="utf-8"), mac)
    stale = {
        name: (version, pins[name])
        for name, version in installed.items()
        if pins.get(name, version) != version
    }
    assert not stale, "run `make formula`"
    needed = [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    direct = {canonicalize_name(one.name) for one in needed
              if one.marker is None or one.marker.evaluate(mac)}  # fmt: skip
    assert direct <= installed.keys(), "run `make formula`"
    assert {"hatchling", "mlx", "mlx-metal"} <= installed.keys()
    assert not {"torch", "transformers", "mlx-cpu"} & installed.keys()


def test_every_package_of_the_formula_has_checksums() -> None:
    text = make_formula.REQUIREMENTS.read_text(encoding="utf-8")
    blocks = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(blocks) > 10
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}$", block, re.MULTILINE) for block in blocks)
    assert "://" not in text


def test_the_formula_is_current() -> None:
    text = make_formula.FORMULA.read_text(encoding="utf-8")
    assert text == make_formula.formula(), "run `make formula`"
    assert not re.search(r"^  (url|sha256) ", text, re.MULTILINE)


def test_a_release_adds_its_sdist(tmp_path: Path) -> None:
    sdist = tmp_path / f"baldwhisper_mlx-{__version__}.tar.gz"
    sdist.write_bytes(b"sdist")
    text = make_formula.formula(sdist)
    assert f'/releases/download/v{__version__}/{sdist.name}"' in text
    assert re.search(r'^  sha256 "[0-9a-f]{64}"$', text, re.MULTILINE)


# Workflows


def steps(path: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def missing(command: str, targets: set[str]) -> list[str]:
    """Make targets and scripts in the `run:` of a step that do not exist."""
    found = []
    for line in command.replace("\\\n", " ").splitlines():
        words = shlex.split(line)
        if words[:1] == ["make"]:
            found += [word for word in words[1:] if "=" not in word and word not in targets]
        found += [word for word in words
                  if word.startswith("scripts/") and not (ROOT / word).is_file()]  # fmt: skip
    return found


def make_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.findall(r"^\.PHONY:(.*)$", makefile, flags=re.MULTILINE)
    defined = set(re.findall(r"^([a-z][a-z-]*):", makefile, flags=re.MULTILINE))
    assert set(" ".join(phony).split()) == defined
    return defined


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_what_exists(path: Path) -> None:
    commands = [step["run"] for step in steps(path) if "run" in step]
    assert commands
    assert [name for command in commands for name in missing(command, make_targets())] == []


@pytest.mark.parametrize("command", ["make tests", "make dist x", "python scripts/none.py"])
def test_what_does_not_exist_is_found(command: str) -> None:
    assert len(missing(command, make_targets())) == 1


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_bounded(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    assert all(job["timeout-minutes"] <= 90 for job in workflow["jobs"].values())
    used = [step["uses"] for step in steps(path) if "uses" in step]
    assert all(re.search(r"@(release/)?v\d+$|@[0-9a-f]{40}$", name) for name in used)
    checkouts = [
        step for step in steps(path) if step.get("uses", "").startswith("actions/checkout")
    ]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_what_is_published_was_tried_on_both_systems() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
    assert jobs["publish"]["needs"] == "test"
    assert jobs["test"]["needs"] == "build"
    assert jobs["test"]["strategy"]["matrix"]["os"] == ["macos-14", "ubuntu-latest"]
    assert any(step.get("run", "").startswith("make test-wheel") for step in jobs["test"]["steps"])
    writers = {name: job["permissions"] for name, job in jobs.items() if "permissions" in job}
    assert writers == {"publish": {"id-token": "write"}, "github-release": {"contents": "write"}}


# Shell completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("program", "command"), [("baldwhisper", cli), ("baldwhisper-convert", convert_cli)]
)
def test_completion_scripts(shell: str, program: str, command: Any, monkeypatch: Any) -> None:
    variable = f"_{program.upper().replace('-', '_')}_COMPLETE"
    kind = get_completion_class(shell)
    assert kind is not None
    # click asks the installed bash for its version before it writes its script
    monkeypatch.setattr(kind, "_check_version", lambda self=None: None, raising=False)
    script = kind(command, {}, program, variable).source()
    assert f"{variable}={shell}_complete" in script
    assert program in script
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    assert f"_BALDWHISPER_COMPLETE={shell}_source baldwhisper" in page


@pytest.mark.parametrize(
    ("typed", "offered"), [([], "models"), (["models"], "pull"), (["transcribe"], "--vad")]
)
def test_completion_offers_commands_and_options(typed: list[str], offered: str) -> None:
    kind = get_completion_class("zsh")
    assert kind is not None
    completion = kind(cli, {}, "baldwhisper", "_BALDWHISPER_COMPLETE")
    values = [item.value for item in completion.get_completions(typed, offered[:3])]
    assert offered in values
