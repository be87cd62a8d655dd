"""Recordings in which the language changes: which share of the speech is written in its own one.

The recordings are those of `scripts/make_language_mix.py`. Every program gets every recording in
turn, so that all run under the same load. The transcript of a whole recording is aligned with its
reference, word by word, with Whisper's basic normalizer. A word that is equal counts as written in
its language; errors belong to the turn whose reference they stand in. Turns in a language that
Whisper does not know are reported apart. "each turn alone" is the best that can be had: every turn
is cut out and transcribed in its known language.

    python -m benchmarks.accuracy.languages_mixed --data mix --model whisper-base=DIR \\
        --faster-whisper CTRANSLATE2_DIR --output benchmarks/results/languages_mixed.json
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

import baldwhisper_mlx
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import SAMPLE_RATE
from baldwhisper_mlx.evaluation.normalizers import load_normalizer
from baldwhisper_mlx.evaluation.scoring import score
from benchmarks.machines import describe
from benchmarks.options import Benchmark, limit_option, models_option, named_model, output_option
from benchmarks.result_files import write_json

RECORDINGS_FILE = "recordings.jsonl"
UNKNOWN = "unknown"
"""Language of turns that Whisper does not know."""

Spans = list[tuple[float, float, str | None]]
"""Start and end in seconds, and language."""
Row = dict[str, Any]
Program = Callable[[Any, Sequence[Row]], tuple[str, Spans]]
"""From the samples and the turns of a recording to its text and segments."""

WAYS: dict[str, dict[str, Any]] = {
    "one language": {},
    "multilingual": {"multilingual": True},
    "multilingual, en fr de": {"multilingual": True, "languages": ["en", "fr", "de"]},
    "multilingual, vad": {"multilingual": True, "vad": True},
    "multilingual, batches": {"multilingual": True, "vad": True, "batch_size": 4},
}
ALONE = "each turn alone"


def ours(loaded: LoadedModel, options: dict[str, Any]) -> Program:
    """This runtime on the whole recording."""

    def transcribe(samples: Any, _turns: Sequence[Row]) -> tuple[str, Spans]:
        found = baldwhisper_mlx.transcribe(samples, loaded, **options)
        spans = [(s.start, s.end, s.language or found.language) for s in found.segments]
        return found.text, spans

    return transcribe


def alone(loaded: LoadedModel) -> Program:
    """This runtime on each turn, in its language; unknown ones are left out."""

    def transcribe(samples: Any, turns: Sequence[Row]) -> tuple[str, Spans]:
        texts, spans = [], []
        for turn in turns:
            if turn["language"] != UNKNOWN:
                part = samples[int(turn["start"] * SAMPLE_RATE) : int(turn["end"] * SAMPLE_RATE)]
                texts.append(
                    baldwhisper_mlx.transcribe(part, loaded, language=turn["language"]).text
                )
                spans.append((turn["start"], turn["end"], turn["language"]))
        return " ".join(texts), spans

    return transcribe


def faster_whisper(folder: str) -> Program:
    """faster-whisper with `multilingual`, which detects a language for every window."""
    from faster_whisper import WhisperModel

    loaded = WhisperModel(folder, device="cpu", compute_type="float32", cpu_threads=1)

    def transcribe(samples: Any, _turns: Sequence[Row]) -> tuple[str, Spans]:
        segments, _ = loaded.transcribe(samples, multilingual=True, beam_size=1)
        return "".join(segment.text for segment in segments), []

    return transcribe


def words_by_language(text: str, turns: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Reference words, equal words and errors of each language.

    Args:
        text: transcript of the recording.
        turns: of the recording.
    """
    normalize = load_normalizer("basic")
    owners = [t["language"] for t in turns for _ in normalize(t["text"]).split()]
    counts = {language: {"words": 0, "equal": 0, "errors": 0} for language in owners}
    place = 0
    for pair in score(" ".join(t["text"] for t in turns), text, normalize).alignment:
        # An inserted word belongs to the reference word before it.
        row = counts[owners[max(0, place - (pair.kind == "I"))]]
        row["errors"] += pair.kind != "="
        row["equal"] += pair.kind == "="
        if pair.kind != "I":
            row["words"] += 1
            place = min(place + 1, len(owners) - 1)
    return counts


def seconds_by_language(spans: Spans, turns: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Seconds of each language, and of them those in segments with that language.

    Args:
        spans: of the segments.
        turns: of the recording.
    """
    result: dict[str, dict[str, float]] = {}
    for turn in turns:
        row = result.setdefault(turn["language"], {"seconds": 0.0, "labelled": 0.0})
        row["seconds"] += turn["end"] - turn["start"]
        row["labelled"] += sum(
            max(0.0, min(end, turn["end"]) - max(start, turn["start"]))
            for start, end, language in spans
            if language == turn["language"]
        )
    return result


def add(total: dict[str, Any], more: dict[str, Any]) -> None:
    """Adds the numbers of nested tables."""
    for key, value in more.items():
        if isinstance(value, dict):
            add(total.setdefault(key, {}), value)
        else:
            total[key] = total.get(key, 0) + value


def summary(total: dict[str, Any], *, labels: bool) -> dict[str, Any]:
    """Shares and error rates of each language, and of all that are known.

    Args:
        total: numbers of each language.
        labels: whether the program labels segments.
    """
    known: dict[str, Any] = {}
    for language, row in total.items():
        if language != UNKNOWN:
            add(known, row)
    rows = total | {"all": known}
    return {
        language: {
            "words": row["words"],
            "written": row["equal"] / row["words"],
            "wer": row["errors"] / row["words"],
            "labelled": row["labelled"] / row["seconds"] if labels else None,
        }
        for language, row in rows.items()
    }


def read_recordings(folder: Path) -> list[Row]:
    """The rows of a folder of `make_language_mix.py`."""
    lines = (folder / RECORDINGS_FILE).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@click.command(cls=Benchmark)
@click.option("--data", required=True, metavar="DIR",
              type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="Folder of scripts/make_language_mix.py.")  # fmt: skip
@models_option()
@click.option("--faster-whisper", "peer", metavar="DIR", help="What faster-whisper runs.")
@click.option("--way", "ways", multiple=True, type=click.Choice([*WAYS, ALONE]),
              help="Only this way of ours; repeatable.")  # fmt: skip
@limit_option
@output_option()
def main(
    data: Path,
    models: Sequence[str],
    peer: str | None,
    ways: Sequence[str],
    limit: int | None,
    output: Path,
) -> None:
    """Transcribe recordings in which the language changes."""
    programs: dict[str, Program] = {}
    for item in models:
        name, folder = named_model(item)
        loaded = baldwhisper_mlx.load_model(folder)
        for way in ways or [*WAYS, ALONE]:
            programs[f"{name}, {way}"] = alone(loaded) if way == ALONE else ours(loaded, WAYS[way])
    if peer is not None:
        programs["faster-whisper, multilingual"] = faster_whisper(peer)
    recordings = read_recordings(data)[:limit]
    totals: dict[str, dict[str, Any]] = {name: {} for name in programs}
    seconds = dict.fromkeys(programs, 0.0)
    texts: list[Row] = []
    for recording in recordings:
        samples, turns = load_audio(data / recording["file_name"]), recording["turns"]
        for name, transcribe in programs.items():
            began = time.perf_counter()
            text, spans = transcribe(samples, turns)
            seconds[name] += time.perf_counter() - began
            add(totals[name], words_by_language(text, turns))
            add(totals[name], seconds_by_language(spans, turns))
            texts.append({"file": recording["file_name"], "program": name, "text": text.strip()})
    result = {
        "machine": describe(),
        "recordings": len(recordings),
        "seconds": sum(recording["duration"] for recording in recordings),
        "normalizer": "basic",
        "programs": {
            name: {
                "compute_seconds": seconds[name],
                "languages": summary(total, labels="faster-whisper" not in name),
            }
            for name, total in totals.items()
        },
        "texts": texts,
    }
    write_json(output, result)
    for name, row in result["programs"].items():
        shares = ", ".join(
            f"{language} {100 * one['written']:.0f} % (WER {100 * one['wer']:.0f} %"
            + (f", label {100 * one['labelled']:.0f} %)" if one["labelled"] is not None else ")")
            for language, one in row["languages"].items()
        )
        click.echo(f"{name}: {shares}, {row['compute_seconds']:.0f} s")


if __name__ == "__main__":
    main()
