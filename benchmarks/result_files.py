"""Result files: written whole, checked against result.schema.json, resumed where a run stopped.

Results come from many machines, so a reader first checks that the keys and types it relies on are
there. docs/benchmarks.md describes the fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import click

from baldwhisper_mlx.files import write_files

Item = TypeVar("Item")

RESULTS = Path(__file__).parent / "results"
SCHEMA_FILE = Path(__file__).parent / "result.schema.json"
_SHOWN = 5


@cache
def _validator(kind: str) -> Any:
    try:
        from jsonschema import Draft202012Validator
    except ModuleNotFoundError:
        raise click.ClickException(
            'result files are checked by the package jsonschema: pip install ".[bench]"'
        ) from None
    document = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    return Draft202012Validator(document | {"$ref": f"#/$defs/{kind}"})


def problems(value: Any, kind: str) -> list[str]:
    """Where a value breaks its schema; empty if it does not.

    Args:
        value: parsed JSON.
        kind: a definition of result.schema.json, such as "bench" or "quartiles".

    Example:
        >>> problems({"median": 1, "q1": "x"}, "quartiles")
        ["$: 'q3' is a required property", "$.q1: 'x' is not of type 'number'"]
    """
    found = sorted(_validator(kind).iter_errors(value), key=lambda error: error.json_path)
    return [f"{error.json_path}: {error.message}" for error in found]


def read_result(path: Path, kind: str) -> dict[str, Any]:
    """Reads a result file and validates it.

    Args:
        path: the file.
        kind: "bench", "peers", "scaling" or "profile".

    Raises:
        ValueError: not such a file; the message names the file and the first few problems.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None
    schema = f"baldwhisper-{kind}/1"
    if not isinstance(raw, dict) or raw.get("schema") != schema:
        raise ValueError(f"{path}: not a result of schema {schema}; run the benchmark again")
    found = problems(raw, kind)
    if found:
        raise ValueError(f"{path}: {'; '.join(found[:_SHOWN])}")
    return raw


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a result file, whole or not at all; makes its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_files({path: text}, force=True)


def file_stem(name: str) -> str:
    """A variant's name for use in a file name.

    Example:
        >>> file_stem("factorized, rank 96")
        'factorized--rank-96'
    """
    return "".join(c if c.isalnum() else "-" for c in name)


def resume(path: Path, empty: dict[str, Any], measured: str) -> dict[str, Any]:
    """The result of an interrupted run with the same settings, or `empty` if there is none.

    Args:
        path: of the result file.
        empty: a result in which nothing is measured yet.
        measured: its key that holds the measurements; all others have to be the same.

    Raises:
        click.ClickException: the file is of other settings.
    """
    if not path.exists():
        return empty
    before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if any(before.get(key) != value for key, value in empty.items() if key != measured):
        raise click.ClickException(f"{path}: measured with other settings; move it away")
    return before


def check_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Keeps what trainings or transcripts in a folder depend on, and compares it the next time.

    Args:
        folder: gets the file settings.json.
        settings: by name; a later call may add others.

    Raises:
        click.ClickException: one is another than before.
    """
    path, now = folder / "settings.json", json.loads(json.dumps(settings))
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    different = [name for name, value in now.items() if before.get(name, value) != value]
    if different:
        raise click.ClickException(
            f"{folder}: made with other settings ({', '.join(different)}); give another folder"
        )
    write_json(path, before | now)


def read_clips(folder: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """The rows of a folder's metadata.jsonl (`file_name`, `text`), or the first `limit`."""
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines][:limit]


def spread(items: Sequence[Item], limit: int | None) -> list[Item]:
    """At most `limit` of the items, at equal steps over them; all without a limit.

    Example:
        >>> spread("abcdef", 3)
        ['a', 'c', 'e']
    """
    count = len(items) if limit is None else min(limit, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def transcripts_file(work: Path, data: Path) -> Path:
    """The JSONL file in the folder `work` of the transcripts of a folder of speech."""
    return work / f"{data_name(data).replace('/', '-')}.jsonl"


def data_name(folder: Path) -> str:
    """What a result calls a folder of speech: its last two parts, and no path of the machine."""
    return "/".join(folder.resolve().parts[-2:])
