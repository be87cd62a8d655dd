"""Labelled speech as utterances to train on: their groups, and which of them cannot be used.

The runtime's code reads and decodes them, so training data is treated exactly as the data of an
evaluation or a transcription.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soundfile

from baldwhisper_convert.data.turns import TURNS_COLUMN, Turn, parse_turns
from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.speech_columns import Say, say_nothing
from baldwhisper_mlx.audio.speech_dataset import Audio, Excerpt, SpeechData, decode_audio
from baldwhisper_mlx.config import SAMPLE_RATE

GROUP_COLUMNS = ("run", "chapter", "speaker", "speaker_id", "client_id")
"""Columns whose values together identify continuous speech of one speaker."""

_HASHED = 64 * 1024
"""Bytes of each part of a file that its fingerprint is computed from."""

_LONGEST = 24 * 3600.0
"""Seconds; a header that states more was written for a stream of unknown length."""


@dataclass(frozen=True)
class Utterance:
    """One recording and its transcript."""

    name: str
    """File name, or number in the dataset; for error messages."""
    audio: Audio
    """Path of the file, its content, or a part of a file."""
    text: str
    group: str = ""
    """Consecutive utterances of the same group are one speaker's continuous speech; without a
    group, the speaker is unknown, and an utterance is joined with no other."""
    turns: tuple[Turn, ...] = ()
    """The stretches in one language each, if the data says."""

    def seconds(self) -> float:
        """Duration stated in the file's header, or of the decoded audio if none is stated.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the audio cannot be decoded.
        """
        if isinstance(self.audio, Excerpt) and self.audio.end < float("inf"):
            if not os.path.isfile(self.audio.path):
                raise FileNotFoundError(f"{self.audio.path}: no such file")
            return self.audio.end - self.audio.start
        if isinstance(self.audio, Excerpt):
            return len(self.samples()) / SAMPLE_RATE
        try:
            source = self.audio if isinstance(self.audio, str) else io.BytesIO(self.audio)
            stated = float(soundfile.info(source).duration)
        except soundfile.LibsndfileError:
            stated = 0.0
        return stated if 0.0 < stated < _LONGEST else len(self.samples()) / SAMPLE_RATE

    def samples(self) -> Samples:
        """Decodes the audio: mono at 16 kHz.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the audio cannot be decoded; the message names the utterance.
        """
        return decode_audio(self.audio, self.name)

    def content(self) -> bytes:
        """Hash of the audio's size and of its first, middle and last 64 KiB.

        Edited audio, such as with less noise or another level, differs in all of them; hashing
        whole files would take as long as reading the dataset.

        Raises:
            FileNotFoundError: there is no such file.
        """
        digest = hashlib.sha256()
        audio = self.audio
        if isinstance(audio, Excerpt):
            digest.update(f"{audio.start} {audio.end} ".encode())
            audio = audio.path
        with Path(audio).open("rb") if isinstance(audio, str) else io.BytesIO(audio) as source:
            size = source.seek(0, io.SEEK_END)
            digest.update(str(size).encode())
            for start in (0, size // 2, max(0, size - _HASHED)):
                source.seek(start)
                digest.update(source.read(_HASHED))
        return digest.digest()


@dataclass
class BadRows:
    """Counts and names the rows of a dataset that cannot be used."""

    allowed: bool = False
    """Whether to skip bad rows; otherwise the first one is an error."""
    say: Say = say_nothing
    """Receives a line about each row that is skipped."""
    rows: list[tuple[str, str]] = field(default_factory=list)
    """Each of them: the row, or a message about it; and what is wrong."""

    @property
    def counts(self) -> Counter[str]:
        """Rows by reason."""
        return Counter(reason for _, reason in self.rows)

    def add(self, reason: str, what: str) -> None:
        """Counts a bad row.

        Args:
            reason: what is wrong, to count by.
            what: the row, or a message about it.

        Raises:
            ValueError: bad rows are not allowed.
        """
        if not self.allowed:
            raise ValueError(f"{what}: {reason}; --skip-bad skips such utterances")
        self.rows.append((what, reason))
        self.say(f"skipped: {what}: {reason}")

    def __str__(self) -> str:
        first = {reason: what for what, reason in reversed(self.rows)}
        parts = [f"{n} {reason} (first: {first[reason]})" for reason, n in self.counts.items()]
        return "; ".join(parts) or "none"


def read_all(
    sources: Iterable[str], *, bad: BadRows, say: Say = say_nothing, **how: Any
) -> Iterator[Utterance]:
    """Reads several sources in their order; arguments and errors as of `read_utterances`."""
    for source in sources:
        yield from read_utterances(source, bad=bad, say=say, **how)


def read_utterances(
    source: str,
    *,
    split: str = "train",
    text_column: str | None = "text",
    audio_column: str = "audio",
    bad: BadRows | None = None,
    streaming: bool = False,
    say: Say = say_nothing,
) -> Iterator[Utterance]:
    """Reads labelled speech in the order of the dataset.

    Args:
        source: a folder, a list of files or a hub id; see `read_rows`.
        split: of a hub dataset or of a folder with splits.
        text_column: column of the transcript, see `find_columns`; None to read the audio alone.
        audio_column: column of the audio; a list's paths may be called `file_name` or `path`.
        bad: counts rows that cannot be used.
        streaming: read a hub dataset without downloading it first.
        say: receives lines about columns that were found, and about missing speakers.

    Raises:
        FileNotFoundError: no such folder, file or dataset.
        ValueError: a list that cannot be read, a column is missing, or a row is bad and `bad`
            does not allow it.
    """
    bad = bad or BadRows()
    data = SpeechData(
        source, split=split, text_column=text_column, audio_column=audio_column,
        streaming=streaming, say=say,
    )  # fmt: skip
    without_speaker = 0
    for number, item in enumerate(data):
        if item.fault or item.audio is None:
            bad.add(item.fault, item.name)
            continue
        if text_column is not None and not item.text:
            bad.add("without text", item.name)
            continue
        row = item.row
        groups = [str(row[key]) for key in GROUP_COLUMNS if row.get(key) not in (None, "")]
        without_speaker += not groups
        # The name is part of the key of prepared data, so it stays as it was.
        name = f"{source}[{number}]" if isinstance(item.audio, bytes) else item.name
        turns = parse_turns(row.get(TURNS_COLUMN))
        yield Utterance(name, item.audio, item.text or "", "/".join(groups), turns)
    if without_speaker:
        say(
            f"{source}: {without_speaker} clips have no speaker; each gets a window of its own, "
            "because speech of different people is not joined. A column speaker, speaker_id, "
            "client_id, chapter or run says which clips are one person's"
        )
