"""How speech is labelled, and which labels are kept."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class LabelSettings:
    """How speech is labelled, and which labels are kept.

    Raises:
        ValueError: a value out of range, or one that needs another.
    """

    model: str
    """Model folder, other checkpoint, or Hub id, whose output is the label."""
    second_model: str | None = None
    """The same of a model that the first one is compared with."""
    language: str = "en"
    """Of the speech, code or English name."""
    max_wer: float | None = None
    """Largest word error rate of a label against the given text; None for no limit."""
    max_disagreement: float | None = None
    """Largest word error rate of the second model's output against the label."""
    max_compression_ratio: float | None = 2.4
    """Largest compression ratio of a label; a text that repeats itself has a high one."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.startswith("max_") and value is not None and not value >= 0:
                raise ValueError(f"{field.name} must not be negative, but is {value}")
        if self.max_disagreement is not None and self.second_model is None:
            raise ValueError("max_disagreement needs a second model: --second-model")

    def to_dict(self) -> dict[str, object]:
        """The settings, with local models as absolute paths."""
        written: dict[str, object] = dict(vars(self))
        for name in ("model", "second_model"):
            written[name] = located(written[name]) if written[name] else None
        return written


def located(model: object) -> str:
    """The name of a model in every process: an absolute path if it is a path, else a Hub id."""
    path = Path(str(model)).expanduser()
    return str(path.absolute()) if path.exists() else str(model)
