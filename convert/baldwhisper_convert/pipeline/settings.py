"""Strict parsing of settings: from TOML and from the command line to any dataclass.

Unknown keys, missing keys and wrong types are errors that name the key. dacite and cattrs are less
strict: both accept `true` as a number, cattrs also accepts "2", and both turn a string into a tuple
of its letters.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from baldwhisper_mlx.bounds import MOST_CONFIG_BYTES, read_bounded
from baldwhisper_mlx.terminal import quoted

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


T = TypeVar("T")


def read_toml(path: str | Path) -> dict[str, Any]:
    """Parses a TOML file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not TOML, not UTF-8, no regular file, or far too large.
    """
    content = read_bounded(Path(path), MOST_CONFIG_BYTES)
    try:
        parsed: dict[str, Any] = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError
        raise ValueError(f"{path}: not valid TOML ({error})") from None
    return parsed


def override(settings: T, changes: Sequence[str]) -> T:
    """Applies `key=value` changes to settings.

    Args:
        settings: a dataclass.
        changes: keys may be dotted. Values are TOML; one that is not is taken as a string, so that
            strings need no quotes.

    Raises:
        ValueError: an unknown key or a bad value.

    Example:
        >>> override(LossSettings(), ["kl=2"]).kl
        2.0
    """
    plain = dataclasses.asdict(settings)  # type: ignore[call-overload]
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise ValueError(f"{change!r} is not a setting of the form key=value")
        *path, last = key.strip().split(".")
        table: Any = plain
        for name in path:
            parent, table = table, table.get(name)
            if not isinstance(table, dict):
                raise ValueError(
                    f"no setting is called {key.strip()!r}; there are {', '.join(parent)}"
                )
        if last not in table:
            raise ValueError(f"no setting is called {key.strip()!r}; there are {', '.join(table)}")
        try:
            table[last] = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
            table[last] = text.strip()
    return build(type(settings), plain, "settings")


def plain_settings(settings: Any) -> dict[str, Any]:
    """A settings dataclass as plain values, for manifests and keys.

    A field that earlier versions did not have, which its metadata says, is left out at its default.
    So their stage folders and interrupted runs still match. A field that changes no result has its
    default, whatever its value is, or is left out if earlier versions did not have it
    (`AS_DEFAULT` and `HOW` in training/settings.py).
    """
    new = {
        item.name
        for item in dataclasses.fields(settings)
        if item.metadata.get("identity") is False
        or (item.metadata.get("added") and getattr(settings, item.name) == item.default)
    }
    fixed = {
        item.name: item.default
        for item in dataclasses.fields(settings)
        if item.metadata.get("as_default")
    }
    plain = dataclasses.asdict(settings) | fixed
    return {k: v for k, v in plain.items() if k not in new}


def build(kind: type[T], raw: Any, where: str) -> T:
    """Builds a dataclass from parsed TOML, checking every field.

    Args:
        kind: the dataclass; its fields may be dataclasses too.
        raw: a table.
        where: file or section, for error messages.

    Raises:
        ValueError: unknown or missing keys, wrong types, or values that the dataclass rejects.
    """
    if not isinstance(raw, Mapping):
        raise ValueError(f"{where}: expected a table, found {quoted(raw)}")
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(raw.keys() - fields.keys())
    if unknown:
        raise ValueError(f"{where}: unknown {', '.join(unknown)}; known are {', '.join(fields)}")
    hints = typing.get_type_hints(kind)
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in raw.items()}
    missing = [
        name
        for name, item in fields.items()
        if name not in values
        and item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{where}: missing {', '.join(missing)}")
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _value(hint: Any, raw: Any, where: str) -> Any:
    """Checks one value against its type hint, and converts lists to tuples and int to float."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if raw is None:
            return None
        return _value(next(a for a in arguments if a is not type(None)), raw, where)
    if dataclasses.is_dataclass(hint):
        return build(hint, raw, where)  # type: ignore[arg-type]
    if origin is Literal:
        if raw not in arguments:
            raise ValueError(f"{where}: {quoted(raw)} is none of {', '.join(map(str, arguments))}")
        return raw
    if origin is tuple:
        if not isinstance(raw, Sequence) or isinstance(raw, str):
            raise ValueError(f"{where}: expected a list, found {quoted(raw)}")
        kinds = [arguments[0]] * len(raw) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(raw):
            raise ValueError(f"{where}: expected {len(kinds)} values, found {len(raw)}")
        pairs = enumerate(zip(kinds, raw, strict=True))
        return tuple(_value(kind, item, f"{where}[{i}]") for i, (kind, item) in pairs)
    if origin is dict:
        if not isinstance(raw, Mapping):
            raise ValueError(f"{where}: expected a table, found {quoted(raw)}")
        return {key: _value(arguments[1], value, f"{where}.{key}") for key, value in raw.items()}
    if hint is float and isinstance(raw, int | float) and not isinstance(raw, bool):
        return _finite(raw, where)
    if not isinstance(raw, hint) or (isinstance(raw, bool) and hint is not bool):
        raise ValueError(f"{where}: expected {hint.__name__}, found {quoted(raw)}")
    return raw


def _finite(raw: float, where: str) -> float:
    """A number as a float; NaN, which no range check refuses, and infinity are errors."""
    try:
        value = float(raw)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise ValueError(f"{where}: expected a finite number, found {str(raw)[:40]}")
    return value
