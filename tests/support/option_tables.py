"""The tables of docs/differences.md in which other programs' options stand beside ours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DIFFERENCES = Path(__file__).parents[2] / "docs" / "differences.md"
SAME = "the same"
"""In the place of our name, where it is theirs."""


@dataclass(frozen=True)
class Row:
    """Options of other programs, and what there is for them here."""

    theirs: tuple[str, ...]
    programs: frozenset[str]
    """Letters: o for openai-whisper, m for mlx-whisper, f for faster-whisper."""
    ours: str

    @property
    def names(self) -> tuple[str, ...]:
        """Our options: theirs, or the one that the cell begins with; none if it names none."""
        if self.ours.startswith(SAME):
            return self.theirs
        return tuple(re.findall(r"^`([^`]+)`", self.ours))

    @property
    def owner(self) -> str:
        """The function that takes our option, if the cell says that it is not `transcribe`."""
        found = re.match(r"`[^`]+` of `(\w+)`", self.ours)
        return found[1] if found else "transcribe"


def option_rows(section: str) -> list[Row]:
    """The rows of the table under a heading of the third level."""
    text = DIFFERENCES.read_text(encoding="utf-8")
    body = text.split(f"\n### {section}\n")[1].split("\n### ")[0]
    rows = []
    for line in body.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[0].startswith("`"):
            theirs = tuple(re.findall(r"`([^`]+)`", cells[0]))
            rows.append(Row(theirs, frozenset(cells[1].split()), cells[2]))
    return rows
