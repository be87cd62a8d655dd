"""Labelled speech as utterances to train on: whose it is, and which of it cannot be used.

Reading and decoding are the runtime's, so what trains is read and decoded as what is evaluated
and transcribed.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import soundfile

from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.speech_dataset import audio_of, decode_audio, read_rows
from baldwhisper_mlx.config import SAMPLE_RATE

GROUP_COLUMNS = ("run", "chapter", "speaker", "speaker_id", "client_id")
"""Columns that tell whose speech goes on from one utterance to the next."""

_LONGEST = 24 * 3600.0
"""Seconds; headers that say more are of streams whose length was not known."""


@dataclass(frozen=True)
class Utterance:
    """One recording and its transcript."""

    name: str
    """File name, or number in the dataset, for messages."""
    audio: str | bytes
    """Path of the file, or its content."""
    text: str
    group: str = ""
    """Utterances in a row with the same group are one speaker's running speech."""

    def seconds(self) -> float:
        """Length by the file's header, or decoded where there is none.

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


@dataclass
class BadRows:
    """What of a dataset cannot be used: counted by reason, an example each."""

    allowed: bool = False
    """Whether to go on without what is bad."""
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, what: str) -> None:
        """Counts one.

        Raises:
            ValueError: it is not allowed; names what is bad.
        """
        if not self.allowed:
            raise ValueError(f"{what}: {reason}; --skip-bad goes on without such utterances")
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
    text_column: str = "text",
    audio_column: str = "audio",
    bad: BadRows | None = None,
    streaming: bool = False,
) -> Iterator[Utterance]:
    """Reads labelled speech, in the order of the dataset.

    Args:
        source: a folder, a list of files or a hub id; see `read_rows`.
        split: of a hub dataset or of a folder with splits.
        text_column: column of the transcript.
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
        if text_column not in row:
            columns = ", ".join(map(str, row))
            raise ValueError(f"{source}: no column {text_column!r}; it has {columns}")
        audio = audio_of(row, audio_column, base)
        name = audio if isinstance(audio, str) else f"{source}[{number}]"
        if audio is None:
            bad.add("without audio", name or f"{source}[{number}]")
        elif not str(row[text_column] or "").strip():
            bad.add("without text", name or f"{source}[{number}]")
        else:
            group = "/".join(str(row[key]) for key in GROUP_COLUMNS if row.get(key) is not None)
            yield Utterance(str(name), audio, str(row[text_column]).strip(), group)
