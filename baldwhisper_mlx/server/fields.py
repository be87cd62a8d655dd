"""The text fields of a form, as single values, lists, choices and numbers.

A list comes as a repeated field or with commas, with or without brackets behind its name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from baldwhisper_mlx.server.errors import bad_value
from baldwhisper_mlx.terminal import quoted


class Fields:
    """Text fields of a form, in the order in which they came.

    Args:
        items: names and values.
    """

    def __init__(self, items: Sequence[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in items:
            self._values.setdefault(name, []).append(value)

    def one(self, name: str) -> str | None:
        """The value of a field; None if it is missing or empty.

        Raises:
            ApiError: it came with several values.
        """
        values = list(dict.fromkeys(self._values.get(name, [])))
        if len(values) > 1:
            raise bad_value(name, f"{name}: give it once, not {len(values)} times")
        return values[0].strip() or None if values else None

    def many(self, name: str, *, commas: bool = True) -> tuple[str, ...]:
        """The values of a list, each once.

        Args:
            name: of the field, without brackets.
            commas: whether a value may hold several, with commas between them.
        """
        found: list[str] = []
        for key in (f"{name}[]", name):
            for value in self._values.get(key, []):
                found += value.split(",") if commas else [value]
        return tuple(dict.fromkeys(item.strip() for item in found if item.strip()))

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        """The value of a field that has a few.

        Raises:
            ApiError: it is none of these.
        """
        value = self.one(name)
        if value is None:
            return default
        if value not in choices:
            listed = ", ".join(choices)
            raise bad_value(name, f"{name} must be one of {listed}, not {quoted(value)}")
        return value

    def number(self, name: str, least: float, most: float) -> float | None:
        """The number in a field; None if it is missing.

        Raises:
            ApiError: it is no number, or out of range.
        """
        text = self.one(name)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise bad_value(
                name, f"{name} must be a number from {least:g} to {most:g}, not {quoted(text)}"
            )
        return value
