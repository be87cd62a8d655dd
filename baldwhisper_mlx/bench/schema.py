"""Result files: what is in them, and that it is there.

Results come from other people's machines, so whoever reads one checks it against a shape: the
keys and types that the reader relies on. docs/benchmarks.md describes the fields. Standard
library only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from baldwhisper_mlx.files import read_json

SCHEMA = "baldwhisper-bench/1"

NUMBER = (int, float)
OPTIONAL_NUMBER = (int, float, type(None))
OPTIONAL_TEXT = (str, type(None))

QUARTILES = {"median": NUMBER, "q1": NUMBER, "q3": NUMBER}

MACHINE = {
    "chip": str,
    "cores": int,
    "memory_gb": NUMBER,
    "os": str,
    "python": str,
    "mlx": str,
    "baldwhisper_mlx": str,
    "device": str,
    "blas": OPTIONAL_TEXT,
    "threads": dict,
    "load_before": [NUMBER],
    "load_after": [NUMBER],
}

RESULT = {
    "seconds": [NUMBER],
    "value": QUARTILES,
    "ceiling": OPTIONAL_NUMBER,
    "fraction": OPTIONAL_NUMBER,
    "peak_mlx_bytes": OPTIONAL_NUMBER,
    "peak_process_bytes": OPTIONAL_NUMBER,
    "tokens": OPTIONAL_NUMBER,
    "windows": OPTIONAL_NUMBER,
    "fallbacks": OPTIONAL_NUMBER,
}

BENCH: dict[str, Any] = {
    "schema": str,
    "command": str,
    "date": str,
    "machine": MACHINE,
    "settings": dict,
    "contenders": {
        ...: {
            "runtime": str,
            "model": str,
            "memory_dtype": str,
            "stored_dtype": OPTIONAL_TEXT,
            "quantization": OPTIONAL_TEXT,
            "disk_bytes": int,
        }
    },
    "ceilings": {...: {"bytes_per_second": NUMBER, "flops_per_second": NUMBER}},
    "comparisons": {...: {"title": str, "fast": str, "slow": str}},
    "cases": [
        {
            "name": str,
            "protocol": str,
            "label": str,
            "unit": str,
            "amount": NUMBER,
            "results": {...: RESULT},
            "speed_ups": {...: QUARTILES},
        }
    ],
}
"""The shape of a file of `baldwhisper bench --json`."""


def problems(value: Any, shape: Any, place: str = "result") -> list[str]:
    """Where a value does not have a shape; empty if it does.

    Args:
        value: parsed JSON.
        shape: a type or a tuple of types; a dict of keys that must be there (others may be),
            or of `...` for any keys at all; a list of one shape that all entries have.
        place: what to call the value.

    Example:
        >>> problems({"a": [1, "x"]}, {"a": [int], "b": str})
        ['result.b: missing', 'result.a[1]: str instead of int']
    """
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{place}: {type(value).__name__} instead of list"]
        each = (problems(v, shape[0], f"{place}[{i}]") for i, v in enumerate(value))
        return [problem for found in each for problem in found]
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{place}: {type(value).__name__} instead of dict"]
        wanted = dict.fromkeys(value, shape[...]) if ... in shape else shape
        found = [f"{place}.{key}: missing" for key in wanted if key not in value]
        for key in wanted:
            if key in value:
                found += problems(value[key], wanted[key], f"{place}.{key}")
        return found
    types = shape if isinstance(shape, tuple) else (shape,)
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        names = " or ".join(each.__name__ for each in types)
        return [f"{place}: {type(value).__name__} instead of {names}"]
    return []


def read_result(path: Path, schema: str, shape: dict[str, Any]) -> dict[str, Any]:
    """Reads a result file and makes sure of what is in it.

    Args:
        path: the file.
        schema: what its `schema` must be.
        shape: see `problems`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not such a file; the message names the file and the first few problems.
    """
    raw = read_json(path)
    if not isinstance(raw, dict) or raw.get("schema") != schema:
        raise ValueError(f"{path}: not a result of schema {schema}; measure again")
    found = problems(raw, shape)
    if found:
        raise ValueError(f"{path}: {'; '.join(found[:5])}")
    return raw
