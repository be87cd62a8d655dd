"""What the benchmark scripts share: the machine, models by name, the sample, files written whole.

The machine is described in a process of its own, so that a script which only waits for others
does not load MLX.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from baldwhisper_mlx.bench.processes import call
from baldwhisper_mlx.files import write_atomically

SAMPLE = Path(__file__).resolve().parent.parent / "examples/sample.wav"
"""The demo's recording; what is said is beside it as text."""


def describe() -> dict[str, Any]:
    """See `baldwhisper_mlx.bench.machine.describe_machine`."""
    found: dict[str, Any] = json.loads(call("benchmarks.machines", "tell").splitlines()[-1])
    return found


def tell() -> None:
    """Prints what `describe` returns."""
    from baldwhisper_mlx.bench.machine import describe_machine

    print(json.dumps(describe_machine()))


def named_model(item: str) -> tuple[str, Path]:
    """Name and folder of a model given as NAME=DIR.

    Raises:
        click.UsageError: it is not, or there is no such folder.
    """
    name, _, folder = item.partition("=")
    if not name or not folder or not Path(folder).is_dir():
        raise click.UsageError(f"{item}: it is NAME=DIR, of a model folder")
    return name, Path(folder)


def model_or_bundled(item: str) -> tuple[str, Path | None]:
    """As `named_model`; without DIR, as in "NAME=", the model that comes with the package (None).

    Raises:
        click.UsageError: there is no name, or no such folder.
    """
    name, equals, folder = item.partition("=")
    return (name, None) if name and equals and not folder else named_model(item)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a result file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
