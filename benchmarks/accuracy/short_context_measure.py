"""Transcribes clips in every audio context, and keeps what short_context.py resumes from."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from tqdm import tqdm

import baldwhisper_mlx
from baldwhisper_mlx.bench.machine import load_average
from baldwhisper_mlx.checkpoint.load import LoadedModel
from baldwhisper_mlx.config import SAMPLE_RATE, Dtype
from baldwhisper_mlx.model.cache import LayerCache
from baldwhisper_mlx.output.json_lines import append_json_lines, read_json_lines
from baldwhisper_mlx.transcription.fallback import TEMPERATURES
from benchmarks.accuracy.short_context_clips import Item
from benchmarks.accuracy.short_context_variants import Contexts, Variant


@contextmanager
def encoder_times(loaded: LoadedModel) -> Iterator[list[float]]:
    """Seconds from a window's features to the decoder's keys and values of it, window by window."""
    import mlx.core as mx

    model, encode = loaded.model, loaded.model.encode
    times: list[float] = []

    def timed(mel: mx.array, n_frames: Sequence[int], cache: Sequence[LayerCache]) -> None:
        mx.eval(mel)
        began = time.perf_counter()
        encode(mel, n_frames, cache)
        mx.eval([layer.cross_attn.state() for layer in cache])
        times.append(time.perf_counter() - began)

    object.__setattr__(model, "encode", timed)
    try:
        yield times
    finally:
        object.__delattr__(model, "encode")


def measure(loaded: LoadedModel, item: Item, settings: dict[str, Any]) -> dict[str, Any]:
    """Transcript and times of an item in the model's present audio context."""
    decoder = loaded.decoder  # gets states of its own only where a window is encoded again
    again = mock.patch.object(decoder, "attend_to", wraps=decoder.attend_to)
    with encoder_times(loaded) as times, again as encoded_again:
        began = time.perf_counter()
        result = baldwhisper_mlx.transcribe(
            item.samples,
            loaded,
            language=settings["language"],
            temperature=TEMPERATURES if settings["fallback"] else 0.0,
            without_timestamps=not settings["timestamps"],
        )
        seconds = time.perf_counter() - began
    return {
        "item": item.name,
        "data": item.data,
        "reference": item.reference,
        "text": result.text.strip(),
        "duration": round(len(item.samples) / SAMPLE_RATE, 3),
        "seconds": round(seconds, 4),
        "encoder_seconds": round(times[0], 4) if times else 0.0,
        "again": encoded_again.call_count,
        "load": load_average()[0],
    }


class WorkFile:
    """Measurements so far, a line each; only those of one run count.

    Args:
        path: of the file; it need not exist.
        key: of the run.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self.rows = [row for row in read_json_lines(path) if row["run"] == key]

    def add(self, row: dict[str, Any]) -> None:
        """Appends a measurement."""
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        append_json_lines(self.path, [{"run": self.key} | row])


def measure_missing(
    contexts: Contexts,
    name: str,
    variants: Sequence[Variant],
    items: Iterable[Item],
    settings: dict[str, Any],
    work: WorkFile,
) -> None:
    """Measures what the work file does not have yet, item by item in every audio context."""
    done = {(row["model"], row["variant"], row["item"]) for row in work.rows}
    warm: set[Variant] = set()
    for number, item in enumerate(tqdm(items, desc=name, unit="clip")):
        # the order changes from item to item: no variant always follows the same one
        turn = number % len(variants)
        for variant in (*variants[turn:], *variants[:turn]):
            if (name, variant.name, item.name) in done:
                continue
            contexts.use(variant)
            if variant not in warm:
                measure(contexts.loaded, item, settings)
                warm.add(variant)
            row = measure(contexts.loaded, item, settings)
            work.add({"model": name, "variant": variant.name} | row)


def load_full(folder: Path, dtype: Dtype = "float32") -> LoadedModel:
    """A model without the constants that may be in its folder."""
    return baldwhisper_mlx.load_model(folder, dtype=dtype, audio_context="full")


def run_key(settings: dict[str, Any]) -> str:
    """What identifies a run in the work file."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
