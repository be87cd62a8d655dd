"""Word timestamps of the runtime compared with openai-whisper's, on real speech.

    python -m benchmarks.accuracy.word_times CLIPS --checkpoint CKPT \\
        --model "whisper-base=EXPORTED" --model "tiny-en=" \\
        --output benchmarks/results/word_times.json

CKPT is the weights for openai-whisper, in any format; a model without a folder is the bundled
one. Words that two transcripts have in common, in order, are compared by their starts and ends.
openai-whisper runs the decoder once more over the finished text for its times; the runtime takes
them from the decoding.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

import baldwhisper_mlx
from baldwhisper_mlx.audio.buffer import Samples
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.audio.speech_dataset import audio_of, read_rows
from benchmarks.accuracy.agreement import openai_model
from benchmarks.machines import describe
from benchmarks.options import (
    Benchmark,
    language_option,
    model_or_bundled,
    models_option,
    output_option,
)
from benchmarks.result_files import write_json

NEAR = 0.08
"""Seconds; four of the encoder's positions."""

Timed = tuple[str, float, float]
"""A word without punctuation and case, its start and its end in seconds."""
Transcriber = Callable[[Samples], list[Timed]]


def plain(word: str) -> str:
    """A word to compare by."""
    return "".join(c for c in word.lower() if c.isalnum())


def openai_words(checkpoint: str, language: str) -> Transcriber:
    """openai-whisper's words, greedily decoded in float32."""
    model = openai_model(checkpoint)

    def transcribe(samples: Samples) -> list[Timed]:
        found = model.transcribe(
            samples, language=language, temperature=0.0, fp16=False, word_timestamps=True
        )
        return [
            (plain(word["word"]), word["start"], word["end"])
            for segment in found["segments"]
            for word in segment["words"]
        ]

    return transcribe


def our_words(folder: Path | None, language: str) -> Transcriber:
    """The runtime's words, with the weights as they are stored."""
    loaded = baldwhisper_mlx.load_model(folder)

    def transcribe(samples: Samples) -> list[Timed]:
        found = baldwhisper_mlx.transcribe(
            samples, loaded, language=language, temperature=0.0, word_timestamps=True
        )
        return [
            (plain(word.word), word.start, word.end)
            for segment in found.segments
            for word in segment.words or ()
        ]

    return transcribe


def differences(words: Sequence[Timed], others: Sequence[Timed]) -> list[tuple[float, float]]:
    """Seconds between the starts and the ends of the words that both have, in order."""
    matcher = difflib.SequenceMatcher(
        a=[word for word, _, _ in words], b=[word for word, _, _ in others], autojunk=False
    )
    return [
        (words[i + k][1] - others[j + k][1], words[i + k][2] - others[j + k][2])
        for i, j, size in matcher.get_matching_blocks()
        for k in range(size)
    ]


def summary(found: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Absolute differences in seconds: median, 90th percentile, and the share that is near.

    Raises:
        ValueError: nothing to compare.
    """
    if not found:
        raise ValueError("the transcripts have no word in common")
    row: dict[str, Any] = {"words": len(found)}
    for edge, gaps in zip(("start", "end"), np.abs(np.array(found)).T, strict=True):
        row[edge] = {
            "median": float(np.median(gaps)),
            "p90": float(np.quantile(gaps, 0.9)),
            "near": float(np.mean(gaps <= NEAR + 1e-6)),
        }
    return row


@click.command(cls=Benchmark)
@click.argument("folder")
@click.option("--checkpoint", required=True, metavar="MODEL", help="What openai-whisper runs.")
@models_option(bundled=True)
@language_option
@click.option("--limit", type=click.IntRange(min=1), default=40, show_default=True,
              help="Only the first so many clips.")  # fmt: skip
@output_option()
def main(
    folder: str, checkpoint: str, models: Sequence[str], language: str, limit: int, output: Path
) -> None:
    """Compare word times on the clips of FOLDER."""
    rows, base = read_rows(folder)
    clips = [load_audio(str(audio_of(row, "audio", base))) for row in itertools.islice(rows, limit)]
    reference = openai_words(checkpoint, language)
    expected = [reference(samples) for samples in clips]
    result: dict[str, Any] = {
        "machine": describe(),
        "clips": len(clips),
        "near": NEAR,
        "models": {},
    }
    for item in models:
        name, model = model_or_bundled(item)
        transcribe = our_words(model, language)
        found = [
            pair
            for samples, others in zip(clips, expected, strict=True)
            for pair in differences(transcribe(samples), others)
        ]
        row = summary(found)
        result.setdefault("models", {})[name] = row
        click.echo(
            f"{name}: {row['words']} words of {sum(map(len, expected))}, median difference "
            f"{1000 * row['start']['median']:.0f} ms at the start, "
            f"{1000 * row['end']['median']:.0f} ms at the end"
        )
    write_json(output, result)


if __name__ == "__main__":
    main()
