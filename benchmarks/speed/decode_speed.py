"""Decode speed on the same machine in one run: this runtime, mlx-whisper, CTranslate2.

Every contender decodes 256 forced tokens for each of 1 or 10 clips of random encoder states,
with the dimensions of the given model. Each measurement is a process of its own, the contenders
take turns, and ratios are formed within a round. mlx-whisper gets the same BLAS as this runtime.

    python -m benchmarks.speed.decode_speed --model DIR --ct2 DIR --out results.json
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np

if any(word.startswith("CTranslate2") for word in sys.argv):
    # Before the runtime, which would hand CTranslate2 the BLAS of MLX, and a fifth of its speed.
    import mlx.core  # noqa: F401
import baldwhisper_mlx  # before anything else imports MLX, for the BLAS
from baldwhisper_mlx.bench.machine import chip
from baldwhisper_mlx.ops import blas
from benchmarks.options import Benchmark
from benchmarks.result_files import write_json

LENGTH = 256
WARM_UP = 16
MODES = ((1, False), (1, True), (10, False))
"""(clips per batch, with timestamp rules)"""
PROMPT_LANGUAGE = "en"


def features(batch: int, config: Any) -> np.ndarray:
    """Random encoder states (batch, n_audio_ctx, d) of unit variance, float32."""
    shape = (batch, config.n_audio_ctx, config.n_audio_state)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def run_ours(model: str, _ct2: str, batch: int, timestamps: bool) -> Callable[[int], int]:
    import mlx.core as mx

    from baldwhisper_mlx.decoding.options import DecodingOptions

    loaded = baldwhisper_mlx.load_model(model, dtype="float32")
    audio = mx.array(features(batch, loaded.config))
    prompt = loaded.tokenizer.sot_sequence(PROMPT_LANGUAGE, "transcribe", timestamps=timestamps)

    def decode(length: int) -> int:
        options = DecodingOptions(timestamps=timestamps, forced_length=length)
        loaded.decoder.attend_to(audio)
        return sum(len(result.tokens) for result in loaded.decoder.decode(prompt, options))

    return decode


def run_mlx_whisper(model: str, _ct2: str, batch: int, timestamps: bool) -> Callable[[int], int]:
    import mlx.core as mx
    from mlx_whisper.decoding import DecodingOptions, decode
    from mlx_whisper.whisper import ModelDimensions, Whisper

    from baldwhisper_mlx.config import CONFIG_FILE, ModelConfig

    config = ModelConfig.from_file(Path(model, CONFIG_FILE))
    names = ModelDimensions.__dataclass_fields__
    # Random weights: the values change nothing in the time a forced step takes.
    whisper = Whisper(ModelDimensions(**{name: getattr(config, name) for name in names}))
    whisper.dtype = mx.float32
    mx.eval(whisper.parameters())
    audio = mx.array(features(batch, config))
    options = DecodingOptions(
        language=PROMPT_LANGUAGE,
        without_timestamps=not timestamps,
        suppress_tokens=f"-1,{config.special_tokens['<|endoftext|>']}",
        fp16=False,
    )

    def run(length: int) -> int:
        results = decode(whisper, audio, replace(options, sample_len=length))
        return sum(len(result.tokens) for result in results)

    return run


def run_ctranslate2(
    model: str, ct2: str, batch: int, timestamps: bool, compute_type: str
) -> Callable[[int], int]:
    import ctranslate2

    from baldwhisper_mlx.config import CONFIG_FILE, ModelConfig

    config = ModelConfig.from_file(Path(model, CONFIG_FILE))
    whisper = ctranslate2.models.Whisper(ct2, device="cpu", compute_type=compute_type)
    audio = ctranslate2.StorageView.from_array(features(batch, config))
    special = config.special_tokens
    names = ["<|startoftranscript|>", f"<|{PROMPT_LANGUAGE}|>", "<|transcribe|>"]
    prompt = [special[name] for name in names]
    if not timestamps:
        prompt.append(special["<|notimestamps|>"])

    def decode(length: int) -> int:
        results = whisper.generate(
            audio,
            [prompt] * batch,
            beam_size=1,
            max_length=2 * length,  # it halves this for the output, as OpenAI's code does
            suppress_tokens=[-1, special["<|endoftext|>"]],
        )
        return sum(len(result.sequences_ids[0]) for result in results)

    return decode


CONTENDERS: dict[str, Callable[..., Callable[[int], int]]] = {
    "baldwhisper-mlx float32": run_ours,
    "mlx-whisper float32": run_mlx_whisper,
    "CTranslate2 float32": partial(run_ctranslate2, compute_type="float32"),
    "CTranslate2 int8": partial(run_ctranslate2, compute_type="int8"),
}


def measure(contender: str, model: str, ct2: str, batch: int, timestamps: bool) -> dict[str, Any]:
    """A short warm-up and one timed run in this process."""
    decode = CONTENDERS[contender](model, ct2, batch, timestamps)
    decode(WARM_UP)
    started = time.perf_counter()
    tokens = decode(LENGTH)
    seconds = time.perf_counter() - started
    if tokens != batch * LENGTH:
        raise SystemExit(f"{contender}: {tokens} tokens instead of {batch * LENGTH}")
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {
        "tokens_per_second": tokens / seconds,
        "peak_rss_mb": rss / (1e6 if sys.platform == "darwin" else 1e3),
    }
    if "mlx" in contender:
        import mlx.core as mx

        result["peak_mlx_mb"] = mx.get_peak_memory() / 1e6
    return result


def count_primitives(model: str) -> dict[str, int]:
    """Primitives of a decode step: on a CPU, on a GPU, and those of them that are the rules."""
    from baldwhisper_mlx.bench.primitives import count_step

    found = count_step(baldwhisper_mlx.load_model(model, dtype="float32"))
    return {"cpu": found["graph"], "gpu": found["fused"], "rules": found["rules"]}


def table(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians per contender and mode, and the median over rounds of ours / theirs."""
    result: dict[str, Any] = {}
    for mode in dict.fromkeys((r["batch"], r["timestamps"]) for r in rounds):
        rows: dict[str, Any] = {}
        chosen = [r for r in rounds if (r["batch"], r["timestamps"]) == mode]
        ours = {r["round"]: r["tokens_per_second"] for r in chosen if "baldwhisper" in r["name"]}
        for name in CONTENDERS:
            mine = [r for r in chosen if r["name"] == name]
            ratios = [ours[r["round"]] / r["tokens_per_second"] for r in mine]
            rows[name] = {
                "tokens_per_second": round(
                    statistics.median(r["tokens_per_second"] for r in mine), 1
                ),
                "ours_is_faster_by": round(statistics.median(ratios), 2),
                "peak_rss_mb": round(max(r["peak_rss_mb"] for r in mine)),
                "peak_mlx_mb": round(max(r.get("peak_mlx_mb", 0) for r in mine)) or None,
            }
        result[f"batch {mode[0]}, {'timestamps' if mode[1] else 'text only'}"] = rows
    return result


def markdown(result: dict[str, Any]) -> str:
    """The table for the README, from the contents of a result file."""
    modes = list(result["table"])
    lines = ["| decoder, float32 but for the last | " + " | ".join(modes) + " |"]
    lines.append("|---" * (len(modes) + 1) + "|")
    for name in CONTENDERS:
        rows = [result["table"][mode][name] for mode in modes]
        cells = [f"{row['tokens_per_second']} ({row['ours_is_faster_by']})" for row in rows]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@click.command(cls=Benchmark)
@click.option("--model", required=True, metavar="DIR", help="Exported model folder.")
@click.option(
    "--ct2", required=True, metavar="DIR", help="CTranslate2 folder of the same dimensions."
)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True,
              help="Measurements of each contender.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Result file (JSON).")
@click.option("--worker", hidden=True, help="Measure one contender and print JSON.")
@click.option("--batch", hidden=True, default=1)
@click.option("--timestamps", hidden=True, is_flag=True)
def main(
    model: str,
    ct2: str,
    rounds: int,
    out: Path | None,
    worker: str | None,
    batch: int,
    timestamps: bool,
) -> None:
    """Measure decode speed and print the results; --out also writes every round."""
    if worker == "primitives":
        print(json.dumps(count_primitives(model)))
        return
    if worker:
        print(json.dumps(measure(worker, model, ct2, batch, timestamps)))
        return

    def child(*arguments: str) -> dict[str, Any]:
        module = "benchmarks.speed.decode_speed"
        command = [sys.executable, "-m", module, "--model", model, "--ct2", ct2, *arguments]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        answer: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
        return answer

    measured = []
    for number in range(rounds):
        for batch, stamps in MODES:
            for name in CONTENDERS:
                flags = ["--timestamps"] if stamps else []
                row = child("--worker", name, "--batch", str(batch), *flags)
                row |= {"name": name, "batch": batch, "timestamps": stamps, "round": number}
                measured.append(row)
                print(f"{name}, batch {batch}: {row['tokens_per_second']:.1f}", file=sys.stderr)
    result = {
        "protocol": f"{LENGTH} forced tokens per clip, random encoder states",
        "machine": f"{chip()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("mlx", "mlx-whisper", "ctranslate2")},
        "blas": blas.preload(),
        "primitives_per_step": child("--worker", "primitives"),
        "table": table(measured),
        "rounds": measured,
    }
    if out:
        write_json(out, result)
    print(json.dumps({k: v for k, v in result.items() if k != "rounds"}, indent=2))


if __name__ == "__main__":
    main()
