"""Transcripts of an evaluation, appended to a file line by line so that interrupted runs resume.

The file is JSON lines of two kinds. A run is a model and its decoding options, and comes before
its hypotheses; a hypothesis names its run and the digest of its audio. So a hypothesis of another
model, of other options or of audio that has changed since is never used. Normalizers are no part
of it: the same hypotheses can be scored in several ways. The keys are the fields of `Run` and
`Hypothesis`; a renamed field would make older files unreadable.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from baldwhisper_mlx.checkpoint.files import HUB_FILES
from baldwhisper_mlx.output.json_lines import append_json_lines, read_json_lines

_CHUNK = 2**20


def fingerprint(folder: Path) -> str:
    """What identifies a model in any folder: the start of a SHA-256 of its files.

    Args:
        folder: of the model; its config, weights, vocabulary and constants for padding are
            hashed, its card is not.
    """
    digest = hashlib.sha256()
    for name in sorted(HUB_FILES):
        path = folder / name
        if path.is_file():
            digest.update(f"{name} {path.stat().st_size}\n".encode())
            with path.open("rb") as file:
                while block := file.read(_CHUNK):
                    digest.update(block)
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Run:
    """A model and its decoding options."""

    model: str
    """Its name, for people."""
    fingerprint: str
    options: dict[str, Any]
    """Everything that may change a transcript or the time it takes, as JSON values."""

    @property
    def key(self) -> str:
        """Of fingerprint and options; the name does not matter."""
        text = json.dumps([self.fingerprint, self.options], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Hypothesis:
    """The transcript of one clip by one model."""

    audio: str
    """Digest of the clip's audio."""
    file: str
    """Its name, for people."""
    text: str
    language: str | None
    duration: float
    """Seconds of audio."""
    seconds: float
    """Time taken, reading of the file included; of a batch, an equal share."""


@dataclass(frozen=True)
class ClipResult:
    """A clip without its audio, and its transcript by one model."""

    file: str
    reference: str
    speaker: str | None
    hypothesis: Hypothesis | None
    """None if the audio could not be read."""
    reason: str = ""
    """Why it could not be read."""


class Hypotheses:
    """The file, or a store in memory that ends with the process.

    Args:
        path: of the file; it need not exist. None for memory only.

    Raises:
        ValueError: the file is damaged, not merely cut off in its last line.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._runs: dict[str, dict[str, Hypothesis]] = {}
        if path is not None:
            try:
                self._read(path)
            except ValueError as error:
                raise ValueError(f"{error}; move the file away to start over") from None

    def _read(self, path: Path) -> None:
        for number, row in enumerate(read_json_lines(path), start=1):
            try:
                key = row.pop("run")
                if "options" in row:
                    self._runs.setdefault(key, {})
                else:
                    hypothesis = Hypothesis(**row)
                    self._runs[key][hypothesis.audio] = hypothesis
            except (KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{path}: line {number} is not of an evaluation ({error!r})"
                ) from None

    def of(self, run: Run) -> dict[str, Hypothesis]:
        """The hypotheses of a run so far, by the digest of the audio."""
        return self._runs.get(run.key, {})

    def add(self, run: Run, hypotheses: list[Hypothesis]) -> None:
        """Keeps hypotheses; once this returns, they outlive the process."""
        rows: list[dict[str, Any]] = [{"run": run.key} | asdict(one) for one in hypotheses]
        if run.key not in self._runs:
            rows.insert(0, {"run": run.key} | asdict(run))
            self._runs[run.key] = {}
        self._runs[run.key].update((one.audio, one) for one in hypotheses)
        if self.path is not None:
            append_json_lines(self.path, rows)
