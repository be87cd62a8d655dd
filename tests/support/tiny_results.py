"""Made-up results of every kind of benchmark, for tests of what reads them."""

from __future__ import annotations

from typing import Any

from baldwhisper_mlx.bench.runner import COMPARISONS, PEER, SCHEMA, STUDENT, TEACHER
from baldwhisper_mlx.bench.statistics import quartiles, speed_ups
from benchmarks.peers import compare
from benchmarks.peers.figures import LENGTHS
from benchmarks.speed import profile_model, scaling

SECONDS = {STUDENT: [1.0, 1.1, 0.9], TEACHER: [2.0, 2.4, 1.8], PEER: [6.0, 6.6, 5.4]}
NAMES = (
    "paper, batch 10",
    "decode, batch 1",
    "clip, 10 s, first token",
    "clip, 10 s, final text",
    "cold, 10 s",
)


def machine(chip: str = "Tiny CPU") -> dict[str, Any]:
    return {
        "chip": chip,
        "cores": 2,
        "memory_gb": 8.0,
        "os": "Some OS 1",
        "python": "3.11.7",
        "mlx": "0.32.4",
        "baldwhisper_mlx": "0.1.0",
        "device": "gpu" if chip.startswith("Apple") else "cpu",
        "blas": None,
        "threads": {},
        "load_before": [0.1, 0.1, 0.1],
        "load_after": [0.2, 0.2, 0.2],
    }


def bench(chip: str = "Tiny CPU") -> dict[str, Any]:
    """A result of `baldwhisper bench` with a peer."""
    contenders = {
        name: {
            "runtime": "mlx-whisper 0.4.3" if name == PEER else "baldwhisper-mlx 0.1.0",
            "model": name,
            "memory_dtype": "float32",
            "stored_dtype": "float16",
            "quantization": None,
            "disk_bytes": 10_000_000 * number,
            "parameters": 1_000_000 * number,
            "primitives": {"graph": 200, "fused": 100, "rules": 50},
        }
        for number, name in enumerate(SECONDS, start=1)
    }
    return {
        "schema": SCHEMA,
        "command": "baldwhisper bench speech",
        "date": "2026-01-01",
        "machine": machine(chip),
        "settings": {},
        "contenders": contenders,
        "ceilings": {STUDENT: {"bytes_per_second": 2e10, "flops_per_second": 1e11}},
        "comparisons": {
            c.name: {"title": c.title, "fast": c.fast, "slow": c.slow} for c in COMPARISONS
        },
        "cases": [case(name) for name in NAMES],
    }


def case(name: str) -> dict[str, Any]:
    protocol, label = name.split(", ", 1)
    tokens = protocol in ("paper", "decode")
    return {
        "name": name,
        "protocol": protocol,
        "label": label,
        "unit": "tokens/s" if tokens else "s",
        "amount": 100.0 if tokens else 10.0,
        "results": {
            contender: {
                "seconds": seconds,
                "value": quartiles([100 / s for s in seconds] if tokens else seconds),
                "ceiling": 1000.0 if tokens else None,
                "fraction": 0.1 if tokens else None,
                "peak_mlx_bytes": None if protocol == "cold" else 2e8,
                "peak_process_bytes": 3e8,
                "tokens": 300,
                "windows": None,
                "fallbacks": None,
            }
            for contender, seconds in SECONDS.items()
        },
        "speed_ups": {c.name: quartiles(speed_ups(SECONDS, c.fast, c.slow)) for c in COMPARISONS},
    }


def peer(rtf: float, wer: float | None) -> dict[str, Any]:
    """A program that was measured."""
    return {
        "status": "measured",
        "version": "program 1.0",
        "settings": {"device": "cpu", "dtype": "float32", "system": "A = 1 | B = 0"},
        "model_bytes": 150_000_000,
        "startup_seconds": 1.5,
        "first_seconds": 1.0,
        "seconds": 100 * rtf,
        "seconds_per_clip": quartiles([rtf]),
        "seconds_by_length": {str(seconds): seconds * rtf for seconds in LENGTHS},
        "rtf": rtf,
        "tokens": 300,
        "tokens_per_second": 3 / rtf,
        "peak_process_bytes": 400_000_000,
        "wer": wer,
        "wer_interval": None,
        "load_before": [0.0],
        "load_after": [0.0],
    }


def peers_result() -> dict[str, Any]:
    """Programs of which one is missing and one has failed."""
    return {
        "schema": compare.SCHEMA,
        "machine": machine(),
        "checkpoint": "whisper-base",
        "data": "speech/dev",
        "clips": 10,
        "audio_seconds": 100.0,
        "language": "en",
        "threads": 2,
        "peers": {
            compare.TEACHER: peer(0.2, 0.05),
            f"{compare.TEACHER}, student": peer(0.1, 0.06),
            "openai-whisper": peer(0.4, 0.05),
            "whisper.cpp": {"status": "missing", "reason": "pywhispercpp is not installed"},
            "transformers": {"status": "failed", "version": "t 1", "reason": "no | memory"},
        },
    }


def scaling_result() -> dict[str, Any]:
    """A model whose time is linear and whose memory is flat."""

    def point(seconds: float) -> dict[str, Any]:
        peaks = {"peak_mlx_bytes": 300_000_000, "peak_process_bytes": 500_000_000}
        return {"seconds": seconds, "tokens": 128, "load": [0.0]} | peaks

    lengths = [
        point(0.1 * max(s, 30.0)) | {"audio_seconds": s, "fallbacks": 0}
        for s in (10.0, 30.0, 60.0, 600.0)
    ]
    return {
        "schema": scaling.SCHEMA,
        "machine": machine(),
        "language": "en",
        "tokens": 128,
        "models": {
            "student": {
                "lengths": lengths,
                "batches": [point(float(b) ** 0.5) | {"batch": b} for b in (1, 4)],
            }
        },
    }


def profile_result() -> dict[str, Any]:
    """A profile with a piece inside a part, and a tenth that no part explains."""

    def part(name: str, kind: str, ms: float, inside: bool = False) -> dict[str, Any]:
        return {"name": name, "kind": kind, "ms": ms, "inside": inside}

    profile = {
        "whole_ms": 10.0,
        "parts": [
            part("attention", "attention", 6.0),
            part("softmax", "softmax", 4.0, inside=True),
            part("gelu", "gelu", 3.0),
        ],
        "primitives": {"Add": 3, "Matmul": 2},
    }
    model = {"dtype": "float32", "batch": 1, "position": 100}
    return {
        "schema": profile_model.SCHEMA,
        "machine": machine(),
        "models": {"student": model | {"encoder": profile, "step": profile}},
    }


def all_results(chip: str = "Tiny CPU") -> dict[str, dict[str, Any]]:
    """One of every kind."""
    return {
        "bench": bench(chip),
        "paper-form": bench(chip),
        "peers": peers_result(),
        "scaling": scaling_result(),
        "profile": profile_result(),
    }
