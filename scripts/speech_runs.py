"""Groups sentences into runs of one document and one voice, and makes a run into files.

Whisper hears 30 s at a time and is prompted with what came before, so clips are worth more when
their neighbours belong together. A run is the unit of everything: one voice, one augmentation,
one seed; it comes out the same whichever process makes it and whenever.
"""

from __future__ import annotations

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
from speech_augment import augment, draw_augmentation
from speech_engines import VoiceRange, VoiceSetting, draw_voice
from speech_text import ngrams

from baldwhisper_convert.data.augment import Audio
from baldwhisper_mlx.config import SAMPLE_RATE

MIN_RUN, MAX_RUN = 6, 30
MAX_GAP = 3
"""Sentences that may have been left out between two neighbours of a run."""
MIN_RATE, MAX_RATE = 6.0, 30.0
"""Plausible speech, in characters a second."""

Speak = Callable[[str, VoiceSetting], Audio]


@dataclass(frozen=True)
class Sentence:
    """A line of sentences.jsonl, with its fields."""

    text: str
    source: str
    licence: str
    document: str
    index: int


@dataclass(frozen=True)
class Run:
    """Consecutive sentences of one document under the number that seeds their making."""

    number: int
    sentences: tuple[Sentence, ...]


def load_sentences(path: Path) -> list[Sentence]:
    """Reads sentences.jsonl.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is not JSON or lacks a field, by its number.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; scripts/get_texts.py makes it")
    sentences = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            sentences.append(Sentence(**json.loads(line)))
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return sentences


def drop_excluded(
    sentences: list[Sentence], excluded: set[tuple[str, ...]]
) -> tuple[list[Sentence], int]:
    """Leaves out sentences that share a run of words with an excluded transcript.

    Returns:
        The sentences that stay and the number of those left out.
    """
    kept = [s for s in sentences if excluded.isdisjoint(ngrams(s.text))]
    return kept, len(sentences) - len(kept)


def _pieces(sentences: list[Sentence], rng: np.random.Generator) -> list[tuple[Sentence, ...]]:
    """Cuts a document's sentences at gaps, then into runs of 6 to 30; shorter rests are left."""
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
    """Makes all runs there are, in an order that mixes the sources from the start.

    Sources are drawn with a chance that goes with the square root of their number of runs left,
    so that a small source is not drowned and a large one is not held back by it.

    Args:
        sentences: in the order of their documents.
        seed: of lengths and order.

    Returns:
        Numbered runs; any first part of them is a fair mix.
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
    """Whether the sound is finite, not silent, and 6 to 30 characters a second long."""
    seconds = len(audio) / SAMPLE_RATE
    if seconds == 0.0 or not np.all(np.isfinite(audio)) or not np.any(audio):
        return False
    return MIN_RATE <= len(text) / seconds <= MAX_RATE


def file_name(run: Run, position: int) -> str:
    """Sorts by run, then by place in it."""
    return f"{run.number:06d}-{position:02d}.flac"


def write_flac(path: Path, audio: Audio) -> None:
    """Writes 16 kHz mono 16-bit FLAC under a temporary name, then renames."""
    partial = path.with_suffix(".partial")
    samples = np.clip(np.round(audio * 32767.0), -32768, 32767).astype(np.int16)
    soundfile.write(partial, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    partial.replace(path)


def make_run(
    run: Run, folder: Path, seed: int, voices: list[VoiceRange], speak: Speak
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Speaks, augments and writes one run.

    Args:
        run: what to say.
        folder: where the audio goes.
        seed: with the run's number it decides everything that is drawn.
        voices: to draw from.
        speak: a sentence and a voice to float32 audio at 16 kHz; ValueError if it cannot.

    Returns:
        The metadata rows of the files written, and rows that tell which sentences were skipped
        and why.
    """
    rng = np.random.default_rng([seed, run.number])
    voice, chosen = draw_voice(voices, rng), draw_augmentation(rng)
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


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file that a killed run may have left; none if it is not there.

    A last line without its end, cut off in the middle of writing, is taken out of the file.

    Raises:
        ValueError: any other line that is not JSON.
    """
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        path.write_bytes(whole)
    try:
        return [json.loads(line) for line in whole.decode("utf-8").splitlines()]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSONL ({error}); move the folder away") from error


def digest(sentences: list[Sentence]) -> str:
    """A SHA-256 over texts and places, to know that a resumed folder has the same runs."""
    found = hashlib.sha256()
    for sentence in sentences:
        found.update(f"{sentence.document}\t{sentence.index}\t{sentence.text}\n".encode())
    return found.hexdigest()
