"""Runs of benchmarks that train variants, as from the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner


def run_variants(
    command: click.Command,
    folders: Mapping[str, Path],
    output: Path,
    only: Sequence[str],
    *more: str,
) -> tuple[str, dict[str, Any]]:
    """Trains variants that are not trained yet; returns what was printed, and the result.

    Args:
        command: of the benchmark.
        folders: `teacher`, and a prepared folder for each of its options.
        output: for the checkpoints; the result is beside it.
        only: parts of the names of variants.
        more: options.
    """
    results = output.with_suffix(".json")
    options = [word for name in folders if name != "teacher"
               for word in (f"--{name}", str(folders[name]))]  # fmt: skip
    options += [word for name in only for word in ("--only", name)]
    places = ["--output", str(output), "--results", str(results)]
    done = CliRunner().invoke(command, [str(folders["teacher"]), *options, *places, *more])
    assert done.exit_code == 0, done.output
    return done.output, json.loads(results.read_text())
