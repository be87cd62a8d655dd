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
from baldwhisper_convert.data.prepared import SETTINGS_FILE, Prepared, read_settings
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
        FileExistsError: as `prepare`; names the settings that differ.
        BlockingIOError, ValueError: as `prepare`.
    """
    if (done := windows_so_far(folder)) and not settings_changed(folder, settings):
        say(f"{folder}: resumes after window {done}")
    try:
        return prepare(teacher, utterances, settings, folder, bad=bad, device=device)
    except OtherSettingsError as error:
        raise FileExistsError(f"{error}. {_reasons(folder, settings)}") from None


def _reasons(folder: Path, settings: PrepareSettings) -> str:
    """Which settings of a set differ, as far as it says."""
    if _stored(folder) is None:
        return "An earlier version began it, so it does not say which settings differ"
    if found := settings_changed(folder, settings):
        return "Settings that differ: " + "; ".join(found)
    return (
        "The settings are the same, so the list of recordings, a transcript or the teacher is not"
    )


def _stored(folder: Path) -> dict[str, Any] | None:
    """The settings of a set, complete or not; None if an earlier version began it."""
    if not (folder / SETTINGS_FILE).is_file():
        return None
    plain = read_settings(folder)
    found: dict[str, Any] | None = (plain.get("report") or plain).get("settings")
    return found


def _with_defaults(table: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """A table of settings with those that it lacks, in its sections too."""
    return {
        key: _with_defaults(table.get(key, {}), value)
        if isinstance(value, dict)
        else table.get(key, value)
        for key, value in default.items()
    }


def settings_changed(folder: Path, settings: PrepareSettings) -> list[str]:
    """Which settings of prepared data differ, such as `passes: 1 -> 3`, as far as it says.

    Args:
        folder: of the data; without any, nothing differs.
        settings: as they are now.

    Raises:
        ValueError: damaged data.
    """
    stored = _stored(folder)
    if stored is None:
        return []
    plain = [dataclasses.asdict(one) for one in (PrepareSettings(), settings)]
    default, new = (json.loads(json.dumps(table)) for table in plain)
    # Of an earlier version, which lacks settings: their defaults are what it did.
    tables = [_with_defaults(stored, default), new]
    for table in tables:
        # Not part of the key: a folder of noise may have been moved, a language has two names.
        table.get("augmentation", {}).pop("recordings", None)
        language = str(table.get("language", "")).lower()
        table["language"] = LANGUAGES.get(language, language)
    return changes(*tables)
