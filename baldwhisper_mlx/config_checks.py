"""Checks of the values in `config.json`. Standard library only."""

from __future__ import annotations

import dataclasses
from typing import Any


def is_int(value: object) -> bool:
    """Whether a value is an integer; booleans are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def require(ok: bool, key: str, value: object) -> None:
    """Refuses a value.

    Args:
        ok: whether it is accepted.
        key: of the config, for the message.
        value: for the message.

    Raises:
        ValueError: it is not.
    """
    if not ok:
        raise ValueError(f"config: bad value for {key}: {value}")


def check_keys(cls: type, raw: dict[str, Any], what: str) -> None:
    """Makes sure that parsed JSON has exactly the fields of a dataclass as its keys.

    Args:
        cls: the dataclass.
        raw: parsed JSON.
        what: is described, for the message.

    Raises:
        ValueError: keys are missing or unknown; the message lists them.
    """
    known = {field.name for field in dataclasses.fields(cls)}
    missing, unknown = sorted(known - raw.keys()), sorted(raw.keys() - known)
    if missing or unknown:
        parts = [f"missing {', '.join(missing)}"] if missing else []
        parts += [f"unknown {', '.join(map(repr, unknown))}"] if unknown else []
        raise ValueError(f"{what}: {'; '.join(parts)}")
