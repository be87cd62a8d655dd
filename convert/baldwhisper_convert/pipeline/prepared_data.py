"""Preparing for a command: says where it resumes, and why a folder does not fit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.data.prepare import prepare
from baldwhisper_convert.data.prepare_settings import PrepareSettings
from baldwhisper_convert.data.prepared import (
    SETTINGS_FILE,
    Prepared,
    read_settings,
    read_windows,
)
from baldwhisper_convert.data.utterances import BadRows, Utterance
from baldwhisper_convert.pipeline.manifest import changes
from baldwhisper_mlx.text.languages import LANGUAGES

_MOST_NAMED = 5
"""Files that an error names."""


def prepare_data(
    teacher: Checkpoint,
    utterances: Sequence[Utterance],
    settings: PrepareSettings,
    folder: Path,
    *,
    bad: BadRows,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> Prepared:
    """As `prepare`.

    Args:
        teacher, utterances, settings, folder, bad, device: as for `prepare`.
        say: receives where an interrupted run resumes.

    Raises:
        FileExistsError: as `prepare`; names the settings or files that differ, if they are known.
        BlockingIOError, ValueError: as `prepare`.
    """
    if done := interrupted_windows(folder):
        say(f"{folder}: resumes after window {done}")
    try:
        return prepare(teacher, utterances, settings, folder, bad=bad, device=device)
    except FileExistsError as error:
        if reasons := _reasons(folder, utterances, settings):
            raise FileExistsError(f"{error}. {reasons}") from None
        raise


def interrupted_windows(folder: Path) -> int:
    """Number of windows in the data of an interrupted run; 0 if there is none."""
    if not (folder / SETTINGS_FILE).is_file() or read_settings(folder)["complete"]:
        return 0
    return sum(1 for _ in read_windows(folder))


def _reasons(folder: Path, utterances: Sequence[Utterance], settings: PrepareSettings) -> str:
    """What differs: settings, or audio files that were written after the data."""
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return ""
    stored = (read_settings(folder).get("report") or {}).get("settings")
    found = _settings_changed(stored, settings) if stored else []
    if found:
        return "Settings that differ: " + "; ".join(found)
    made = path.stat().st_mtime
    newer = [
        utterance.audio
        for utterance in utterances
        if isinstance(utterance.audio, str) and Path(utterance.audio).stat().st_mtime > made
    ]
    if newer:
        more = f" and {len(newer) - _MOST_NAMED} more" if len(newer) > _MOST_NAMED else ""
        return f"Written since: {', '.join(newer[:_MOST_NAMED])}{more}"
    return (
        "The settings are the same, so the list of recordings, a transcript or the teacher is not"
    )


def _settings_changed(stored: dict[str, Any], settings: PrepareSettings) -> list[str]:
    tables = [json.loads(json.dumps(t)) for t in (stored, dataclasses.asdict(settings))]
    for table in tables:
        # Not part of the key: a folder of noise may have been moved, a language has two names.
        table.get("augmentation", {}).pop("recordings", None)
        language = str(table.get("language", "")).lower()
        table["language"] = LANGUAGES.get(language, language)
    return changes(*tables)
