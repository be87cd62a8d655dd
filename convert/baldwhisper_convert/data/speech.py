"""The data of a stage: prepared windows of speech, and plain text beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from baldwhisper_convert.checkpoint.checkpoint import Checkpoint, fingerprint
from baldwhisper_convert.data.batches import Batch, Mix, collate
from baldwhisper_convert.data.prepared import SPEECH, Choice, Prepared, Windows
from baldwhisper_convert.data.replay import Replay
from baldwhisper_convert.data.texts import text_fingerprint
from baldwhisper_convert.data.windows import WINDOW_POSITIONS
from baldwhisper_convert.model.prompts import Prompts

SAMPLE_BATCH = 8
"""Windows per batch of `sample`."""


@dataclass(frozen=True)
class ReplayTeacher:
    """Whose predictions are kept on replayed speech."""

    checkpoint: Checkpoint
    weight: float = 1.0
    """Of the KL to them."""
    full_context: bool = False
    """Whether it predicts from 30 s, although the log-mel of the speech is shorter."""


@dataclass(frozen=True, kw_only=True)
class Speech:
    """Prepared data for a stage."""

    windows: Windows
    fingerprints: dict[str, str]
    """Name to `Prepared.fingerprint`, or `text_fingerprint`, for the manifest."""
    replay: ReplayTeacher | None = None
    """Of the windows that are replayed, if `windows` is a `Replay`."""
    texts: tuple[Path, ...] = ()
    """Text files whose tokens `factorize` counts with those of the labels."""


def open_speech(data: Sequence[str], texts: Sequence[Path] = ()) -> Speech:
    """Opens prepared folders as one set of data, and text files beside it.

    Args:
        data: the folders, each with an optional `:share` of its windows to use.
        texts: text files.

    Raises:
        FileNotFoundError: a folder or a text is missing.
        ValueError: a folder that is unfinished, or folders with different features.
    """
    opened = [(Path(name).name, Prepared(name), share) for name, share in parse_shares(data)]
    return speech_of(opened, [(path.name, path) for path in texts])


def speech_of(
    data: Sequence[tuple[str, Prepared, float]], texts: Sequence[tuple[str, Path]] = ()
) -> Speech:
    """Prepared data as one set, and text files beside it, with their fingerprints.

    Args:
        data: name, data, and the share of its windows to use.
        texts: name and file.

    Raises:
        ValueError: data with different features.
    """
    prints = [(name, prepared.fingerprint) for name, prepared, _ in data]
    prints += [(name, text_fingerprint(path)) for name, path in texts]
    return Speech(
        windows=Choice([(prepared, share) for _, prepared, share in data]),
        fingerprints=by_name(prints),
        texts=tuple(path for _, path in texts),
    )


def by_name(fingerprints: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Fingerprints by name; different data of the same name is numbered, so that none is lost.

    Example:
        >>> by_name([("train", "a"), ("train", "b"), ("train", "a")])
        {'train': 'a', 'train (2)': 'b'}
    """
    found: dict[str, str] = {}
    for name, print in fingerprints:
        key, number = name, 1
        while found.get(key, print) != print:
            number += 1
            key = f"{name} ({number})"
        found[key] = print
    return found


def with_replay(
    speech: Speech,
    other: Speech,
    share: float,
    teacher: Checkpoint,
    weight: float = 1.0,
    *,
    data: Sequence[str] = (),
) -> Speech:
    """Adds speech of another language to every batch, see `Replay`.

    Args:
        speech: what is trained on.
        other: what is replayed.
        share: of the windows of every batch.
        teacher: whose predictions on the other language are kept.
        weight: of the KL to them.
        data: names of what is replayed, with the shares of its windows, for the manifest.

    Raises:
        ValueError: as `Replay`.
    """
    shown = replay_fingerprints(other.fingerprints, share, fingerprint(teacher), weight, data)
    cut = any(window.positions < WINDOW_POSITIONS for window in other.windows.windows)
    full_context = cut and teacher.audio_context != "dynamic"
    return replace(
        speech,
        windows=Replay(speech.windows, other.windows, share),
        fingerprints=speech.fingerprints | shown,
        replay=ReplayTeacher(teacher, weight, full_context),
    )


def replay_fingerprints(
    other: dict[str, str], share: float, teacher: str, weight: float, data: Sequence[str] = ()
) -> dict[str, str]:
    """What a manifest says about replay; the arguments are `with_replay`'s, as fingerprints."""
    shown = {f"replay {name}": print for name, print in other.items()}
    parts = "".join(f", {item}" for item in data if item not in other)
    return shown | {"replay": f"{share:g} of a batch, weight {weight:g}, teacher {teacher}{parts}"}


def sample(
    windows: Windows, prompts: Prompts, count: int, *, timestamps: float = 0.0
) -> list[Batch]:
    """Collates `count` windows of speech, or all if there are fewer, spread evenly over the data.

    Args:
        windows: the data.
        prompts: special tokens.
        count: of windows.
        timestamps: share of the windows whose tokens have timestamps.
    """
    spoken = [i for i, window in enumerate(windows.windows) if window.kind == SPEECH]
    count = min(count, len(spoken))
    chosen = [spoken[i * len(spoken) // count] for i in range(count)]
    mix = Mix(timestamps=timestamps, prompts=0.0)
    return [
        collate(windows, chosen[i : i + SAMPLE_BATCH], prompts, mix)
        for i in range(0, count, SAMPLE_BATCH)
    ]


def parse_shares(data: Sequence[str]) -> list[tuple[str, float]]:
    """Splits names from their shares: `["a", "b:0.5"]` becomes `[("a", 1.0), ("b", 0.5)]`.

    Raises:
        ValueError: a share that is not a number above 0.
    """
    shares = []
    for item in data:
        name, colon, share = item.rpartition(":")
        try:
            shares.append((name, float(share)) if colon else (item, 1.0))
        except ValueError:
            shares.append((item, 1.0))  # a path with a colon
        if not shares[-1][1] > 0:
            raise ValueError(f"{item}: the share must be above 0")
    return shares
