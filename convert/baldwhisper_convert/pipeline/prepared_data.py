"""Preparing for a command: says where it resumes, and why a folder does not fit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint
from baldwhisper_convert.data.pieces import windows_so_far
from baldwhisper_convert.data.prepare import prepare
from baldwhisper_convert.data.prepare_settings import PrepareSettings
from baldwhisper_convert.data.prepared import Prepared, read_settings
from baldwhisper_convert.data.prepared_writer import OtherSettingsError
from baldwhisper_convert.data.utterances import BadRows, Utterance
from baldwhisper_convert.pipeline.manifest import changes
from baldwhisper_mlx.text.languages import LANGUAGES


def prepare_data(
    teacher: Checkpoint,
    utterances: Iterable[Utterance],
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
        FileExistsError: as `prepare`; names the settings that differ, if the data is complete.
        BlockingIOError, ValueError: as `prepare`.
    """
    if done := windows_so_far(folder):
        say(f"{folder}: resumes after window {done}")
    try:
        return prepare(teacher, utterances, settings, folder, bad=bad, device=device)
    except OtherSettingsError as error:
        raise FileExistsError(f"{error}. {_reasons(folder, settings)}") from None


def _reasons(folder: Path, settings: PrepareSettings) -> str:
    """Which settings of a set differ, as far as it says."""
    stored = (read_settings(folder).get("report") or {}).get("settings")
    if stored is None:
        return "It is not complete, so it does not say which settings differ"
    if found := _settings_changed(stored, settings):
        return "Settings that differ: " + "; ".join(found)
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
