"""The text fields of a form, as single values, lists, choices and numbers.

field_table.py says what may stand in each. A list comes as a repeated field or with commas;
brackets can stand behind its name, empty or with a number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from baldwhisper_mlx.server.errors import bad_value
from baldwhisper_mlx.server.field_table import FIELDS, fields_of
from baldwhisper_mlx.terminal import quoted

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""As JSON's numbers; Python's `float` also takes nan, 1_0 and the digits of other scripts."""
_BRACKETS = re.compile(r"\[\d{0,3}\]$", re.ASCII)
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


class Fields:
    """Text fields of a form, in the order in which they came; those of other tasks are ignored.

    Args:
        items: names and values.
        task: "transcribe" or "translate".
    """

    def __init__(self, items: Sequence[tuple[str, str]], task: str) -> None:
        known = fields_of(task)
        self._values: dict[str, list[str]] = {}
        for name, value in items:
            plain = _BRACKETS.sub("", name)
            if plain in known and (plain == name or known[plain].kind == "list"):
                self._values.setdefault(plain, []).append(value)

    def one(self, name: str) -> str | None:
        """The value of a field; None if it is missing or empty.

        Raises:
            ApiError: it came with several values, or with one that is not among its choices.
        """
        values = list(dict.fromkeys(self._values.get(name, [])))
        if len(values) > 1:
            raise bad_value(name, f"{name}: give it once, not {len(values)} times")
        value = values[0].strip() if values else ""
        if value:
            self._check(name, value)
        return value or None

    def many(self, name: str) -> tuple[str, ...]:
        """The values of a list, each once.

        Args:
            name: of the field, without brackets.

        Raises:
            ApiError: one is not among its choices.
        """
        found: list[str] = []
        for value in self._values.get(name, []):
            found += value.split(",") if FIELDS[name].commas else [value]
        values = tuple(dict.fromkeys(item.strip() for item in found if item.strip()))
        for value in values:
            self._check(name, value)
        return values

    def boolean(self, name: str) -> bool:
        """Whether a field is true.

        Raises:
            ApiError: it is neither true nor false.
        """
        value = self.one(name)
        if value is None:
            return False
        if value.lower() not in _BOOLEANS:  # Python's clients write True
            raise bad_value(name, f"{name} must be true or false, not {quoted(value)}")
        return _BOOLEANS[value.lower()]

    def number(self, name: str) -> float | None:
        """The number in a field; None if it is missing.

        Raises:
            ApiError: it is no number, or out of range.
        """
        text = self.one(name)
        if text is None:
            return None
        field = FIELDS[name]
        if not _NUMBER.fullmatch(text) or not field.least <= float(text) <= field.most:
            raise bad_value(
                name,
                f"{name} must be a number from {field.least:g} to {field.most:g}, not "
                f"{quoted(text)}",
            )
        return float(text)

    def _check(self, name: str, value: str) -> None:
        choices = FIELDS[name].choices
        if choices and value not in choices:
            listed = " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))
            raise bad_value(name, f"{name} must be {listed}, not {quoted(value)}")
