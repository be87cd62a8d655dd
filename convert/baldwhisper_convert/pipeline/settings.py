"""Strict parsing of settings: from TOML and from the command line to any dataclass.

Unknown keys, missing keys and wrong types are errors that name the key. dacite and cattrs are less
strict: both accept `true` as a number, cattrs also accepts "2", and both turn a string into a tuple
of its letters.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from baldwhisper_mlx.bounds import MOST_CONFIG_BYTES, read_bounded
from baldwhisper_mlx.terminal import quoted

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


T = TypeVar("T")


class RecipeError(ValueError):
    """What is wrong with settings.

    Args:
        problems: each with its place and what to do.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(problems))


def did_you_mean(name: str, known: Iterable[object]) -> str:
    """A suggestion for a misspelt name, with a space before it; empty if none is close.

    Example:
        >>> did_you_mean("learning_rat", ["learning_rate", "epochs"])
        ' (did you mean learning_rate?)'
    """
    close = difflib.get_close_matches(name, [str(item) for item in known], n=1)
    return f" (did you mean {close[0]}?)" if close else ""


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
                raise _no_setting(key, name, parent)
        if last not in table:
            raise _no_setting(key, last, table)
        try:
            table[last] = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
            table[last] = text.strip()
    return build(type(settings), plain, "settings")


def _no_setting(key: str, name: str, table: Mapping[str, Any]) -> ValueError:
    hint = did_you_mean(name, table)
    return ValueError(f"no setting is called {key.strip()!r}{hint}; there are {', '.join(table)}")


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
        RecipeError: unknown or missing keys, wrong types, or values that the dataclass rejects;
            lists all of them.
    """
    if not isinstance(raw, Mapping):
        raise ValueError(f"{where}: expected a table, found {quoted(raw)}")
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    problems = [
        f"{where}: unknown {key}{did_you_mean(str(key), fields)}; known are {', '.join(fields)}"
        for key in sorted(raw.keys() - fields.keys())
    ]
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key in fields:
        if key in raw:
            with _noting(problems):
                values[key] = _value(hints[key], raw[key], f"{where}: {key}")
    missing = [
        name
        for name, item in fields.items()
        if name not in raw
        and item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
    ]
    if missing:
        problems.append(f"{where}: missing {', '.join(missing)}")
    if problems:
        raise RecipeError(problems)
    try:
        return kind(**values)
    except RecipeError as error:
        raise RecipeError([f"{where}: {problem}" for problem in error.problems]) from None
    except ValueError as error:
        raise RecipeError([f"{where}: {error}"]) from None


@contextmanager
def _noting(problems: list[str]) -> Iterator[None]:
    """Adds what the block raises to the problems."""
    try:
        yield
    except RecipeError as error:
        problems += error.problems
    except ValueError as error:
        problems.append(str(error))


def _every(calls: Iterable[Callable[[], Any]]) -> list[Any]:
    """The results of all calls.

    Raises:
        RecipeError: lists what they raised.
    """
    problems: list[str] = []
    results = []
    for call in calls:
        with _noting(problems):
            results.append(call())
    if problems:
        raise RecipeError(problems)
    return results


def _value(hint: Any, raw: Any, where: str) -> Any:
    """Checks one value against its type hint, and converts lists to tuples and int to float."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if raw is None:
            return None
        kinds = [each for each in arguments if each is not type(None)]
        fitting = [each for each in kinds if (each is str) == isinstance(raw, str)]
        return _value((fitting or kinds)[0], raw, where)
    if dataclasses.is_dataclass(hint):
        return build(hint, raw, where)  # type: ignore[arg-type]
    if origin is Literal:
        if raw not in arguments:
            hint_text = did_you_mean(str(raw), arguments)
            known = ", ".join(map(str, arguments))
            raise ValueError(f"{where}: {quoted(raw)} is none of {known}{hint_text}")
        return raw
    if origin is tuple:
        if not isinstance(raw, Sequence) or isinstance(raw, str):
            raise ValueError(f"{where}: expected a list, found {quoted(raw)}")
        kinds = [arguments[0]] * len(raw) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(raw):
            raise ValueError(f"{where}: expected {len(kinds)} values, found {len(raw)}")
        pairs = enumerate(zip(kinds, raw, strict=True))
        calls = (partial(_value, kind, item, f"{where}[{i}]") for i, (kind, item) in pairs)
        return tuple(_every(calls))
    if origin is dict:
        if not isinstance(raw, Mapping):
            raise ValueError(f"{where}: expected a table, found {quoted(raw)}")
        found = (partial(_value, arguments[1], raw[key], f"{where}.{key}") for key in raw)
        return dict(zip(raw, _every(found), strict=True))
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
