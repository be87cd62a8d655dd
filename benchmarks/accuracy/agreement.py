"""Whether the runtime's transcripts are openai-whisper's, from the same weights.

Both transcribe every clip of a folder at temperature 0 in float32, with and without timestamps,
from the same samples: greedily, or by beam search with --beam-size. Results are appended to a JSONL
file, from which an interrupted run resumes when you rerun the command.

    python -m benchmarks.accuracy.agreement --checkpoint CKPT --model EXPORTED --data FOLDER \
        --out a.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import baldwhisper_mlx
from baldwhisper_mlx.audio.load import load_audio
from baldwhisper_mlx.output.json_lines import append_json_lines, read_json_lines
from benchmarks.options import Benchmark, data_option, language_option, limit_option
from benchmarks.result_files import read_clips

MODES = ("timestamps", "text")

Transcriber = Callable[[Any, str], dict[str, Any]]


def openai_model(checkpoint: str) -> Any:
    """openai-whisper with the canonical weights of any checkpoint, and their alignment heads."""
    import torch
    from whisper.model import ModelDimensions, Whisper

    from baldwhisper_convert.readers.read import read_checkpoint

    source = read_checkpoint(checkpoint)
    model = Whisper(ModelDimensions(**asdict(source.dims)))
    model.load_state_dict(source.state)
    if source.alignment_heads:
        mask = torch.zeros(source.dims.n_text_layer, source.dims.n_text_head, dtype=torch.bool)
        for layer, head in source.alignment_heads:
            mask[layer, head] = True
        model.register_buffer("alignment_heads", mask.to_sparse(), persistent=False)
    return model.eval()


def reference(checkpoint: str, language: str, beam_size: int | None) -> Transcriber:
    """openai-whisper on those weights."""
    model = openai_model(checkpoint)

    def transcribe(samples: Any, mode: str) -> dict[str, Any]:
        result = model.transcribe(
            samples,
            language=language,
            temperature=0.0,
            beam_size=beam_size,
            fp16=False,
            without_timestamps=mode == "text",
        )
        return summary(result["text"], result["segments"])

    return transcribe


def ours(model: str, language: str, beam_size: int | None) -> Transcriber:
    """The runtime on the exported model."""
    loaded = baldwhisper_mlx.load_model(model, dtype="float32", audio_context="full")

    def transcribe(samples: Any, mode: str) -> dict[str, Any]:
        result = baldwhisper_mlx.transcribe(
            samples,
            loaded,
            language=language,
            temperature=0.0,
            beam_size=beam_size,
            without_timestamps=mode == "text",
        ).to_dict()
        return summary(result["text"], result["segments"])

    return transcribe


def summary(text: str, segments: list[dict[str, Any]]) -> dict[str, Any]:
    """What is compared: text, tokens, times, and the scores the algorithm decides by."""
    return {
        "text": text.strip(),
        "tokens": [list(segment["tokens"]) for segment in segments],
        "times": [[round(s["start"], 2), round(s["end"], 2)] for s in segments],
        "avg_logprob": [segment["avg_logprob"] for segment in segments],
        "no_speech_prob": [segment["no_speech_prob"] for segment in segments],
    }


def report(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts per mode, greatest score differences, and every clip whose text differs."""
    result: dict[str, Any] = {}
    for mode in MODES:
        chosen = [row for row in rows if row["mode"] == mode]
        pairs = [(row["ours"], row["reference"]) for row in chosen]
        gaps = [
            abs(a - b)
            for x, y in pairs
            if x["tokens"] == y["tokens"]
            for key in ("avg_logprob", "no_speech_prob")
            for a, b in zip(x[key], y[key], strict=True)
        ]
        result[mode] = {
            "clips": len(chosen),
            "same_text": sum(x["text"] == y["text"] for x, y in pairs),
            "same_tokens": sum(x["tokens"] == y["tokens"] for x, y in pairs),
            "same_times": sum(x["times"] == y["times"] for x, y in pairs),
            "largest_score_gap": max(gaps, default=None),
            "different": [
                {
                    "file": row["file"],
                    "ours": row["ours"]["text"],
                    "openai": row["reference"]["text"],
                }
                for row in chosen
                if row["ours"]["text"] != row["reference"]["text"]
            ],
        }
    return result


@click.command(cls=Benchmark)
@click.option("--checkpoint", required=True, metavar="MODEL",
              help="The weights in any format that export reads.")  # fmt: skip
@click.option("--model", required=True, metavar="DIR", help="The same weights, exported.")
@data_option()
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE",
              help="Results so far (JSONL).")  # fmt: skip
@click.option("--beam-size", type=click.IntRange(1, 100),
              help="Beams of both. Default: greedy decoding.")  # fmt: skip
@language_option
@limit_option
def main(
    checkpoint: str,
    model: str,
    data: Path,
    out: Path,
    beam_size: int | None,
    language: str,
    limit: int | None,
) -> None:
    """Transcribe the clips of a folder with both programs and compare the results."""
    files = [row["file_name"] for row in read_clips(data, limit)]
    rows = [row for row in read_json_lines(out) if row.get("beam_size") == beam_size]
    done = {(row["file"], row["mode"]) for row in rows}
    wanted = [(file, mode) for file in files for mode in MODES if (file, mode) not in done]
    if wanted:
        sides = {
            "ours": ours(model, language, beam_size),
            "reference": reference(checkpoint, language, beam_size),
        }
        for file, mode in wanted:
            samples = load_audio(data / file)
            row: dict[str, Any] = {"file": file, "mode": mode, "beam_size": beam_size}
            row |= {name: side(samples, mode) for name, side in sides.items()}
            rows.append(row)
            append_json_lines(out, [row])
    result = report([row for row in rows if row["file"] in set(files)])
    print(json.dumps(result, indent=2, ensure_ascii=False))
    sys.exit(
        any(result[mode]["same_text"] < 0.99 * max(1, result[mode]["clips"]) for mode in MODES)
    )


if __name__ == "__main__":
    main()
