"""Labelled speech as utterances to train on: their groups, and which of them cannot be used.

The runtime's code reads and decodes them, so training data is treated exactly as the data of an
evaluation or a transcription.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import soundfile

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.speech_dataset import audio_of, decode_audio, read_rows
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
    audio: str | bytes
    """Path of the file, or its content."""
    text: str
    group: str = ""
    """Consecutive utterances of the same group are one speaker's continuous speech."""

    def seconds(self) -> float:
        """Duration stated in the file's header, or of the decoded audio if none is stated.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the audio cannot be decoded.
        """
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
        with Path(audio).open("rb") if isinstance(audio, str) else io.BytesIO(audio) as source:
            size = source.seek(0, io.SEEK_END)
            digest.update(str(size).encode())
            for start in (0, size // 2, max(0, size - _HASHED)):
                source.seek(start)
                digest.update(source.read(_HASHED))
        return digest.digest()


def audio_fingerprint(utterances: Iterable[Utterance]) -> str:
    """Identifies the content of audio files, wherever they are and whenever they were written."""
    digest = hashlib.sha256()
    for utterance in utterances:
        digest.update(utterance.content())
    return digest.hexdigest()[:16]


@dataclass
class BadRows:
    """Counts the rows of a dataset that cannot be used, by reason, with an example each."""

    allowed: bool = False
    """Whether to skip bad rows; otherwise the first one is an error."""
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

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
        self.counts[reason] += 1
        self.examples.setdefault(reason, what)

    def __str__(self) -> str:
        parts = [f"{count} {reason} (first: {self.examples[reason]})" for reason, count in
                 self.counts.items()]  # fmt: skip
        return "; ".join(parts) or "none"


def read_utterances(
    source: str,
    *,
    split: str = "train",
    text_column: str | None = "text",
    audio_column: str = "audio",
    bad: BadRows | None = None,
    streaming: bool = False,
) -> Iterator[Utterance]:
    """Reads labelled speech in the order of the dataset.

    Args:
        source: a folder, a list of files or a hub id; see `read_rows`.
        split: of a hub dataset or of a folder with splits.
        text_column: column of the transcript; None to read the audio alone.
        audio_column: column of the audio; a list's paths may be called `file_name` or `path`.
        bad: counts rows without text or audio.
        streaming: read a hub dataset without downloading it first.

    Raises:
        FileNotFoundError: no such folder, file or dataset.
        ValueError: a list that cannot be read, a column is missing, or a row is bad and `bad`
            does not allow it.
    """
    bad = bad or BadRows()
    rows, base = read_rows(source, split=split, audio_column=audio_column, streaming=streaming)
    for number, row in enumerate(rows):
        if text_column is not None and text_column not in row:
            columns = ", ".join(map(str, row))
            raise ValueError(f"{source}: no column {text_column!r}; it has {columns}")
        audio = audio_of(row, audio_column, base)
        name = audio if isinstance(audio, str) else f"{source}[{number}]"
        if audio is None:
            bad.add("without audio", name or f"{source}[{number}]")
            continue
        text = "" if text_column is None else str(row[text_column] or "").strip()
        if text_column is not None and not text:
            bad.add("without text", name or f"{source}[{number}]")
            continue
        group = "/".join(str(row[key]) for key in GROUP_COLUMNS if row.get(key) is not None)
        yield Utterance(str(name), audio, text, group)
