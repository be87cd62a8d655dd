"""Settings from TOML tables and the command line to dataclasses, strictly."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args, get_origin

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


T = TypeVar("T")


def override(settings: T, changes: Sequence[str]) -> T:
    """Settings with `key=value` changes; keys may be dotted, values are TOML.

    A value that is no TOML is taken as text, so that quotes are not needed.

    Raises:
        ValueError: an unknown key or a bad value.

    Example:
        >>> override(LossSettings(), ["kl=2"]).kl
        2.0
    """
    plain = _without_none(dataclasses.asdict(settings))  # type: ignore[call-overload]
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise ValueError(f"{change!r} is not key=value")
        *path, last = key.strip().split(".")
        place: Any = plain
        for name in path:
            place = place.get(name)
            if not isinstance(place, dict):
                raise ValueError(f"no setting is called {key.strip()!r}")
        if last not in place:
            raise ValueError(f"no setting is called {key.strip()!r}; there are {', '.join(place)}")
        try:
            place[last] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            place[last] = text.strip()
    return build(type(settings), plain, "settings")


def _without_none(plain: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in plain.items()
        if value is not None
    }


def build(kind: type[T], raw: Any, where: str) -> T:
    """A dataclass from parsed TOML, checked field by field.

    Args:
        kind: the dataclass.
        raw: a table.
        where: what it is, for errors.

    Raises:
        ValueError: unknown or missing keys, wrong types, or what the dataclass refuses.
    """
    if not isinstance(raw, Mapping):
        raise ValueError(f"{where}: expected a table, found {raw!r}")
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
    """One value as its type hint says."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if raw is None:
            return None
        return _value(next(a for a in arguments if a is not type(None)), raw, where)
    if dataclasses.is_dataclass(hint):
        return build(hint, raw, where)  # type: ignore[arg-type]
    if origin is Literal:
        if raw not in arguments:
            raise ValueError(f"{where}: {raw!r} is none of {', '.join(map(str, arguments))}")
        return raw
    if origin is tuple:
        if not isinstance(raw, Sequence) or isinstance(raw, str):
            raise ValueError(f"{where}: expected a list, found {raw!r}")
        kinds = [arguments[0]] * len(raw) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(raw):
            raise ValueError(f"{where}: expected {len(kinds)} values, found {len(raw)}")
        return tuple(_value(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, raw)))  # noqa: B905
    if origin is dict:
        if not isinstance(raw, Mapping):
            raise ValueError(f"{where}: expected a table, found {raw!r}")
        return {key: _value(arguments[1], value, f"{where}.{key}") for key, value in raw.items()}
    if hint is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if not isinstance(raw, hint) or (isinstance(raw, bool) and hint is not bool):
        raise ValueError(f"{where}: expected {hint.__name__}, found {raw!r}")
    return raw
