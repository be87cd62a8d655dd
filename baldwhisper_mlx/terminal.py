"""Text of unknown origin, made safe for a terminal.

Names of files, models and languages may hold escape sequences, which a terminal obeys: they change
its title, colours or what stands on the screen. Standard library only.
"""

from __future__ import annotations

_JOINERS = "\u200c\u200d"
"""Invisible, but part of the spelling of Persian and of Indic scripts."""


def printable(text: str, *, keep: str = "") -> str:
    """The text with every character that is not printable written out, such as `\\x1b`.

    Control characters, line ends, characters that reverse the direction of writing, and bytes of
    a file name that are no UTF-8 are written as escapes of Python; letters of any script, spaces
    and emoji stay.

    Args:
        text: anything, such as a file name.
        keep: characters that stay nevertheless, such as the line end of a message.

    Example:
        >>> print(printable("talk\\x1b[2J.mp3"))
        talk\\x1b[2J.mp3
    """
    if text.isprintable():
        return text
    stay = keep + _JOINERS
    return "".join(c if c.isprintable() or c in stay else _escaped(c) for c in text)


def quoted(value: object, most: int = 60) -> str:
    """A value from a file, in quotes if it is text, safe to print and of bounded length.

    Args:
        value: anything that JSON can hold.
        most: characters, after which it is cut off.

    Example:
        >>> quoted("a" * 100, most=3)
        "'aaa'..."
    """
    if isinstance(value, str):
        text, end = repr(value[:most]), "..." if len(value) > most else ""
        return printable(text) + end
    if isinstance(value, (list, dict)) and len(value) > most:
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    text = repr(value)
    return printable(text) if len(text) <= most else f"{printable(text[:most])}..."


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
