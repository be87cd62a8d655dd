"""Groups sentences into runs of one document and one voice, and synthesizes the files of a run.

Whisper processes 30 s at a time and is conditioned on the previous text, so consecutive clips are
more useful when they belong together. A run has one voice, one augmentation and one seed; its files
are the same in whichever process and order runs are made.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from speech_augment import Augmentation, augment, draw_augmentation
from speech_engines import VoiceRange, VoiceSetting, draw_voice
from speech_text import ngrams, read_list

from baldwhisper_convert.data.augment import Audio
from baldwhisper_mlx.config import SAMPLE_RATE

MIN_RUN, MAX_RUN = 6, 30
MAX_GAP = 3
"""Largest number of sentences that are left out between two neighbours of a run."""
MIN_RATE, MAX_RATE = 6.0, 30.0
"""Bounds of plausible speech, in characters per second."""

CLEAN_LEVEL = -23.0
"""RMS of speech that is not augmented, in dBFS."""

Speak = Callable[[str, VoiceSetting], Audio]


@dataclass(frozen=True)
class Sentence:
    """A line of sentences.jsonl."""

    text: str
    source: str
    licence: str
    document: str
    index: int


@dataclass(frozen=True)
class Run:
    """Consecutive sentences of one document, and the number that their random draws depend on."""

    number: int
    sentences: tuple[Sentence, ...]


def load_sentences(path: Path) -> list[Sentence]:
    """Reads sentences.jsonl, or a text with one sentence a line (.txt, .txt.gz).

    Of a text, which is one document, only sentences that voices can read are taken: `read_list`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line is not JSON or lacks a field; names the line. Or no sentence is left.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; run scripts/get_texts.py")
    if path.suffixes[-2:] == [".txt", ".gz"] or path.suffix == ".txt":
        return _read_text(path)
    sentences = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            sentences.append(Sentence(**json.loads(line)))
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return sentences


def _read_text(path: Path) -> list[Sentence]:
    data = path.read_bytes()
    try:
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (gzip.BadGzipFile, EOFError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a text in UTF-8 ({error})") from error
    name = path.name.partition(".")[0]
    found = [Sentence(line, name, "", name, number) for number, line in read_list(text)]
    if not found:
        raise ValueError(f"{path}: no line is a sentence of 4 to 40 words that a voice can read")
    return found


def drop_excluded(
    sentences: list[Sentence], excluded: set[tuple[str, ...]]
) -> tuple[list[Sentence], int]:
    """Leaves out sentences that share an n-gram with an excluded transcript.

    Returns:
        The remaining sentences and the number of those left out.
    """
    kept = [s for s in sentences if excluded.isdisjoint(ngrams(s.text))]
    return kept, len(sentences) - len(kept)


def _pieces(sentences: list[Sentence], rng: np.random.Generator) -> list[tuple[Sentence, ...]]:
    """Splits a document's sentences at gaps, then into runs of 6 to 30; drops short remainders."""
    stretches: list[list[Sentence]] = []
    for sentence in sentences:
        if stretches and 0 < sentence.index - stretches[-1][-1].index <= MAX_GAP + 1:
            stretches[-1].append(sentence)
        else:
            stretches.append([sentence])
    pieces = []
    for stretch in stretches:
        start = 0
        while len(stretch) - start >= MIN_RUN:
            length = int(rng.integers(MIN_RUN, MAX_RUN + 1))
            pieces.append(tuple(stretch[start : start + length]))
            start += length
    return pieces


def build_runs(sentences: list[Sentence], seed: int) -> list[Run]:
    """Makes all possible runs, in an order that mixes the sources from the start.

    The probability of a source is proportional to the square root of the number of its remaining
    runs, so that small sources get a noticeable share without slowing down large ones.

    Args:
        sentences: in the order of their documents.
        seed: of the lengths and the order.

    Returns:
        Numbered runs; any number of the first ones is a mix of all sources.
    """
    documents: dict[str, list[Sentence]] = defaultdict(list)
    for sentence in sentences:
        documents[sentence.document].append(sentence)
    rng = np.random.default_rng(seed)
    waiting: dict[str, list[tuple[Sentence, ...]]] = defaultdict(list)
    for document in documents.values():
        waiting[document[0].source] += _pieces(document, rng)
    for pieces in waiting.values():
        rng.shuffle(pieces)
    runs: list[Run] = []
    while left := {name: pieces for name, pieces in waiting.items() if pieces}:
        weights = np.array([math.sqrt(len(pieces)) for pieces in left.values()])
        name = list(left)[int(rng.choice(len(left), p=weights / weights.sum()))]
        runs.append(Run(len(runs), left[name].pop()))
    return runs


def is_plausible(text: str, audio: Audio) -> bool:
    """Whether audio is finite, not silent, and has 6 to 30 characters of text per second."""
    seconds = len(audio) / SAMPLE_RATE
    if seconds == 0.0 or not np.all(np.isfinite(audio)) or not np.any(audio):
        return False
    return MIN_RATE <= len(text) / seconds <= MAX_RATE


def file_name(run: Run, position: int) -> str:
    """Name of a clip; names sort by run, then by position in it."""
    return f"{run.number:06d}-{position:02d}.flac"


def write_flac(path: Path, audio: Audio) -> None:
    """Writes 16 kHz mono 16-bit FLAC under a temporary name, then renames it."""
    partial = path.with_suffix(".partial")
    samples = np.clip(np.round(audio * 32767.0), -32768, 32767).astype(np.int16)
    soundfile.write(partial, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    partial.replace(path)


def make_run(
    run: Run,
    folder: Path,
    seed: int,
    voices: list[VoiceRange],
    speak: Speak,
    clean: bool = False,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Synthesizes, augments and writes one run.

    Args:
        run: the sentences.
        folder: for the audio files.
        seed: determines all random draws, together with the run's number.
        voices: to draw from.
        speak: synthesizes a sentence with a voice to float32 audio at 16 kHz, or raises ValueError.
        clean: no augmentation, but for a common level.

    Returns:
        The metadata rows of the written files, and rows of the skipped sentences with reasons.
    """
    rng = np.random.default_rng([seed, run.number])
    voice, chosen = draw_voice(voices, rng), draw_augmentation(rng)
    if clean:
        chosen = Augmentation(CLEAN_LEVEL)
    clips: list[Audio] = []
    places: list[int] = []
    skipped: list[dict[str, Any]] = []
    for position, sentence in enumerate(run.sentences):
        reason = "implausible duration"
        try:
            audio = speak(sentence.text, voice)
        except ValueError as error:
            audio, reason = np.zeros(0, np.float32), str(error)
        if is_plausible(sentence.text, audio):
            clips.append(audio)
            places.append(position)
        else:
            row = {"run": run.number, "position": position, "text": sentence.text}
            skipped.append({**row, "speaker": voice.speaker, "reason": reason})
    rows = []
    for position, audio in zip(places, augment(clips, chosen, rng), strict=True):
        sentence, name = run.sentences[position], file_name(run, position)
        write_flac(folder / name, audio)
        rows.append(
            {"file_name": name, "text": sentence.text}
            | {"duration": round(len(audio) / SAMPLE_RATE, 3), "speaker": voice.speaker}
            | {"source": sentence.source, "document": sentence.document, "index": sentence.index}
            | {"run": run.number, "position": position}
            | {"voice": voice.to_dict(), "augmentation": chosen.to_dict()}
        )
    return rows, skipped


def digest(sentences: list[Sentence]) -> str:
    """SHA-256 of the texts and their places, by which a resumed folder is checked."""
    hasher = hashlib.sha256()
    for sentence in sentences:
        hasher.update(f"{sentence.document}\t{sentence.index}\t{sentence.text}\n".encode())
    return hasher.hexdigest()
