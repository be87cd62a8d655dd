"""The state of a search for merging weights, from which it resumes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from baldwhisper_mlx.files import read_json, write_atomically

SEARCH_FILE = "search.json"


class SearchState:
    """`search.json`: the finished trials, the pending one and the optimizer's state."""

    def __init__(self, folder: Path, key: str, settings: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / SEARCH_FILE
        plain = json.loads(json.dumps(dataclasses.asdict(settings)))
        self.state: dict[str, Any] = {
            "key": key, "settings": plain, "trials": [], "pending": None, "optimizer": None,
        }  # fmt: skip
        if self.path.is_file():
            stored = _stored(self.path, self.state.keys())
            if stored["key"] != key:
                raise FileExistsError(
                    f"{folder}: a search with other settings or data; give another folder"
                )
            self.state = stored

    @property
    def trials(self) -> list[dict[str, Any]]:
        """The finished trials."""
        trials: list[dict[str, Any]] = self.state["trials"]
        return trials

    def save(self, **changes: Any) -> None:
        """Updates the state and writes it atomically."""
        self.state |= changes
        write_atomically(self.path, json.dumps(self.state, indent=1) + "\n")


def _stored(path: Path, keys: Collection[str]) -> dict[str, Any]:
    """The state of an interrupted search.

    Raises:
        ValueError: damaged; the message says what to delete.
    """
    advice = "delete the file to start the search again"
    try:
        stored = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}; {advice}") from None
    trials = stored.get("trials") if isinstance(stored, dict) else None
    if not isinstance(trials, list) or not keys <= stored.keys():
        raise ValueError(f"{path}: not the state of a search; {advice}")
    for trial in trials:
        if not isinstance(trial, dict) or not {"alpha", "beta", "wer"} <= trial.keys():
            raise ValueError(f"{path}: a trial without alpha, beta and wer; {advice}")
    return dict(stored)
