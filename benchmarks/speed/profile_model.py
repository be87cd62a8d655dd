"""Which part of encoding and of a decode step takes what share of the time.

Every part is run by itself, on the model's weights and at its true shapes, for all layers in one
evaluation. Parts of a step are timed right after a whole step, so that their weights come from
the same memory as in decoding, and the cost of an empty evaluation is subtracted. The remainder,
which no part explains, is reported as well: it is the cost of combining the parts.

    python -m benchmarks.speed.profile_model NAME=DIR
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import baldwhisper_mlx  # before anything imports MLX, for the BLAS
from baldwhisper_mlx.bench.machine import describe_machine, load_average
from benchmarks.options import Benchmark, named_model, output_option
from benchmarks.result_files import write_json

SCHEMA = "baldwhisper-profile/1"
PROMPT, WARM_UP, STEPS = 3, 4, 32


def profile_encoder(loaded: Any, repeats: int) -> dict[str, Any]:
    """Milliseconds to encode 30 s, whole and in parts, and the primitives it is made of."""
    import mlx.core as mx

    from baldwhisper_mlx.bench.primitives import histogram
    from baldwhisper_mlx.bench.runtimes import random_mel
    from benchmarks.speed.profile_parts import encoder_parts

    model = loaded.model
    mel, cache = random_mel(loaded.config.n_mels), model.make_cache()
    mx.eval(mel)

    def whole() -> list[Any]:
        model.encode(mel, [mel.shape[1]], cache)
        return [layer.cross_attn.state() for layer in cache]

    empty = _milliseconds(lambda: mel + 1, 20)
    parts = [
        _entry(part, max(0.0, _milliseconds(part.make, repeats) - empty))
        for part in encoder_parts(model, mel)
    ]
    graph = [array for pair in whole() for array in pair]
    primitives = dict(histogram(graph).most_common())
    return {
        "whole_ms": _milliseconds(whole, repeats),
        "parts": parts,
        "primitives": primitives,
    }


def profile_step(loaded: Any, batch: int, position: int, repeats: int) -> dict[str, Any]:
    """Milliseconds of a decode step, whole and in parts, and its primitives at batch 1."""
    import mlx.core as mx

    from baldwhisper_mlx.bench.primitives import histogram, step_graph
    from benchmarks.speed.profile_parts import filled_cache, step_parts

    cache = filled_cache(loaded, batch, position)
    token = mx.zeros((batch, 1), mx.int32)

    def step() -> Any:
        for layer in cache:
            layer.self_attn.offset = position
        return loaded.model.logits(loaded.model.decoder(token, cache))

    scalar = mx.array(0.0)
    empty = _milliseconds(lambda: scalar + 1, repeats, before=step)
    parts = [
        _entry(part, max(0.0, _milliseconds(part.make, repeats, before=step) - empty))
        for part in step_parts(loaded, batch, position)
    ]
    return {
        "whole_ms": _step_milliseconds(loaded, batch),
        "parts": parts,
        "primitives": dict(histogram(step_graph(loaded)[1]).most_common()),
    }


def _step_milliseconds(loaded: Any, batch: int) -> float:
    """A step of the real loop: the difference that more tokens make."""
    from baldwhisper_mlx.bench.runtimes import random_states
    from baldwhisper_mlx.decoding.options import DecodingOptions

    decoder, tokenizer = loaded.decoder, loaded.tokenizer
    decoder.attend_to(random_states(batch, loaded.config, loaded.model.decoder.ln.weight.dtype))
    language = tokenizer.known_languages[0]
    prompt = tokenizer.sot_sequence(language, "transcribe", timestamps=True)
    few, times = WARM_UP, {}
    for length in (few, few, few + STEPS):  # the first is a warm-up
        began = time.perf_counter()
        decoder.decode(prompt, DecodingOptions(forced_length=length))
        times[length] = time.perf_counter() - began
    return 1000 * (times[few + STEPS] - times[few]) / STEPS


def _milliseconds(
    make: Callable[[], Any], repeats: int, before: Callable[[], Any] | None = None
) -> float:
    """Median time to make and evaluate arrays, after one run that does not count."""
    import mlx.core as mx

    times = []
    for _ in range(repeats + 1):
        if before is not None:
            mx.eval(before())
        mx.synchronize()
        began = time.perf_counter()
        mx.eval(make())
        mx.synchronize()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times[1:])


def _entry(part: Any, milliseconds: float) -> dict[str, Any]:
    return {
        "name": part.name.strip(),
        "kind": part.kind,
        "ms": round(milliseconds, 4),
        "inside": part.inside,
    }


@click.command(cls=Benchmark)
@click.argument("models", nargs=-1, required=True, metavar="NAME=DIR...")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True,
              help="Clips decoded together.")  # fmt: skip
@click.option("--position", type=click.IntRange(min=1), default=100, show_default=True,
              help="Tokens in the cache before the step.")  # fmt: skip
@click.option("--repeats", type=click.IntRange(min=1), default=15, show_default=True,
              help="Measurements of each part; the median counts.")  # fmt: skip
@output_option("profile")
def main(models: tuple[str, ...], batch: int, position: int, repeats: int, output: Path) -> None:
    """Profile models: encoding 30 s, and a step at a batch size after POSITION tokens."""
    machine = describe_machine() | {"load_before": load_average()}
    result: dict[str, Any] = {"schema": SCHEMA, "machine": machine, "models": {}}
    for item in models:
        name, folder = named_model(item)
        loaded = baldwhisper_mlx.load_model(folder)
        room = loaded.config.n_text_ctx
        if max(position + 1, PROMPT + WARM_UP + STEPS) > room:
            raise click.UsageError(f"{item}: room for {room} tokens; give a smaller --position")
        found: dict[str, Any] = {
            "dtype": str(loaded.model.decoder.ln.weight.dtype).removeprefix("mlx.core."),
            "batch": batch,
            "position": position,
            "encoder": profile_encoder(loaded, repeats),
            "step": profile_step(loaded, batch, position, repeats),
        }
        result["models"][name] = found
        for what in ("encoder", "step"):
            click.echo(f"{name}, {what}: {found[what]['whole_ms']:.3f} ms")
            for part in found[what]["parts"]:
                share = part["ms"] / found[what]["whole_ms"]
                indent = "    " if part["inside"] else "  "
                click.echo(f"{indent}{part['name']:30} {part['ms']:9.3f} ms {100 * share:5.1f} %")
        machine["load_after"] = load_average()
        write_json(output, result)


if __name__ == "__main__":
    main()
