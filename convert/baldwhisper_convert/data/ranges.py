"""Range checks of settings."""

from __future__ import annotations

from collections.abc import Iterable


def check_range(settings: object, names: Iterable[str], low: float, high: float) -> None:
    """Checks that settings lie between two bounds, which are allowed themselves.

    Args:
        settings: an object with the settings as attributes.
        names: of the attributes.
        low: lower bound.
        high: upper bound.

    Raises:
        ValueError: a setting is out of range, or not a number.
    """
    for name in names:
        value = getattr(settings, name)
        if not low <= value <= high:
            raise ValueError(f"{name} must be between {low:g} and {high:g}, not {value}")
