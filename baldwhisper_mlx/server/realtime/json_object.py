"""The fields of an object in an event: texts, lists, choices and numbers, checked."""

from __future__ import annotations

from typing import Any

from baldwhisper_mlx.server.errors import bad_value
from baldwhisper_mlx.terminal import quoted

_LONGEST_TEXT = 2**16


class JsonObject:
    """An object in an event, and its path there, which errors name.

    Args:
        value: of JSON.
        path: where it was.

    Raises:
        ApiError: it is no object.
    """

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise bad_value(path, f"{path} must be an object, not {quoted(value)}")
        self._value = value
        self.path = path

    def __contains__(self, name: str) -> bool:
        return name in self._value

    def is_null(self, name: str) -> bool:
        """Whether this is `null`, or missing."""
        return self._value.get(name) is None

    def is_text(self, name: str) -> bool:
        """Whether this is text."""
        return isinstance(self._value.get(name), str)

    def inner(self, name: str) -> JsonObject:
        """An object in this one; an empty one if it is null or missing."""
        value = self._value.get(name)
        return JsonObject({} if value is None else value, f"{self.path}.{name}")

    def text(self, name: str) -> str | None:
        """A text; None if it is null, empty or missing.

        Raises:
            ApiError: it is something else.
        """
        value, path = self._value.get(name), f"{self.path}.{name}"
        return None if value is None else _text(value, path)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, each once.

        Raises:
            ApiError: it is something else.
        """
        value, path = self._value.get(name), f"{self.path}.{name}"
        if value is None:
            return ()
        if not isinstance(value, list):
            raise bad_value(path, f"{path} must be a list, not {quoted(value)}")
        texts = [_text(one, path) for one in value]
        return tuple(dict.fromkeys(text for text in texts if text is not None))

    def choice(self, name: str, choices: tuple[str, ...]) -> str | None:
        """One of some texts; None if it is null or missing.

        Raises:
            ApiError: it is something else.
        """
        value, path = self.text(name), f"{self.path}.{name}"
        if value is not None and value not in choices:
            listed = ", ".join(choices)
            raise bad_value(path, f"{path} must be one of {listed}, not {quoted(value)}")
        return value

    def number(self, name: str, least: float, most: float) -> float | None:
        """A number; None if it is null or missing.

        Raises:
            ApiError: it is something else, or out of range.
        """
        value, path = self._value.get(name), f"{self.path}.{name}"
        if value is None:
            return None
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (is_number and least <= value <= most):
            raise bad_value(
                path, f"{path} must be a number from {least:g} to {most:g}, not {quoted(value)}"
            )
        return float(value)


def _text(value: Any, path: str) -> str | None:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise bad_value(path, f"{path} must be text, not {quoted(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise bad_value(path, f"{path}: half of a surrogate pair is no text") from None
    return value.strip() or None
